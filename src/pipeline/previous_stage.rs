//! The mask of a cascade's first stage as channels of the second one's image.

use super::preprocess::nonzero_mask;
use super::resample_channel::separate_axis;
use super::resample_labels::resample_labels;
use super::strided_view::StridedView;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{PreviousStage, UNetPlan};
use crate::tensor::{DType, Tensor};
use crate::volume::{LabelVolume, Volume};

/// The mask that a plan asks for, checked against the image and the labels; None where it asks for none.
///
/// # Errors
/// A mask that is missing or not asked for, lies on another grid than the image, or holds other labels than the model's.
pub(super) fn expected<'a>(
    plan: &'a UNetPlan,
    mask: Option<&'a LabelVolume>,
    image: &Volume,
) -> Result<Option<(&'a PreviousStage, &'a LabelVolume)>> {
    let what = "segment: mask of the previous stage";
    let (stage, mask) = match (&plan.previous, mask) {
        (None, None) => return Ok(None),
        (Some(stage), Some(mask)) => (stage, mask),
        (Some(stage), None) => return Err(Error::argument(what, format!("one of {}", stage.configuration), "none")),
        (None, Some(_)) => {
            let expected = format!("none, since {} has no previous stage", plan.configuration);
            return Err(Error::argument(what, expected, "one"));
        }
    };
    if !mask.grid().matches(&image.grid()) {
        return Err(Error::shape(format!("{what}, its grid"), image.grid(), mask.grid()));
    }
    let counts = mask.counts();
    if let Some(stray) = (1..=u8::MAX).find(|label| counts[usize::from(*label)] > 0 && !stage.labels.contains(label)) {
        return Err(Error::argument(what, format!("labels of {:?}", stage.labels), stray));
    }
    Ok(Some((stage, mask)))
}

/// Where the image's channels lie and what becomes of them.
pub(super) struct Target<'a> {
    /// The channels as they are stored.
    pub(super) channels: &'a [Volume],
    /// The view of each that is the cropped image in the network's axes.
    pub(super) views: &'a [StridedView],
    /// The spacing of the views and the one they are resampled to.
    pub(super) spacings: [[f64; 3]; 2],
    /// The voxels they are resampled to.
    pub(super) size: [usize; 3],
}

/// A channel f32 [1, 1, d, h, w] for each label of the stage: 1 where the mask has it, else 0. The mask lies on the grid of the
/// first channel.
///
/// # Errors
/// A plan that does not resample a mask of another size; a device that fails.
pub(super) fn channels(
    (stage, mask): (&PreviousStage, &LabelVolume),
    target: &Target<'_>,
    device: &Device,
) -> Result<Vec<Tensor>> {
    let view = target.views[0];
    let mut labels = view.read(mask.labels(), i16::from)?;
    // nnU-Net gives the background outside of the image's non-zero part a label of its own, which takes part in the resampling.
    let inside = nonzero_mask(target.channels, target.views)?;
    labels.iter_mut().zip(inside).filter(|(label, inside)| **label == 0 && !inside).for_each(|(label, _)| *label = -1);
    let how = &stage.resampling;
    let [from, to] = target.spacings;
    let separate = separate_axis(how.separate, how.anisotropy, from, to);
    let [d, h, w] = target.size;
    if !how.enabled && view.shape != target.size {
        let expected = format!("{:?} voxels, since the plan does not resample it", target.size);
        return Err(Error::shape("segment: mask of the previous stage", expected, format!("{:?}", view.shape)));
    }
    let labels = resample_labels(labels, view.shape, target.size, how, separate)?;
    let channel = |label: &u8| {
        let values = labels.iter().map(|own| f32::from(*own == i16::from(*label))).collect::<Vec<f32>>();
        Tensor::from_ndhwc(device, [1, 1, d, h, w], DType::F32, values)
    };
    stage.labels.iter().map(channel).collect()
}
