//! The scans of a patient: every stage behind the segmentation works on these.

use crate::error::{Error, Result};
use crate::phase::{Phase, PhaseSet};
use crate::volume::{LabelVolume, Orientation, Volume};

/// One phase of a patient: the CT in Hounsfield units, and on its grid the mask of
/// [`KIDNEY`](crate::volume::KIDNEY) and [`TUMOUR`](crate::volume::TUMOUR).
#[derive(Debug, Clone)]
pub struct PhaseScan {
    phase: Phase,
    image: Volume,
    mask: LabelVolume,
}

impl PhaseScan {
    /// A scan and its mask.
    ///
    /// # Errors
    /// [`Error::Shape`] for a mask that does not lie on the image's grid ([`Grid::matches`](crate::volume::Grid::matches)).
    pub fn new(phase: Phase, image: Volume, mask: LabelVolume) -> Result<Self> {
        if !mask.grid().matches(&image.grid()) {
            return Err(Error::shape(format!("{phase} phase: mask's grid"), image.grid(), mask.grid()));
        }
        Ok(Self { phase, image, mask })
    }

    /// Which phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The CT.
    pub fn image(&self) -> &Volume {
        &self.image
    }

    /// Its mask.
    pub fn mask(&self) -> &LabelVolume {
        &self.mask
    }

    /// Both with their axes turned, see [`Volume::reorient`].
    ///
    /// # Errors
    /// As [`Volume::reorient`].
    pub fn reorient(&self, target: Orientation) -> Result<Self> {
        Self::new(self.phase, self.image.reorient(target)?, self.mask.reorient(target)?)
    }

    /// The slices `first` to `last` of both, see [`Volume::slices`].
    ///
    /// # Errors
    /// As [`Volume::slices`].
    pub fn slices(&self, range: [usize; 2]) -> Result<Self> {
        Self::new(self.phase, self.image.slices(range)?, self.mask.slices(range)?)
    }
}

/// The scans of one patient, each phase once, in the order they were given in.
#[derive(Debug, Clone)]
pub struct Study {
    phases: PhaseSet,
    scans: Vec<PhaseScan>,
}

impl Study {
    /// A patient of these scans.
    ///
    /// # Errors
    /// As [`PhaseSet::new`].
    pub fn new(scans: impl IntoIterator<Item = PhaseScan>) -> Result<Self> {
        let scans: Vec<PhaseScan> = scans.into_iter().collect();
        let phases = PhaseSet::new(scans.iter().map(PhaseScan::phase))?;
        Ok(Self { phases, scans })
    }

    /// The phases there are.
    pub fn phases(&self) -> &PhaseSet {
        &self.phases
    }

    /// The scans, in the order of [`Self::phases`].
    pub fn scans(&self) -> &[PhaseScan] {
        &self.scans
    }

    /// The scan of a phase.
    pub fn scan(&self, phase: Phase) -> Option<&PhaseScan> {
        self.scans.iter().find(|scan| scan.phase == phase)
    }
}
