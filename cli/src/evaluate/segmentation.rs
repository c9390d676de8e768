//! `nephron evaluate segmentation`: compares masks with true masks of the same names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::write_table;
use crate::Context;
use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::nifti;
use nephron::phase::Phase;
use nephron::stats;
use nephron::volume::{TUMOUR, WHOLE_KIDNEY};

/// Dice, volumes and surface distances of masks (1 kidney, 2 tumour) against true masks of the same names.
///
/// "kidney" means kidney and tumour together, labels 1 and 2. Distances are in mm. A pair with an empty mask has no distance; the
/// number of such pairs is printed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of masks to evaluate
    #[arg(long, value_name = "DIR")]
    masks: PathBuf,
    /// Folder of true masks, each with a mask of the same name in the other folder
    #[arg(long, value_name = "DIR")]
    truth: PathBuf,
    /// Group by the phase with which a file's name begins or ends (portal_7.nii.gz, 7_portal_mask.nii.gz)
    #[arg(long)]
    by_phase: bool,
    /// Write a row for each mask and label to FILE
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// One label of one pair.
struct Row {
    case: String,
    phase: String,
    label: &'static str,
    dice: f64,
    /// The volumes in millilitres: of the mask and of the true mask.
    volumes: [f64; 2],
    distances: Option<stats::SurfaceDistances>,
}

#[derive(Serialize)]
struct Spread {
    mean: f64,
    sd: f64,
}

/// A row of the table.
#[derive(Serialize)]
struct Summary {
    phase: String,
    label: &'static str,
    cases: usize,
    dice: Spread,
    /// The relative error (volume - true volume) / true volume. Cases with a true volume of 0 are left out.
    volume_error: Option<Spread>,
    hausdorff_95_mm: Option<Spread>,
    average_distance_mm: Option<Spread>,
    /// Number of cases without a distance, because one of the masks is empty.
    without_distance: usize,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<()> {
    let mut rows = Vec::new();
    for name in names(&args.truth)? {
        let (found, truth) = (args.masks.join(&name), args.truth.join(&name));
        if !found.exists() {
            return Err(
                LibraryError::file(&found, format!("expected a mask for {}, found none", truth.display())).into()
            );
        }
        let phase = if args.by_phase { phase(&name)? } else { "all".into() };
        compare(&name, &phase, [&found, &truth], &mut rows)?;
    }
    let mut groups: BTreeMap<(&str, &'static str), Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        groups.entry((&row.phase, row.label)).or_default().push(row);
    }
    let table: Vec<Summary> = groups.iter().map(|((phase, label), rows)| summary(phase, label, rows)).collect();
    if let Some(path) = &args.csv {
        write_table(path, &HEAD, rows.iter().map(cells))?;
    }
    if context.json {
        return context.print_json(&table);
    }
    print(&table)
}

/// The names of the NIfTI files in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>> {
    let failed = |e: std::io::Error| LibraryError::io(folder, "cannot be read", e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".nii") || name.ends_with(".nii.gz") {
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(LibraryError::file(folder, "expected masks (.nii, .nii.gz) in it, found none").into());
    }
    Ok(names)
}

fn phase(name: &str) -> Result<String> {
    let stem = name.trim_end_matches(".gz").trim_end_matches(".nii");
    let stem = stem.strip_suffix("_mask").unwrap_or(stem);
    let found = Phase::ALL.into_iter().map(|p| p.to_string()).find(|p| stem.starts_with(p) || stem.ends_with(p));
    let all = || Phase::ALL.map(|p| p.to_string()).join(", ");
    found.ok_or_else(|| Error::Usage(format!("--by-phase: expected {name} to begin or end with one of {}", all())))
}

