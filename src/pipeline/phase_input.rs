//! A phase of a patient as it is read from files.

use std::path::{Path, PathBuf};

#[cfg(doc)]
use super::Ensemble;
use super::PhaseScan;
use crate::error::{Error, Result};
use crate::io::nifti::{Image, LabelImage};
use crate::io::{SourceFile, hash_files, images};
use crate::phase::Phase;
use crate::volume::{LabelVolume, TUMOUR};

/// One phase as it was read. The segmentation turns it into a [`PhaseScan`].
pub struct PhaseInput {
    /// The phase.
    pub phase: Phase,
    /// The path of the scan, for the result.
    pub path: PathBuf,
    /// The files of the scan and of a given mask, with their hashes.
    pub files: Vec<SourceFile>,
    /// The CT in Hounsfield units.
    pub image: Image,
    /// The scan with its given mask of kidney and tumour; None where the phase is to be segmented.
    pub given: Option<PhaseScan>,
    /// The mask of a cascade's first stage, where the model takes one ([`Ensemble::previous_masks`]).
    pub previous: Option<LabelVolume>,
}

impl PhaseInput {
    /// Reads a scan and, where one is given, its mask.
    ///
    /// # Errors
    /// As [`images::read_ct`] and [`images::read_labels`]; a mask on another grid than the scan.
    pub fn read(phase: Phase, path: &Path, mask: Option<&Path>) -> Result<Self> {
        let mut image = images::read_ct(path)?;
        let labels = mask.map(images::read_labels).transpose()?;
        if let (Some(path), Some(labels)) = (mask, &labels) {
            ensure_same_grid("a mask", path, &labels.labels, &image)?;
        }
        image.warnings.extend(labels.iter().flat_map(|mask| &mask.warnings).map(|w| format!("mask: {w}")));
        for (label, voxels) in labels.iter().flat_map(|mask| mask.labels.counts()).enumerate() {
            if voxels > 0 && label > usize::from(TUMOUR) {
                let reason = format!(
                    "mask: label {label} ({voxels} voxels) is neither kidney (1) nor tumour (2): it counts as background"
                );
                image.warnings.push(reason);
            }
        }
        let files: Vec<PathBuf> =
            images::files(path).into_iter().chain(mask.into_iter().flat_map(images::files)).collect();
        let scan = |mask: LabelImage| PhaseScan::new(phase, image.volume.clone(), mask.labels);
        let given = labels.map(scan).transpose()?;
        Ok(Self { phase, path: path.to_path_buf(), files: hash_files(&files)?, image, given, previous: None })
    }

    /// Adds the mask of a cascade's first stage.
    ///
    /// # Errors
    /// As [`images::read_labels`]; a mask on another grid than the scan.
    pub fn with_previous(mut self, mask: &Path) -> Result<Self> {
        let read = images::read_labels(mask)?;
        ensure_same_grid("a mask of the previous stage", mask, &read.labels, &self.image)?;
        self.image.warnings.extend(read.warnings.iter().map(|w| format!("mask of the previous stage: {w}")));
        self.files.extend(hash_files(&images::files(mask))?);
        self.previous = Some(read.labels);
        Ok(self)
    }
}

fn ensure_same_grid(what: &str, path: &Path, mask: &LabelVolume, image: &Image) -> Result<()> {
    let [expected, found] = [image.volume.grid(), mask.grid()];
    if found.matches(&expected) {
        return Ok(());
    }
    Err(Error::file(path, format!("expected {what} on the grid of the scan, {expected}, found {found}")))
}
