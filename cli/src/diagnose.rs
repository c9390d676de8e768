//! `nephron diagnose`: the whole pipeline.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::classify::print_findings;
use super::classify_args::ClassifyArgs;
use super::cohort::{Patient, cohort, given, guessed, mask_beside, read};
use super::progress::Progress;
use super::{Context, Failure};
use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::phase::{Phase, PhaseSet};
use nephron::pipeline::classify::Classifier;
use nephron::pipeline::diagnose::{DiagnoseOptions, DiagnoseStage, Diagnosis, PhaseInput, System, diagnose};
use nephron::pipeline::{Mirroring, ModelOptions, Precision, SegmentOptions, Segmenter, Stage, parse_bytes};

/// Run the whole pipeline on two to four phases: masks, aligned phases and a report; with three or four phases also subtype
/// probabilities.
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
    /// Many patients: DIR has one folder for each, with portal.nii.gz, arterial.nii.gz, delayed.nii.gz and non-contrast.nii.gz;
    /// results are written to folders of the same names
    #[arg(long, value_name = "DIR", conflicts_with_all = ["portal", "arterial", "delayed", "non_contrast"])]
    cohort: Option<PathBuf>,
    /// One patient: DIR has the scans; phases are guessed from the names of its .nii and .nii.gz files
    #[arg(long, value_name = "DIR", conflicts_with_all = ["portal", "arterial", "delayed", "non_contrast", "cohort"])]
    guess_phases: Option<PathBuf>,
    /// Do not segment, but read the mask NAME_mask.nii.gz (1 kidney, 2 tumour) next to each scan NAME.nii.gz
    #[arg(long, conflicts_with_all = ["tta", "memory_budget"])]
    masks: bool,
    #[command(flatten)]
    what: ClassifyArgs,
    /// Do not classify: masks, aligned phases, measurements and a report
    #[arg(long)]
    no_classify: bool,
    /// Model folder with segmentation/ (not needed with --masks) and classification/ (without it nothing is classified)
    #[arg(long)]
    model: Option<PathBuf>,
    /// Result folder; created if needed
    #[arg(short, long)]
    output: PathBuf,
    /// Average over mirrored copies of each tile (eight in total where the weights allow all axes)
    #[arg(long)]
    tta: bool,
    /// Largest memory of the segmentation, in bytes or with KB, MB, GB, KiB, MiB, GiB
    #[arg(long, value_parser = budget)]
    memory_budget: Option<u64>,
}

fn budget(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|e| e.to_string())
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    args.what.ensure_valid()?;
    let patients = patients(args)?;
    let phases = patients.iter().map(Patient::phases).collect::<Result<Vec<_>>>()?;
    if args.cohort.is_none() {
        phases[0].ensure_alignable().map_err(|e| Error::Usage(e.to_string()))?;
    }
    let model = || {
        let none = || Error::Usage("--model: expected a model folder, found none".into());
        args.model.as_deref().ok_or_else(none)
    };
    if !args.masks {
        model()?;
    }
    // Where its folder is there, the classification model is meant to be used: a broken one is an error.
    let classification = args.model.as_ref().map(|model| model.join("classification")).filter(|folder| folder.exists());
    let why = if !phases.iter().any(PhaseSet::is_classifiable) {
        Some("which needs three or four phases")
    } else if args.no_classify {
        Some("as --no-classify says")
    } else if classification.is_none() {
        Some("for the model folder has no classification/")
    } else {
        None
    };
    let classified = why.is_none();
    if let Some(why) = why
        && !args.what.given().is_empty()
    {
        note!("warning: {} not used: nothing is classified, {why}", args.what.given().join(", "));
    }
    let device = context.device()?;
    let progress = context.progress();
    progress.stage("loading the model");
    let segmenter = if args.masks {
        None
    } else {
        Some(Segmenter::load(model()?, &ModelOptions::default(), Precision::default(), &device)?)
    };
    let classifier = match classification.filter(|_| classified) {
        Some(folder) => Some(args.what.apply(Classifier::read(&folder, &device)?)?),
        None => None,
    };
    progress.clear();
    let system = System { segmenter, classifier, notes: vec![] };
    let options = DiagnoseOptions {
        segment: SegmentOptions {
            mirroring: if args.tta { Mirroring::AllAxes } else { Mirroring::Off },
            memory_budget: args.memory_budget,
            ..SegmentOptions::default()
        },
        lesion: args.what.lesion(),
        ..DiagnoseOptions::default()
    };
    let one = |patient: &Patient, inputs: Vec<PhaseInput>| {
        run_with_progress(&inputs, &system, &options, &device, &patient.output, &progress)
    };
    // What an earlier run wrote goes just before the patient's files are read, so that a run that fails does not leave it.
    let read = |patient: &Patient, phases: &PhaseSet| {
        let mut inputs: Vec<PathBuf> = patient.files.iter().map(|(_, path)| path.clone()).collect();
        if args.masks {
            inputs.extend(patient.files.iter().map(|(_, path)| mask_beside(path)));
        }
        nephron::pipeline::diagnose::clear_results(&patient.output, phases, &inputs)?;
        progress.stage("reading");
        read(patient, args.masks)
    };
    if args.cohort.is_none() {
        let result = one(&patients[0], read(&patients[0], &phases[0])?)?;
        if context.json {
            return context.print_json(&result);
        }
        print(&result, &patients[0].output)?;
        return Ok(());
    }
    // A patient that fails is reported and does not end the run.
    let (mut failed, mut results, mut written) = (Vec::new(), Vec::new(), Ok(()));
    for (i, (patient, phases)) in patients.iter().zip(&phases).enumerate() {
        let name = patient.folder.file_name().unwrap_or_default().to_string_lossy();
        progress.input("patient", (i + 1, patients.len()), &name);
        let result = read(patient, phases).and_then(|inputs| one(patient, inputs));
        progress.clear();
        match result {
            Ok(result) if context.json => results.push(result),
            Ok(result) => {
                let found = &result.findings;
                let reason = || found.not_classified.clone().unwrap_or_else(|| "not classified".into());
                let decision = found.classification.as_ref().map_or_else(reason, |c| c.decision.to_string());
                // A closed standard output does not end the run: the other patients are still processed.
                let name = patient.output.display();
                written = written.and_then(|()| say!("{name}: {decision}, {:.1} s", result.seconds.total));
            }
            Err(error) => {
                let input = patient.folder.display().to_string();
                note!("error: {input}: {error}");
                failed.push(Failure { input, error: error.to_string() });
            }
        }
    }
    if context.json {
        written = context.print_json(&serde_json::json!({"patients": results, "failed": failed}));
    }
    if !failed.is_empty() {
        return Err(LibraryError::Data(format!("{} of {} patients failed", failed.len(), patients.len())).into());
    }
    written
}

