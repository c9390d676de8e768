//! What a run shows and records of its cases, in their order.

use std::ops::ControlFlow;
use std::path::Path;

use super::cases::Case;
use super::one_case::{self, Found, How, Input};
use super::pipeline::{Done, Front};
use super::record::{FileRecord, Record};
use crate::error::Result;
use crate::progress::Progress;
use crate::{Context, Failure};

/// The calling thread of a run: it computes, prints, and keeps the record.
pub(super) struct Console<'a> {
    pub(super) how: &'a How<'a>,
    pub(super) progress: &'a Progress,
    pub(super) context: &'a Context<'a>,
    pub(super) cases: &'a [&'a Case],
    /// Whether the run was started for one case: its error is that of the run.
    pub(super) is_alone: bool,
    /// Where the record is written, if it is.
    pub(super) path: Option<&'a Path>,
    pub(super) record: Record,
    /// Whether standard output could be written. Where it was closed, that does not cost the other images.
    pub(super) written: Result<()>,
}

impl<'a> Front<How<'a>> for Console<'a> {
    fn begin(&mut self, case: &Case, place: usize) {
        self.progress.input("image", (place + 1, self.cases.len()), &case.prefix);
        self.progress.stage("reading");
    }

    fn compute(
        &mut self,
        case: &Case,
        input: Result<Input>,
        finished: &mut dyn FnMut() -> Option<Done<How<'a>>>,
    ) -> Result<Result<Found>> {
        let (how, progress) = (self.how, self.progress);
        let mut ended = Ok(());
        let found = one_case::compute(case, input, how, progress, &mut || {
            ended = finished().map_or(Ok(()), |done| self.done(done));
            if ended.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        ended.map(|()| found)
    }

    fn done(&mut self, Done { place, result }: Done<How<'a>>) -> Result<()> {
        let (case, progress) = (self.cases[place], self.progress);
        match result {
            Ok(file) => progress.suspend(|| self.finished(case, file)),
            Err(error) if self.is_alone && !self.context.json => return Err(error),
            Err(error) => {
                let error = error.to_string();
                // An error of the image's file names it already.
                let input = if error.starts_with(&case.name) { String::new() } else { format!("{}: ", case.name) };
                progress.suspend(|| note!("error: {input}{error}"));
                self.record.failed.push(Failure { input: case.name.clone(), error });
            }
        }
        self.record.host_memory_peak_bytes = nephron::host_memory().peak as u64;
        // After each image, so that a run that is killed can be continued.
        self.path.map_or(Ok(()), |path| self.record.write(path))
    }

    fn ending(&mut self) {
        self.progress.stage("writing");
    }
}

impl Console<'_> {
    fn finished(&mut self, case: &Case, file: FileRecord) {
        if self.context.verbose > 0 {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            note!(
                "memory: {:.0} MB planned for the resampled image, sums, activations and one slab; {:.0} MB at most held by the \
                 CPU's tensors, weights included",
                megabytes(file.working_set_bytes),
                megabytes(nephron::host_memory().peak as u64)
            );
        }
        for warning in &file.warnings {
            note!("warning: {}: {warning}", case.name);
        }
        if !self.context.json && self.written.is_ok() {
            self.written = one_case::print(&file);
        }
        self.record.files.push(file);
    }
}
