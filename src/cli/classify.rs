//! `nephron classify`: subtype probabilities from phases and masks that are there already.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use crate::error::{Error, Result};
use crate::io::{nifti, write_atomic};
use crate::phase::{Phase, Subtype};
use crate::pipeline::classify::{Classification, Classifier, PhaseImage};
use crate::volume::Orientation;

/// Subtype probabilities from phases and their masks (1 kidney, 2 tumour), each pair on one grid.
#[derive(Debug, clap::Args)]
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
    /// Folder for result.json; made if missing
    #[arg(short, long)]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    device: String,
    classes: [Subtype; 5],
    classification: Option<Classification>,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let pairs = [
        (Phase::NonContrast, &args.non_contrast),
        (Phase::Arterial, &args.arterial),
        (Phase::Portal, &args.portal),
        (Phase::Delayed, &args.delayed),
    ];
    let given = pairs.iter().filter(|(_, pair)| pair.is_some()).count();
    if given < 3 {
        return Err(Error::Usage(format!("classification needs three or four phases, {given} given")));
    }
    let mut phases = Vec::new();
    for (phase, pair) in pairs {
        let Some([image_path, mask_path]) = pair.as_deref() else { continue };
        let (image, mask) = (nifti::read_ct(image_path)?, nifti::read_labels(mask_path)?);
        for (path, warnings) in [(image_path, &image.warnings), (mask_path, &mask.warnings)] {
            warnings.iter().for_each(|w| eprintln!("warning: {}: {w}", path.display()));
        }
        if !image.volume.grid().matches(&mask.volume.grid()) {
            let [expected, found] = [&image, &mask].map(|i| format!("{:?} at {:?}", i.volume.shape, i.volume.affine.0));
            let reason =
                format!("lies on another grid than {}: expected {expected}, found {found}", image_path.display());
            return Err(Error::file(mask_path, reason));
        }
        phases.push(PhaseImage {
            phase,
            image: image.volume.reorient(Orientation::LPS)?,
            mask: mask.volume.reorient(Orientation::LPS)?,
        });
    }
    let device = context.device()?;
    let classifier = Classifier::read(&args.model.join("classification"), &device)?;
    let report = Report { device: device.name(), classes: Subtype::ALL, classification: classifier.classify(&phases)? };
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, format!("the folder cannot be made: {e}")))?;
        let text = serde_json::to_string_pretty(&report).map_err(|e| Error::Data(format!("result.json: {e}")))?;
        write_atomic(folder.join("result.json"), |file| writeln!(file, "{text}"))?;
    }
    if context.json {
        return context.print_json(&report);
    }
    match &report.classification {
        None => say!("no tumour found: nothing to classify"),
        Some(c) => {
            for (class, p) in Subtype::ALL.iter().zip(&c.probabilities) {
                say!("{class:11} {p:.4}{}", if *class == c.decision { "  <- decision" } else { "" });
            }
        }
    }
    Ok(())
}
