//! The scans of a patient, with which every stage after the segmentation works.

use crate::error::{Error, Result};
use crate::phase::{Phase, PhaseSet};
use crate::volume::{LabelVolume, Orientation, Volume};

/// One phase of a patient: the CT in Hounsfield units and, on the same grid, the mask of
/// [`KIDNEY`](crate::volume::KIDNEY) and [`TUMOUR`](crate::volume::TUMOUR).
#[derive(Debug, Clone)]
pub struct PhaseScan {
    phase: Phase,
    image: Volume,
    mask: LabelVolume,
}

impl PhaseScan {
    /// A phase from its scan and its mask.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask on another grid than the image ([`Grid::matches`](crate::volume::Grid::matches)).
    pub fn new(phase: Phase, image: Volume, mask: LabelVolume) -> Result<Self> {
        if !mask.grid().matches(&image.grid()) {
            return Err(Error::shape(format!("{phase} phase: mask's grid"), image.grid(), mask.grid()));
        }
        Ok(Self { phase, image, mask })
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The CT in Hounsfield units.
    pub fn image(&self) -> &Volume {
        &self.image
    }

    /// The mask.
    pub fn mask(&self) -> &LabelVolume {
        &self.mask
    }

    /// Image and mask in another orientation, see [`Volume::reorient`].
    ///
    /// # Errors
    /// As [`Volume::reorient`].
    pub fn reorient(&self, target: Orientation) -> Result<Self> {
        Self::new(self.phase, self.image.reorient(target)?, self.mask.reorient(target)?)
    }

    /// The slices `first` to `last` of image and mask, see [`Volume::slices`].
    ///
    /// # Errors
    /// As [`Volume::slices`].
    pub fn slices(&self, range: [usize; 2]) -> Result<Self> {
        Self::new(self.phase, self.image.slices(range)?, self.mask.slices(range)?)
    }
}

/// The scans of one patient, each phase once, in the order in which they were given.
#[derive(Debug, Clone)]
pub struct Study {
    phases: PhaseSet,
    scans: Vec<PhaseScan>,
}

impl Study {
    /// A study of these scans.
    ///
    /// # Errors
    /// As [`PhaseSet::new`].
    pub fn new(scans: impl IntoIterator<Item = PhaseScan>) -> Result<Self> {
        let scans: Vec<PhaseScan> = scans.into_iter().collect();
        let phases = PhaseSet::new(scans.iter().map(PhaseScan::phase))?;
        Ok(Self { phases, scans })
    }

    /// The phases of the study.
    pub fn phases(&self) -> &PhaseSet {
        &self.phases
    }

    /// The scans, in the order of [`Self::phases`].
    pub fn scans(&self) -> &[PhaseScan] {
        &self.scans
    }

    /// The scan of a phase; None where the study does not have it.
    pub fn scan(&self, phase: Phase) -> Option<&PhaseScan> {
        self.scans.iter().find(|scan| scan.phase == phase)
    }
}
