//! `nephron diagnose`: the whole pipeline.

use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::Context;
use crate::error::{Error, Result};
use crate::io::nifti;
use crate::phase::Phase;
use crate::pipeline::classify::Classifier;
use crate::pipeline::diagnose::{DiagnoseOptions, Diagnosis, PhaseInput, Step, System, diagnose};
use crate::pipeline::{Mirroring, Precision, SegmentOptions, Segmenter, Stage, parse_bytes};

/// The whole pipeline: three or four phases in, masks, aligned phases, subtype probabilities and a report out.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Portal-venous phase
    #[arg(long, value_name = "F")]
    portal: Option<PathBuf>,
    /// Arterial phase
    #[arg(long, value_name = "F")]
    arterial: Option<PathBuf>,
    /// Delayed phase
    #[arg(long, value_name = "F")]
    delayed: Option<PathBuf>,
    /// Phase without contrast medium
    #[arg(long, value_name = "F")]
    non_contrast: Option<PathBuf>,
    /// Model folder with segmentation/ and classification/
    #[arg(long)]
    model: PathBuf,
    /// Result folder; made if missing
    #[arg(short, long)]
    output: PathBuf,
    /// Average each tile over its eight mirrored copies
    #[arg(long)]
    tta: bool,
    /// The most memory for the segmentation: bytes, or with KB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_parser = budget)]
    memory_budget: Option<u64>,
}

fn budget(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|e| e.to_string())
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let files = [
        (Phase::NonContrast, &args.non_contrast),
        (Phase::Arterial, &args.arterial),
        (Phase::Portal, &args.portal),
        (Phase::Delayed, &args.delayed),
    ];
    let given: Vec<(Phase, PathBuf)> = files.into_iter().filter_map(|(p, f)| f.clone().map(|f| (p, f))).collect();
    if given.len() < 3 {
        return Err(Error::Usage(format!("diagnose needs three or four phases, {} given", given.len())));
    }
    let inputs = read(&given)?;
    let device = context.device()?;
    let system = System {
        segmenter: Segmenter::load(&args.model, None, Precision::default(), &device)?,
        classifier: Classifier::read(&args.model.join("classification"), &device)?,
        notes: vec![],
    };
    let options = DiagnoseOptions {
        segment: SegmentOptions {
            mirroring: if args.tta { Mirroring::AllAxes } else { Mirroring::Off },
            memory_budget: args.memory_budget,
            ..SegmentOptions::default()
        },
        ..DiagnoseOptions::default()
    };
    let result = run_with_progress(&inputs, &system, &options, &device, &args.output, context)?;
    if context.json {
        return context.print_json(&result);
    }
    print(&result, &args.output);
    Ok(())
}

/// Reads the scans of the phases.
pub(super) fn read(files: &[(Phase, PathBuf)]) -> Result<Vec<PhaseInput>> {
    files
        .iter()
        .map(|(phase, path)| Ok(PhaseInput { phase: *phase, path: path.clone(), image: nifti::read_ct(path)? }))
        .collect()
}

/// The pipeline with a bar that follows it.
pub(super) fn run_with_progress(
    inputs: &[PhaseInput],
    system: &System,
    options: &DiagnoseOptions,
    device: &crate::Device,
    folder: &Path,
    context: &Context,
) -> Result<Diagnosis> {
    let bar = context.progress(0, "reading");
    let result = diagnose(inputs, system, options, device, folder, &mut |step| show(&bar, step));
    bar.finish_and_clear();
    result
}

fn show(bar: &ProgressBar, step: Step) {
    match step {
        Step::Segment(phase, Stage::Preparing) => bar.set_message(format!("segment {phase}")),
        Step::Segment(_, Stage::Tiles(done, all)) => {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }
        Step::Align => bar.set_message("align"),
        Step::Classify => bar.set_message("classify"),
    }
}

/// The result for a person.
pub(super) fn print(result: &Diagnosis, folder: &Path) {
    for line in result.notes.iter().chain(&result.warnings) {
        say!("note: {line}");
    }
    for p in &result.phases {
        print!("{:13} kidney {:6.1} ml, tumour {:6.1} ml", p.phase.to_string(), p.kidney_ml, p.tumour_ml);
        match &p.registration {
            None => say!("; reference"),
            Some(r) => say!(
                "; kidney Dice {:.3} as scanned, {:.3} by centres of mass, {:.3} aligned ({} iterations)",
                r.identity.kidney.hard,
                r.centre_of_mass.kidney.hard,
                r.aligned.kidney.hard,
                r.iterations
            ),
        }
    }
    match &result.classification {
        None => say!("no tumour found: nothing to classify"),
        Some(c) => {
            let list: Vec<_> =
                result.classes.iter().zip(&c.probabilities).map(|(k, p)| format!("{k} {p:.3}")).collect();
            say!("subtype: {} ({})", c.decision, list.join(", "));
        }
    }
    let s = &result.seconds;
    say!(
        "{:.1} s on {} (segment {:.1}, align {:.1}, classify {:.1}); results in {}",
        s.total,
        result.device,
        s.segment,
        s.align,
        s.classify,
        folder.display()
    );
}