fn compare(name: &str, phase: &str, paths: [&Path; 2], rows: &mut Vec<Row>) -> Result<()> {
    let [found, truth] = paths.map(nifti::read_labels);
    let (found, truth) = (found?.labels, truth?.labels);
    if !found.grid().matches(&truth.grid()) {
        let (expected, other) = (truth.grid(), found.grid());
        return Err(
            LibraryError::file(paths[0], format!("is on another grid: expected {expected}, found {other}")).into()
        );
    }
    for (label, set) in [("kidney", &WHOLE_KIDNEY[..]), ("tumour", &[TUMOUR])] {
        let [a, b] = [&found, &truth].map(|mask| mask.labels().iter().map(|l| set.contains(l)).collect::<Vec<bool>>());
        rows.push(Row {
            case: name.to_owned(),
            phase: phase.to_owned(),
            label,
            dice: found.dice(&truth, set)?,
            volumes: [&found, &truth].map(|mask| mask.volume_ml(set)),
            distances: stats::surface_distances(&a, &b, truth.shape(), truth.spacing()),
        });
    }
    Ok(())
}

fn spread(values: &[f64]) -> Option<Spread> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (!values.is_empty()).then(|| Spread { mean, sd: if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 } })
}

fn summary(phase: &str, label: &'static str, rows: &[&Row]) -> Summary {
    let of = |f: &dyn Fn(&Row) -> Option<f64>| spread(&rows.iter().filter_map(|r| f(r)).collect::<Vec<_>>());
    let error = |r: &Row| (r.volumes[1] > 0.0).then(|| (r.volumes[0] - r.volumes[1]) / r.volumes[1]);
    Summary {
        phase: phase.into(),
        label,
        cases: rows.len(),
        dice: of(&|r| Some(r.dice)).unwrap_or(Spread { mean: f64::NAN, sd: f64::NAN }),
        volume_error: of(&error),
        hausdorff_95_mm: of(&|r| r.distances.map(|d| d.hausdorff_95)),
        average_distance_mm: of(&|r| r.distances.map(|d| d.average)),
        without_distance: rows.iter().filter(|r| r.distances.is_none()).count(),
    }
}

/// The columns of `--csv`.
const HEAD: [&str; 9] = [
    "case",
    "phase",
    "label",
    "dice",
    "volume_ml",
    "true_volume_ml",
    "hausdorff_95_mm",
    "hausdorff_mm",
    "average_distance_mm",
];

/// The cells of a row; empty where there is no distance.
fn cells(row: &Row) -> Vec<String> {
    let far = row.distances.map(|d| [d.hausdorff_95, d.hausdorff, d.average].map(|mm| mm.to_string()));
    let [found, truth] = row.volumes;
    let numbers = [row.dice, found, truth].map(|v| v.to_string());
    let names = [row.case.clone(), row.phase.clone(), row.label.to_owned()];
    names.into_iter().chain(numbers).chain(far.unwrap_or_default()).collect()
}

fn print(table: &[Summary]) -> Result<()> {
    say!(
        "{:<14} {:<7} {:>5} {:>17} {:>17} {:>15} {:>15}",
        "phase",
        "label",
        "cases",
        "Dice",
        "volume error",
        "HD95 mm",
        "average mm"
    )?;
    let cell = |s: &Option<Spread>, scale: f64, unit: &str| {
        s.as_ref().map_or("-".into(), |s| format!("{:.2} +- {:.2}{unit}", s.mean * scale, s.sd * scale))
    };
    for line in table {
        let dice = format!("{:.4} +- {:.4}", line.dice.mean, line.dice.sd);
        let volume = cell(&line.volume_error, 100.0, " %");
        let [far, average] = [&line.hausdorff_95_mm, &line.average_distance_mm].map(|s| cell(s, 1.0, ""));
        say!("{:<14} {:<7} {:>5} {dice:>17} {volume:>17} {far:>15} {average:>15}", line.phase, line.label, line.cases)?;
        if line.without_distance > 0 {
            say!("{:<14} {} without a distance: one of the masks is empty", "", line.without_distance)?;
        }
    }
    Ok(())
}