fn patients(args: &Args) -> Result<Vec<Patient>> {
    if let Some(folder) = &args.cohort {
        return cohort(folder, &args.output);
    }
    if let Some(folder) = &args.guess_phases {
        return Ok(vec![guessed(folder, &args.output)?]);
    }
    let files = given([&args.non_contrast, &args.arterial, &args.portal, &args.delayed]);
    let folder = args.output.clone();
    Ok(vec![Patient { files, folder, output: args.output.clone(), guessed: false }])
}

/// Runs the pipeline and shows its progress.
pub(super) fn run_with_progress(
    inputs: &[PhaseInput],
    system: &System,
    options: &DiagnoseOptions,
    device: &nephron::Device,
    folder: &Path,
    progress: &Progress,
) -> Result<Diagnosis> {
    let place = |phase: Phase| inputs.iter().position(|input| input.phase == phase).map_or(0, |i| i + 1);
    let result = diagnose(inputs, system, options, device, folder, &mut |step| {
        match step {
            DiagnoseStage::Segment(phase, stage) => {
                let what = format!("segment phase {} of {}, {phase}", place(phase), inputs.len());
                match stage {
                    Stage::Preparing => progress.stage(&what),
                    Stage::Tiles(done, all) => progress.step(&what, done, all),
                }
            }
            DiagnoseStage::Align => progress.stage("align"),
            DiagnoseStage::Classify => progress.stage("classify"),
        }
        ControlFlow::Continue(())
    });
    progress.clear();
    Ok(result?)
}

/// Prints the result as text.
pub(super) fn print(result: &Diagnosis, folder: &Path) -> Result<()> {
    for line in result.notes.iter().chain(&result.warnings) {
        say!("note: {line}")?;
    }
    for (name, text) in result.models.segmentation_card.iter().flat_map(|card| card.lines()) {
        say!("segmentation model: {name}: {text}")?;
    }
    for p in &result.phases {
        let moved = p.registration.as_ref().map_or("reference".to_owned(), |r| {
            format!(
                "kidney Dice {:.3} as scanned, {:.3} by centres of mass, {:.3} aligned ({} iterations)",
                r.identity.kidney.hard, r.centre_of_mass.kidney.hard, r.aligned.kidney.hard, r.iterations
            )
        });
        say!("{:13} kidney {:6.1} ml, tumour {:6.1} ml; {moved}", p.phase.to_string(), p.kidney_ml, p.tumour_ml)?;
    }
    print_findings(&result.findings, true)?;
    let s = &result.seconds;
    say!(
        "{:.1} s on {} (segment {:.1}, align {:.1}, classify {:.1}, write {:.1}); results in {}",
        s.total,
        result.device,
        s.segment,
        s.align,
        s.classify,
        s.write,
        folder.display()
    )?;
    Ok(())
}
