//! The classifier's images of a lesion: one path for inference and training, so that the two cannot differ.

use super::Study;
use super::classifier_config::ClassifierConfig;
use super::crop::{self, CropBox};
use super::lesions::{self, Lesion, LesionChoice};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::phase::Phase;

/// A lesion in one phase as the network sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct PhaseCrop {
    /// The phase.
    pub phase: Phase,
    /// Where it lies.
    pub at: CropBox,
    /// The normalised values, [`ClassifierConfig::input_size`] rows of as many columns.
    pub pixels: Vec<f32>,
}

/// The crops of a lesion that is present in every phase, in the order of the study: on the slice with its largest area, the rectangle
/// around it is cropped from each phase and resized to the network's input.
///
/// # Errors
/// A lesion of masks of another shape; a lesion that is missing in a phase; a device that fails.
pub fn lesion_crops(
    study: &Study,
    lesion: &Lesion,
    config: &ClassifierConfig,
    device: &Device,
) -> Result<Vec<PhaseCrop>> {
    let crop_of = |scan: &super::PhaseScan| {
        let phase = scan.phase();
        let margin = config.margin.voxels(scan.image().spacing());
        let own = lesion.mask(phase, scan.mask())?;
        let at = own.map_or(Ok(None), |own| crop::tumour_box(&own, margin))?;
        let at = at.ok_or_else(|| Error::Data(format!("lesion {} is not in the {phase} phase", lesion.number)))?;
        let pixels = crop::crop(scan.image(), &at, &config.intensity(), config.input_size, device)?;
        Ok(PhaseCrop { phase, at, pixels })
    };
    study.scans().iter().map(crop_of).collect()
}

/// The image of three phases: their crops as channels, one behind the other. A phase without a crop is left out.
pub fn lesion_image(phases: [Phase; 3], crops: &[PhaseCrop]) -> Vec<f32> {
    let of = |phase| crops.iter().filter(move |crop: &&PhaseCrop| crop.phase == phase);
    phases.into_iter().flat_map(of).flat_map(|crop| crop.pixels.iter().copied()).collect()
}

/// The lesion to train with: the one that is classified by default, or all tumour voxels together.
///
/// # Errors
/// No tumour that is present in every phase; another choice, which names no lesion of every patient.
pub(crate) fn lesion_of(study: &Study, choice: LesionChoice) -> Result<Lesion> {
    let found = match choice {
        LesionChoice::Largest => lesions::find(study)?.0,
        LesionChoice::Together => lesions::together(study)?.into_iter().collect(),
        LesionChoice::All | LesionChoice::Number(_) => {
            return Err(Error::argument("training: lesion", "largest or together", choice));
        }
    };
    let count = found.len();
    let chosen = found.into_iter().find(|lesion| lesion.missing().is_empty());
    chosen.ok_or_else(|| match count {
        0 => Error::Data("expected a tumour in every phase, found none in the slices that all phases have".into()),
        _ => Error::Data(format!("expected a tumour in every phase, found {count}, none of them in all")),
    })
}
