//! Preparing the cases of a data set for a plan, once: they are kept in files.

use std::ops::ControlFlow;
use std::path::Path;

use super::dataset::{Case, RawDataset};
use super::prepared::PreparedFile;
use super::sample::Sample;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::{SourceFile, hash_files, images};
use crate::models::{Normalization, UNetPlan};
use crate::pipeline::Scan;
use crate::pipeline::training_case::TrainingCase;
use crate::shown;

/// Where cases are prepared, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Preparation<'a> {
    /// The data set.
    pub dataset: &'a RawDataset,
    /// The plan.
    pub plan: &'a UNetPlan,
    /// What identifies the plan, such as the text of its files: cases that were prepared for another one are prepared again.
    pub identity: &'a str,
    /// The folder of the prepared cases, which is made if needed.
    pub folder: &'a Path,
    /// The device that resamples them.
    pub device: &'a Device,
}

impl Preparation<'_> {
    /// Prepares cases exactly as their images would be prepared to be segmented, and keeps them in files: 4 bytes for each voxel and
    /// channel and 1 for its label. A case that was prepared from the same files for the same plan by the same device is taken as it is.
    /// Returns the cases and the hash of all that was prepared. `progress` is called with the number of cases that are done and that of all.
    ///
    /// # Errors
    /// As [`RawDataset::read`]; what segmentation refuses; a plan that needs the mask of a previous stage; a file that cannot be
    /// written; [`Error::Cancelled`] where `progress` breaks.
    pub fn run(
        &self,
        cases: &[&Case],
        warn: &mut dyn FnMut(String),
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(Vec<Sample>, String)> {
        if let Some(previous) = &self.plan.previous {
            let found =
                format!("{}, whose image holds the mask of {}", self.plan.configuration, previous.configuration);
            return Err(Error::argument("training: configuration", "one without a previous stage", found));
        }
        std::fs::create_dir_all(self.folder).map_err(|e| Error::io(self.folder, "the folder cannot be created", e))?;
        let (mut samples, mut sources) = (Vec::with_capacity(cases.len()), String::new());
        for (done, case) in cases.iter().enumerate() {
            if progress(done, cases.len()).is_break() {
                return Err(Error::Cancelled);
            }
            let source = self.source(case)?;
            let named = |e: Error| e.context(format!("case {}", shown(&case.name)));
            let path = self.folder.join(format!("{}.prepared", case.name));
            let (file, warnings) = match PreparedFile::open(&path, &source)? {
                Some(found) => found,
                None => {
                    self.prepare(case, &path, &source)?;
                    let gone = || Error::file(&path, "changed while it was written");
                    PreparedFile::open(&path, &source)?.ok_or_else(gone)?
                }
            };
            warnings.into_iter().for_each(&mut *warn);
            samples.push(Sample::stored(&case.name, file, self.plan.labels.outputs()).map_err(named)?);
            // The contents: what another device or version prepared may differ.
            let hashed = hash_files(std::slice::from_ref(&path))?;
            sources += &format!("{:?} {}\n", case.name, hashed[0].sha256);
        }
        Ok((samples, hash_text(&sources)))
    }

    /// What a case is prepared from, and by what: the hash of its files, the device and the plan.
    fn source(&self, case: &Case) -> Result<String> {
        // The voxels of some formats lie in a file beside the header.
        let files: Vec<_> = case.images.iter().chain([&case.labels]).flat_map(images::files).collect();
        let hashes = hash_files(&files)?.into_iter().map(|file| file.sha256).collect::<Vec<_>>().join(" ");
        let device = self.device.name();
        Ok(hash_text(&format!("{hashes} {device} {} {}", self.plan.configuration, self.identity)))
    }

    fn prepare(&self, case: &Case, path: &Path, source: &str) -> Result<()> {
        let read = self.dataset.read(case)?;
        let named = |e: Error| e.context(format!("case {}", shown(&case.name)));
        let scan = Scan { channels: &read.channels, spacing: Some(read.spacing), previous: None };
        let found = TrainingCase::new(scan, &read.labels, self.plan, self.device).map_err(named)?;
        let warnings = found.warnings.into_iter().map(|warning| format!("case {}: {warning}", shown(&case.name)));
        let warnings = read.warnings.into_iter().chain(warnings).collect();
        PreparedFile::write(path, source, (&found.image, &found.labels, found.shape), warnings)
    }
}

/// SHA-256 of a text.
pub(in crate::training) fn hash_text(text: &str) -> String {
    SourceFile::of(Path::new(""), text.as_bytes()).sha256
}

/// The channels whose values outside the image's non-zero part stay 0.
pub fn masked_channels(plan: &UNetPlan) -> Vec<usize> {
    let is_masked =
        |channel: &crate::models::ChannelNormalization| channel.inside_mask && channel.scheme == Normalization::ZScore;
    plan.normalization.iter().enumerate().filter(|(_, channel)| is_masked(channel)).map(|(i, _)| i).collect()
}
