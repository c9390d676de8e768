//! `nephron demo`: the whole pipeline on a phantom, with the models that come with the program.

use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use super::cohort::{Patient, read};
use super::diagnose::{print, run_with_progress};
use crate::error::Result;
use crate::options::{DeviceArgs, ProgressArgs};
use nephron::io::FolderLock;
use nephron::phantom::{PhantomOptions, generate};
use nephron::phase::{Phase, Subtype};
use nephron::pipeline::demo;
use nephron::pipeline::diagnose::{DiagnoseOptions, Diagnosis};
use nephron::volume::{TUMOUR, WHOLE_KIDNEY};

const EXAMPLES: &str = "\
Examples:
  nephron demo
  nephron demo result --seed 7 --device cpu";

/// Run the whole pipeline on a synthetic patient.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Result folder; created if needed
    #[arg(default_value = "nephron-demo")]
    folder: PathBuf,
    /// Seed of the synthetic patient
    #[arg(long, default_value_t = 2021)]
    seed: u64,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// The Dice of a phase's segmentation with the phantom's ground truth.
#[derive(Debug, Serialize)]
struct Truth {
    phase: Phase,
    kidney_with_tumour_dice: f64,
    tumour_dice: f64,
}

#[derive(Serialize)]
struct Report {
    seed: u64,
    subtype: Subtype,
    truth: Vec<Truth>,
    result: Diagnosis,
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let device = context.device()?;
    let _held = FolderLock::new(&args.folder)?;
    let progress = args.progress.start();
    progress.stage("making a synthetic patient");
    let folder = args.folder.join("patient");
    let patient = generate(&PhantomOptions { seed: args.seed, ..PhantomOptions::default() })?;
    patient.write(&folder)?;
    let files: Vec<_> = patient.phases.iter().map(|p| (p.phase, folder.join(format!("{}.nii.gz", p.phase)))).collect();
    let inputs = read(&Patient::alone(files, &args.folder), false, None)?;
    let system = demo::system(&args.folder.join("model"), &device)?;
    let result = run_with_progress(&inputs, &system, &DiagnoseOptions::default(), &device, &args.folder, &progress)?;

    let mut truth = Vec::new();
    for (phantom, found) in patient.phases.iter().zip(&result.phases) {
        let mask = nephron::io::images::read_labels(args.folder.join(&found.mask))?;
        let dice = |labels: &[u8]| phantom.mask.dice(&mask.labels, labels);
        let (kidney_with_tumour_dice, tumour_dice) = (dice(&WHOLE_KIDNEY)?, dice(&[TUMOUR])?);
        truth.push(Truth { phase: found.phase, kidney_with_tumour_dice, tumour_dice });
    }
    if context.json {
        return context.print_json(&Report { seed: args.seed, subtype: patient.subtype, truth, result });
    }
    say!("synthetic patient of seed {} with a {} tumour", args.seed, patient.subtype)?;
    print(&result, &args.folder)?;
    for t in &truth {
        say!(
            "{:13} segmentation against the ground truth: Dice kidney with tumour {:.3}, tumour {:.3}",
            t.phase.to_string(),
            t.kidney_with_tumour_dice,
            t.tumour_dice
        )?;
    }
    say!("open {} to view the report", args.folder.join("report.html").display())?;
    Ok(())
}
