//! A cohort: patients one after the other, those whose results are there left out on request.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Args, Run};
use crate::cohort::{Patient, mask_beside};
use crate::cohort_summary::{self, Outcome};
use crate::error::{Error, Result};
use crate::{Context, Failure};
use nephron::error::Error as LibraryError;
use nephron::io::{FolderLock, SourceFile, hash_files, images, read_small, write_atomic};
use nephron::phase::{Phase, PhaseSet};
use nephron::pipeline::diagnose::{Diagnosis, FAILURE, RunOptions, run_options};

/// Runs the pipeline on every patient and writes the summary. A patient that fails is reported and does not end the run.
pub(super) fn run(
    args: &Args,
    context: &Context,
    run: &Run<'_>,
    patients: &[Patient],
    phases: &[PhaseSet],
) -> Result<()> {
    // The summary is of one run, too.
    let _held = FolderLock::new(&args.output)?;
    cohort_summary::clear(&args.output)?;
    let asked = run_options(&run.system, &run.options, run.masks);
    let (mut outcomes, mut written, mut kept) = (Vec::new(), Ok(()), 0);
    for (i, (patient, phases)) in patients.iter().zip(phases).enumerate() {
        let name = patient.folder.file_name().unwrap_or_default().to_string_lossy();
        run.progress.input("patient", (i + 1, patients.len()), &name);
        let is_same = |found: &Diagnosis| run.would_make(found, patient, &asked);
        let earlier = if args.continue_ { earlier(patient).filter(is_same) } else { None };
        kept += usize::from(earlier.is_some());
        let result = earlier.map_or_else(|| run.one(patient, phases), Ok);
        run.progress.clear();
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
                keep_failure(patient, &error);
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

/// Writes the summary of the patients' results that are there. Those that are not have failed, as far as it knows.
pub(super) fn summarise(patients: &[Patient], output: &Path, context: &Context) -> Result<()> {
    let _held = FolderLock::new(output)?;
    cohort_summary::clear(output)?;
    let mut outcomes = Vec::new();
    for patient in patients {
        let result = Diagnosis::read(patient.output.join("result.json")).map_err(|error| {
            let input = patient.folder.display().to_string();
            let error = failure(patient).unwrap_or_else(|| error.to_string());
            note!("error: {input}: {error}");
            Failure { input, error }
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

/// Writes why a patient failed where the result would be, for a summary of several runs. Where even that fails, the summary will say
/// that there is no result.
fn keep_failure(patient: &Patient, error: &Error) {
    if std::fs::create_dir_all(&patient.output).is_ok() {
        let _ = write_atomic(patient.output.join(FAILURE), |file| writeln!(file, "{error}"));
    }
}

/// Why a run of a patient failed, where it said so.
fn failure(patient: &Patient) -> Option<String> {
    let text = read_small(patient.output.join(FAILURE)).ok()?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn print_line(result: &Diagnosis, folder: &Path) -> Result<()> {
    let found = &result.findings;
    let reason = || found.not_classified.clone().unwrap_or_else(|| "not classified".into());
    let decision = found.classification.as_ref().map_or_else(reason, |c| c.decision.to_string());
    say!("{}: {decision}, {:.1} s", folder.display(), result.seconds.total)
}

/// The result of an earlier run in a patient's folder, which is complete where it is there.
fn earlier(patient: &Patient) -> Option<Diagnosis> {
    Diagnosis::read(patient.output.join("result.json")).ok()
}

impl Run<'_> {
    /// Whether a result is what this run would make: of the same scans and masks, weights, options, program and device.
    fn would_make(&self, found: &Diagnosis, patient: &Patient, asked: &RunOptions) -> bool {
        let hashes = |files: &[SourceFile]| files.iter().map(|file| file.sha256.clone()).collect::<Vec<_>>();
        let weights = [
            self.system.segmenter.as_ref().map(|s| hashes(&s.files())).unwrap_or_default(),
            self.system.classifier.as_ref().map(|c| hashes(c.files())).unwrap_or_default(),
        ];
        let used = [&found.models.segmentation, &found.models.classification].map(|files| hashes(files));
        let same_run = found.program == nephron::pipeline::program()
            && found.device == self.device.name()
            && found.options.as_ref() == Some(asked)
            && used == weights;
        let of_phase = |(phase, path): &(Phase, PathBuf)| {
            let given = asked.given_masks.then(|| mask_beside(path));
            let previous = match self.previous_masks() {
                Some(masks) => Some(patient.previous_mask(path, masks).ok()?),
                None => None,
            };
            let beside = given.iter().chain(&previous).flat_map(images::files);
            let files: Vec<PathBuf> = images::files(path).into_iter().chain(beside).collect();
            Some((*phase, hashes(&hash_files(&files).ok()?)))
        };
        let read = found.phases.iter().map(|p| Some((p.phase, hashes(&p.files))));
        same_run && patient.files.iter().map(of_phase).eq(read)
    }
}
