//! `nephron evaluate segmentation`: compares masks with the true masks of the same cases.

mod pairs;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{finish, print_json, write_table};
use crate::error::Result;
use crate::options::{CpuArgs, JsonArgs};
use nephron::error::Error as LibraryError;
use nephron::io::images;
use nephron::stats;
use nephron::volume::{BACKGROUND, LabelVolume};
use pairs::{Pair, pairs, phase};
use table::{HEAD, Row, Summary, cells, print, summary};
use targets::Target;

const EXAMPLES: &str = "\
Examples:
  nephron evaluate segmentation --masks predictions --truth labelsTr
  nephron evaluate segmentation --masks predictions --truth labelsTr --dataset dataset.json --csv cases.csv
  nephron evaluate segmentation --masks predictions --truth labelsTr --label kidney=1 --label cyst=3";

/// Dice, volumes and surface distances of masks against the true masks of the same cases.
///
/// A file's case is its name without ending and `_mask`. By default labels are 1 for kidney and 2 for tumour, which give
/// kidney_with_tumour (1 and 2) and tumour (2). Distances are in mm. Structures that were missed, found where there are none, and absent from
/// both masks are counted apart.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of masks to evaluate
    #[arg(long, value_name = "DIR")]
    masks: PathBuf,
    /// Folder of true masks, one for each case
    #[arg(long, value_name = "DIR")]
    truth: PathBuf,
    /// The labels of a name, such as kidney=1,2; once for each name
    #[arg(long, value_name = "NAME=L,L", value_parser = targets::parse, conflicts_with_all = ["dataset", "kits"])]
    label: Vec<Target>,
    /// Compare the labels and regions of nnU-Net's dataset.json
    #[arg(long, value_name = "FILE", conflicts_with = "kits")]
    dataset: Option<PathBuf>,
    /// Compare the classes of the KiTS challenges: kidney with masses (1, 2, 3), masses (2, 3), tumour (2)
    #[arg(long)]
    kits: bool,
    /// Group by the phase with which a case's name begins or ends (portal_7.nii.gz, 7_portal_mask.nii.gz)
    #[arg(long)]
    by_phase: bool,
    /// Write a row for each mask and label to FILE
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cpu: CpuArgs,
}

/// Runs the verb. A case that fails costs that case alone.
pub(super) fn run(args: &Args, output: &JsonArgs) -> Result<()> {
    let targets = match &args.dataset {
        Some(path) => targets::of_dataset(path)?,
        None if args.kits => targets::kits(),
        None if args.label.is_empty() => targets::kidneys(),
        None => args.label.clone(),
    };
    let (pairs, alone) = pairs(&args.masks, &args.truth)?;
    let phases = pairs.iter().map(|pair| if args.by_phase { phase(&pair.case) } else { Ok("all".into()) });
    let phases = phases.collect::<Result<Vec<_>>>()?;
    for mask in alone {
        note!("warning: {}: there is no true mask of this case; left out", mask.display());
    }
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for (pair, phase) in pairs.iter().zip(&phases) {
        match compare(pair, phase, &targets) {
            Ok(found) => rows.extend(found),
            Err(error) => failed.push((pair.case.clone(), error)),
        }
    }
    let mut groups: BTreeMap<(&str, usize), Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        let place = targets.iter().position(|target| target.name == row.label).unwrap_or(0);
        groups.entry((&row.phase, place)).or_default().push(row);
    }
    let table: Vec<Summary> =
        groups.iter().map(|((phase, place), rows)| summary(phase, &targets[*place].name, rows)).collect();
    if let Some(path) = &args.csv {
        write_table(path, &HEAD, rows.iter().map(cells))?;
    }
    let written = if output.json { print_json(output, &table, &failed) } else { print(&table) };
    finish(failed, pairs.len())?;
    written
}

fn compare(pair: &Pair, phase: &str, targets: &[Target]) -> Result<Vec<Row>> {
    let Some(path) = &pair.mask else {
        let reason = "is a true mask without a mask of the same case: expected one, found none";
        return Err(LibraryError::file(&pair.truth, reason).into());
    };
    let (found, truth) = (images::read_labels(path)?.labels, images::read_labels(&pair.truth)?.labels);
    if !found.grid().matches(&truth.grid()) {
        let (expected, other) = (truth.grid(), found.grid());
        return Err(LibraryError::file(path, format!("is on another grid: expected {expected}, found {other}")).into());
    }
    for (file, mask) in [(path, &found), (&pair.truth, &truth)] {
        for (label, voxels) in unknown(mask, targets) {
            note!("warning: {}: label {label} ({voxels} voxels) is not among those compared", file.display());
        }
    }
    let row = |target: &Target| {
        let set = target.labels.as_slice();
        let [a, b] = [&found, &truth].map(|mask| mask.labels().iter().map(|l| set.contains(l)).collect::<Vec<bool>>());
        let volumes = [&found, &truth].map(|mask| mask.volume_ml(set));
        Ok(Row {
            case: pair.case.clone(),
            phase: phase.to_owned(),
            label: target.name.clone(),
            dice: if volumes == [0.0; 2] { None } else { Some(found.dice(&truth, set)?) },
            volumes,
            distances: stats::surface_distances(&a, &b, truth.shape(), truth.spacing()),
        })
    };
    targets.iter().map(row).collect()
}

/// Labels that no target has, with their voxels.
fn unknown(mask: &LabelVolume, targets: &[Target]) -> Vec<(usize, usize)> {
    let is_known = |label: usize| {
        label == usize::from(BACKGROUND) || targets.iter().any(|t| t.labels.iter().any(|l| usize::from(*l) == label))
    };
    mask.counts().iter().copied().enumerate().filter(|(label, voxels)| *voxels > 0 && !is_known(*label)).collect()
}
