//! `nephron classify`: subtype probabilities from aligned phases and their masks.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::Context;
use super::classify_args::ClassifyArgs;
use super::cohort::given;
use crate::error::Result;
use crate::options::DeviceArgs;
use nephron::error::Error as LibraryError;
use nephron::io::{FolderLock, SourceFile, hash_files, images, write_atomic};
use nephron::phase::{PhaseSet, Subtype};
use nephron::pipeline::classify::Classifier;
use nephron::pipeline::diagnose::{SCHEMA_VERSION, clear_classification};
use nephron::pipeline::lesion_results::{Findings, findings};
use nephron::pipeline::lesions::MIN_LESION_ML;
use nephron::pipeline::{PhaseScan, ScanSlice, Study};
use nephron::volume::Orientation;

const EXAMPLES: &str = "\
Examples:
  nephron classify --portal P.nii.gz P_mask.nii.gz --arterial A.nii.gz A_mask.nii.gz --delayed D.nii.gz D_mask.nii.gz --model MODEL -o result";

/// Classify the tumours of aligned phases with masks (1 kidney, 2 tumour), each pair on one grid.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Portal-venous phase and its mask
    #[arg(long, value_names = ["IMAGE", "MASK"], num_args = 2)]
    portal: Option<Vec<PathBuf>>,
    /// Arterial phase and its mask
    #[arg(long, value_names = ["IMAGE", "MASK"], num_args = 2)]
    arterial: Option<Vec<PathBuf>>,
    /// Delayed phase and its mask
    #[arg(long, value_names = ["IMAGE", "MASK"], num_args = 2)]
    delayed: Option<Vec<PathBuf>>,
    /// Phase without contrast medium and its mask
    #[arg(long, value_names = ["IMAGE", "MASK"], num_args = 2)]
    non_contrast: Option<Vec<PathBuf>>,
    /// Model folder with classification/ (config.json and weights)
    #[arg(long)]
    model: PathBuf,
    #[command(flatten)]
    what: ClassifyArgs,
    /// Folder for result.json and pictures; created if needed
    #[arg(short, long)]
    output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

#[derive(Serialize)]
struct Report {
    schema_version: u32,
    program: String,
    device: String,
    files: Vec<SourceFile>,
    models: Vec<SourceFile>,
    classes: [Subtype; 5],
    warnings: Vec<String>,
    #[serde(flatten)]
    findings: Findings,
    seconds: f64,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let started = Instant::now();
    args.what.ensure_valid()?;
    let pairs = given([&args.non_contrast, &args.arterial, &args.portal, &args.delayed]);
    PhaseSet::new(pairs.iter().map(|(phase, _)| *phase))?.ensure_classifiable()?;
    let (mut scans, mut grids, mut files, mut warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (phase, pair) in pairs {
        let [image_path, mask_path] = pair.as_slice() else { continue };
        let (image, mask) = (images::read_ct(image_path)?, images::read_labels(mask_path)?);
        for (path, noted) in [(image_path, &image.warnings), (mask_path, &mask.warnings)] {
            for warning in noted.iter().map(|w| format!("{}: {w}", path.display())) {
                note!("warning: {warning}");
                warnings.push(warning);
            }
        }
        files.extend([image_path, mask_path].into_iter().flat_map(images::files));
        grids.push((phase, image.volume.grid()));
        let scan = PhaseScan::new(phase, image.volume, mask.labels);
        let apart = |e: LibraryError| {
            LibraryError::io(mask_path, format!("is on another grid than {}", image_path.display()), e)
        };
        scans.push(scan.map_err(apart)?.reorient(Orientation::LPS)?);
    }
    let study = Study::new(scans)?;
    let _held = args.output.as_ref().map(FolderLock::new).transpose()?;
    let device = context.device()?;
    let classifier = args.what.apply(Classifier::read(&args.model.join("classification"), &device)?)?;
    if let Some(folder) = &args.output {
        clear_classification(folder)?;
    }
    let mut found = findings(&study, Some(&classifier), args.what.lesion())?;
    found.locate(&study, &|phase, point| {
        let grid = grids.iter().find(|(own, _)| *own == phase).map(|(_, grid)| grid);
        ScanSlice::at(grid.unwrap_or(&grids[0].1), point)
    })?;
    found.warnings.iter().for_each(|w| note!("warning: {w}"));
    warnings.append(&mut found.warnings);
    if let Some(folder) = &args.output {
        found.write_pictures(&study, folder)?;
    }
    let report = Report {
        schema_version: SCHEMA_VERSION,
        program: nephron::pipeline::program(),
        device: device.name(),
        files: hash_files(&files)?,
        models: classifier.files().to_vec(),
        classes: Subtype::ALL,
        warnings,
        findings: found,
        seconds: started.elapsed().as_secs_f64(),
    };
    if let Some(folder) = &args.output {
        let text = serde_json::to_string_pretty(&report).map_err(|e| LibraryError::other("result.json", e))?;
        write_atomic(folder.join("result.json"), |file| writeln!(file, "{text}"))?;
    }
    if context.json {
        return context.print_json(&report);
    }
    print_findings(&report.findings, args.output.is_some())?;
    Ok(())
}

/// Number of unclassified lesions that are printed.
const MAX_UNCLASSIFIED: usize = 3;

/// Prints a line for each lesion that was classified and for the largest of the others. `written` tells whether there is a
/// result.json.
pub(super) fn print_findings(findings: &Findings, written: bool) -> Result<()> {
    let mut left_out = 0;
    for found in &findings.lesions {
        if found.classification.is_none() && found.lesion.number > MAX_UNCLASSIFIED {
            left_out += 1;
            continue;
        }
        let lesion = &found.lesion;
        let diameter = lesion.phases.iter().map(|p| p.diameter.maximum_2d_diameter_mm).fold(0.0, f64::max);
        let name = findings.name(lesion.number).to_lowercase();
        let head = format!("{name}: {:.1} ml, {diameter:.0} mm across", lesion.volume_ml);
        match (&found.classification, &found.not_classified) {
            (Some(c), _) => {
                let list: Vec<_> =
                    Subtype::ALL.iter().zip(&c.probabilities).map(|(class, p)| format!("{class} {p:.3}")).collect();
                say!("{head}: {} ({})", c.decision, list.join(", "))?;
            }
            // The reason that holds for the patient is printed below.
            (None, reason) if *reason == findings.not_classified => say!("{head}")?,
            (None, reason) => say!("{head}: not classified: {}", reason.as_deref().unwrap_or("no reason given"))?,
        }
    }
    if left_out > 0 {
        let place = if written { "are in result.json" } else { "are not listed; --json prints them" };
        say!("{left_out} smaller ones that were not classified {place}")?;
    }
    if findings.small_components.count > 0 {
        say!(
            "components smaller than {MIN_LESION_ML} ml, not listed: {}, {:.2} ml",
            findings.small_components.count,
            findings.small_components.volume_ml
        )?;
    }
    if let (None, Some(reason)) = (&findings.classification, &findings.not_classified) {
        say!("not classified: {reason}")?;
    }
    Ok(())
}
