//! `nephron diagnose`: the whole pipeline.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::classify::print_findings;
use super::classify_args::ClassifyArgs;
use super::cohort::{Patient, cohort, given, guessed, mask_beside, read};
use super::cohort_summary::{self, Outcome};
use super::progress::Progress;
use super::{Context, Failure};
use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::{FolderLock, SourceFile, hash_files, images};
use nephron::phase::{Phase, PhaseSet};
use nephron::pipeline::classify::Classifier;
use nephron::pipeline::diagnose::{
    DiagnoseOptions, DiagnoseStage, Diagnosis, PhaseInput, RunOptions, System, diagnose, run_options,
};
use nephron::pipeline::{Mirroring, ModelOptions, Precision, SegmentOptions, Segmenter, Stage, parse_bytes};

/// Run the whole pipeline on one to four phases: masks, aligned phases and a report; with three or four phases also subtype
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
    /// Leave out patients whose results are there already, of the same scans, models and options
    #[arg(long = "continue", requires = "cohort")]
    continue_: bool,
    /// Compute nothing: write the summary of the results that are in the output folder, whatever runs they are of
    #[arg(long, requires = "cohort", conflicts_with_all = ["continue_", "masks", "model"])]
    summary: bool,
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
    if patients.iter().any(|patient| patient.files.is_empty()) {
        return Err(Error::Usage("expected one to four phases, none given".into()));
    }
    if args.summary {
        // `requires` does not hold where another option conflicts with the required one.
        if args.cohort.is_none() {
            return Err(Error::Usage("--summary: expected --cohort, found the scans of one patient".into()));
        }
        return summarise(&patients, &args.output, context);
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
    // What an earlier run wrote goes just before the patient's files are read, so that a run that fails does not leave it. The folder
    // is held from then on.
    let one = |patient: &Patient, phases: &PhaseSet| {
        let _held = FolderLock::new(&patient.output)?;
        let mut inputs: Vec<PathBuf> = patient.files.iter().map(|(_, path)| path.clone()).collect();
        if args.masks {
            inputs.extend(patient.files.iter().map(|(_, path)| mask_beside(path)));
        }
        nephron::pipeline::diagnose::clear_results(&patient.output, phases, &inputs)?;
        progress.stage("reading");
        let inputs = read(patient, args.masks)?;
        run_with_progress(&inputs, &system, &options, &device, &patient.output, &progress)
    };
    if args.cohort.is_none() {
        let result = one(&patients[0], &phases[0])?;
        if context.json {
            return context.print_json(&result);
        }
        print(&result, &patients[0].output)?;
        return Ok(());
    }
    // The summary is of one run, too.
    let _held = FolderLock::new(&args.output)?;
    cohort_summary::clear(&args.output)?;
    let run_options = run_options(&system, &options, args.masks);
    // A patient that fails is reported and does not end the run.
    let (mut outcomes, mut written, mut kept) = (Vec::new(), Ok(()), 0);
    for (i, (patient, phases)) in patients.iter().zip(&phases).enumerate() {
        let name = patient.folder.file_name().unwrap_or_default().to_string_lossy();
        progress.input("patient", (i + 1, patients.len()), &name);
        let is_same = |found: &Diagnosis| is_result_of(found, patient, &system, &run_options, &device);
        let earlier = if args.continue_ { earlier(patient).filter(is_same) } else { None };
        kept += usize::from(earlier.is_some());
        let result = earlier.map_or_else(|| one(patient, phases), Ok);
        progress.clear();
        let result = match result {
            Ok(result) => {
                if !context.json {
                    // A closed standard output does not end the run: the other patients are still processed.
                    written = written.and_then(|()| print_line(&result, &patient.output));
                }
                Ok(result)
            }
            Err(error) => {
                let input = patient.folder.display().to_string();
                note!("error: {input}: {error}");
                Err(Failure { input, error: error.to_string() })
            }
        };
        outcomes.push(Outcome { patient, result });
    }
    cohort_summary::write(&args.output, &outcomes)?;
    if kept > 0 {
        note!("{kept} of {} patients left out: their results were there", patients.len());
    }
    let (results, failed): (Vec<_>, Vec<_>) =
        outcomes.into_iter().map(|outcome| outcome.result).partition(Result::is_ok);
    let (results, failed): (Vec<Diagnosis>, Vec<Failure>) =
        (results.into_iter().flatten().collect(), failed.into_iter().filter_map(Result::err).collect());
    let failures = failed.len();
    if context.json {
        written = context.print_json(&serde_json::json!({"patients": results, "failed": failed}));
    }
    if failures > 0 {
        return Err(LibraryError::Data(format!("{failures} of {} patients failed", patients.len())).into());
    }
    written
}

fn print_line(result: &Diagnosis, folder: &Path) -> Result<()> {
    let found = &result.findings;
    let reason = || found.not_classified.clone().unwrap_or_else(|| "not classified".into());
    let decision = found.classification.as_ref().map_or_else(reason, |c| c.decision.to_string());
    say!("{}: {decision}, {:.1} s", folder.display(), result.seconds.total)
}

/// Writes the summary of the patients' results that are there. Those that are not have failed, as far as it knows.
fn summarise(patients: &[Patient], output: &Path, context: &Context) -> Result<()> {
    let _held = FolderLock::new(output)?;
    cohort_summary::clear(output)?;
    let mut outcomes = Vec::new();
    for patient in patients {
        let result = Diagnosis::read(patient.output.join("result.json")).map_err(|error| {
            let input = patient.folder.display().to_string();
            note!("error: {input}: {error}");
            Failure { input, error: error.to_string() }
        });
        outcomes.push(Outcome { patient, result });
    }
    cohort_summary::write(output, &outcomes)?;
    let missing: Vec<&Failure> = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()).collect();
    if context.json {
        let there: Vec<&Diagnosis> = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok()).collect();
        context.print_json(&serde_json::json!({"patients": there, "failed": missing}))?;
    }
    match missing.len() {
        0 => Ok(()),
        count => Err(LibraryError::Data(format!("{count} of {} patients have no result", patients.len())).into()),
    }
}

/// The result of an earlier run in a patient's folder, which is complete where it is there.
fn earlier(patient: &Patient) -> Option<Diagnosis> {
    Diagnosis::read(patient.output.join("result.json")).ok()
}

/// Whether a result is what this run would make: of the same scans and masks, weights, options, program and device.
fn is_result_of(
    found: &Diagnosis,
    patient: &Patient,
    system: &System,
    options: &RunOptions,
    device: &nephron::Device,
) -> bool {
    let hashes = |files: &[SourceFile]| files.iter().map(|file| file.sha256.clone()).collect::<Vec<_>>();
    let weights = [
        system.segmenter.as_ref().map(|s| hashes(s.files())).unwrap_or_default(),
        system.classifier.as_ref().map(|c| hashes(c.files())).unwrap_or_default(),
    ];
    let used = [&found.models.segmentation, &found.models.classification].map(|files| hashes(files));
    let same_run = found.program == nephron::pipeline::program()
        && found.device == device.name()
        && found.options.as_ref() == Some(options)
        && used == weights;
    let of_phase = |(phase, path): &(Phase, PathBuf)| {
        let mask = options.given_masks.then(|| mask_beside(path));
        let files: Vec<PathBuf> = images::files(path).into_iter().chain(mask.iter().flat_map(images::files)).collect();
        Some((*phase, hashes(&hash_files(&files).ok()?)))
    };
    let read = found.phases.iter().map(|p| Some((p.phase, hashes(&p.files))));
    same_run && patient.files.iter().map(of_phase).eq(read)
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
