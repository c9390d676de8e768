//! Preprocessing of an image for the network: orientation, transposition, cropping, normalisation and resampling, in the order and
//! with the rules of nnU-Net v2.

use super::strided_view::{StridedView, nonzero_box};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Normalization, OrientationRule, SeparateAxis, UNetPlan};
use crate::ops::bspline_resample3d;
use crate::ops::tile::{AxisSampling, AxisTaps, select};
use crate::tensor::{DType, Tensor};
use crate::volume::{Grid, Orientation, Volume, Voxels};

/// Ratio of the largest to the smallest voxel size above which slices are resampled separately.
const ANISOTROPY: f64 = 3.0;

/// A preprocessed image, with what is needed to map results back to the original.
pub(super) struct Prepared {
    /// The image, f32 [1, 1, d, h, w], with the axes and the spacing of the network.
    pub(super) image: Tensor,
    /// The view of the oriented image that is the cropped one in the network's axes.
    pub(super) view: StridedView,
    /// The spacing of the view in millimetres.
    pub(super) spacing: [f64; 3],
    /// The grid of the image in the orientation of the network.
    pub(super) oriented: Grid,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
}

/// The number of voxels after resampling from spacing `from` to spacing `to`: round(from / to * size) along each axis, halves to
/// even, at least 1.
pub fn resampled_size(size: [usize; 3], from: [f64; 3], to: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| (from[a] / to[a] * size[a] as f64).round_ties_even().max(1.0) as usize)
}

/// The axis along which the nearest slice is taken, after the slices were resampled in their plane; None where all three axes are
/// resampled at once. With [`SeparateAxis::WhenAnisotropic`] it is the axis of the largest voxel size, where that is more than
/// three times the smallest (of the source spacing `from`, or else of the target spacing `to`) and only one axis has it.
pub fn separate_axis(rule: SeparateAxis, from: [f64; 3], to: [f64; 3]) -> Option<usize> {
    let largest = |s: [f64; 3]| s.into_iter().fold(f64::MIN, f64::max);
    let anisotropic = |s: [f64; 3]| largest(s) / s.into_iter().fold(f64::MAX, f64::min) > ANISOTROPY;
    let spacing = match rule {
        SeparateAxis::Never => return None,
        SeparateAxis::Always => from,
        SeparateAxis::WhenAnisotropic if anisotropic(from) => from,
        SeparateAxis::WhenAnisotropic if anisotropic(to) => to,
        SeparateAxis::WhenAnisotropic => return None,
    };
    let mut coarsest = (0..3).filter(|&a| spacing[a] == largest(spacing));
    match (coarsest.next(), coarsest.next()) {
        (Some(axis), None) => Some(axis),
        _ => None,
    }
}

/// Preprocesses `volume` for a network.
///
/// # Errors
/// Voxels that are NaN or infinite; an image of zeros only; a resampled size that exceeds that of any scan; a device that fails.
pub(super) fn prepare(volume: &Volume, plan: &UNetPlan, rule: OrientationRule, device: &Device) -> Result<Prepared> {
    volume.ensure_finite()?;
    let mut warnings = Vec::new();
    let orientation = orientation(volume.orientation(), plan, rule, &mut warnings);
    let oriented = volume.reorient(orientation)?;
    if oriented.orientation() != orientation {
        // Axes at exactly 45 degrees are as close to another orientation, and the result could not be mapped back.
        let found = format!("one as close to {}", oriented.orientation());
        return Err(Error::argument("image: orientation", format!("axes closest to {orientation}"), found));
    }
    let normalization = plan.normalization.first().copied().unwrap_or(Normalization::None);
    let empty = || Error::Data("every voxel is 0: expected an image".into());
    let whole = StridedView::whole(oriented.shape());
    let (view, values) = match oriented.voxels() {
        Voxels::U8(v) => crop_and_normalize(whole, v, plan.transpose, normalization).ok_or_else(empty)?,
        Voxels::I16(v) => crop_and_normalize(whole, v, plan.transpose, normalization).ok_or_else(empty)?,
        Voxels::F32(v) => crop_and_normalize(whole, v, plan.transpose, normalization).ok_or_else(empty)?,
    };
    let stored = oriented.spacing();
    let spacing = plan.transpose.map(|a| stored[a]);
    let size = resampled_size(view.shape, spacing, plan.spacing);
    const LARGEST: usize = 1 << 16;
    if size.iter().any(|&s| s > LARGEST) {
        let found = format!("{size:?} voxels from spacing {spacing:?} to {:?}", plan.spacing);
        return Err(Error::argument("segment: resampled image", format!("axes of at most {LARGEST} voxels"), found));
    }
    let separate = separate_axis(plan.separate_data, spacing, plan.spacing);
    let image = resample(values, view.shape, size, separate, device)?;
    Ok(Prepared { image, view, spacing, oriented: oriented.grid(), warnings })
}

/// The orientation in which the network gets the image. A model that was trained on files as they are stored gets them unchanged,
/// unless their slices are not along the third axis: the model cannot have been trained on such a file, which would be resampled
/// along the wrong axis.
fn orientation(stored: Orientation, plan: &UNetPlan, rule: OrientationRule, warnings: &mut Vec<String>) -> Orientation {
    match rule {
        OrientationRule::Fixed(orientation) => orientation,
        OrientationRule::Stored => {
            let code = stored.to_string();
            let usual = code.chars().zip(["LR", "AP", "IS"]).all(|(letter, pair)| pair.contains(letter));
            if usual || plan.transpose != [0, 1, 2] {
                return stored;
            }
            warnings.push(format!(
                "stored as {code}, which the model cannot have been trained on: reoriented to LPS for the network"
            ));
            Orientation::LPS
        }
    }
}

fn crop_and_normalize<T: Copy + Default + PartialEq + Into<f32> + Sync>(
    whole: StridedView,
    voxels: &[T],
    transpose: [usize; 3],
    normalization: Normalization,
) -> Option<(StridedView, Vec<f32>)> {
    // nnU-Net fills the holes of the non-zero mask first, which does not change its bounding box.
    let ranges = nonzero_box(voxels, whole.shape)?;
    let view = whole.cropped(&ranges).permuted(transpose);
    let values = match normalization {
        Normalization::None => view.read(voxels, |v| v.into()),
        Normalization::Ct { clip: [low, high], mean, sd } => {
            let divisor = sd.max(1e-8);
            view.read(voxels, |v| (v.into().max(low).min(high) - mean) / divisor)
        }
    };
    Some((view, values))
}

/// Resamples one channel with cubic B-splines.
fn resample(
    values: Vec<f32>,
    shape: [usize; 3],
    size: [usize; 3],
    separate: Option<usize>,
    device: &Device,
) -> Result<Tensor> {
    let upload = |[n, d, h, w]: [usize; 4], values| Tensor::from_ndhwc(device, [n, 1, d, h, w], DType::F32, values);
    let [d, h, w] = shape;
    let Some(axis) = separate.filter(|_| size != shape) else {
        let image = upload([1, d, h, w], values)?;
        return if size == shape { Ok(image) } else { bspline_resample3d(&image, size) };
    };
    // The slices are the batch axis n. Each is resampled in its plane and clipped to its own range; then the nearest slice is taken
    // for each output slice.
    let order = if axis == 0 { [0, 1, 2] } else { [axis, 0, 3 - axis] };
    let view = StridedView::whole(shape).permuted(order);
    let values = if axis == 0 { values } else { view.read(&values, |v| v) };
    let [slices, rows, columns] = view.shape;
    let [new_slices, new_rows, new_columns] = order.map(|a| size[a]);
    let slices_in = upload([slices, 1, rows, columns], values)?;
    let resampled = if [rows, columns] == [new_rows, new_columns] {
        slices_in
    } else {
        bspline_resample3d(&slices_in, [1, new_rows, new_columns])?
    };
    let across = AxisTaps::new(AxisSampling::Nearest, slices, new_slices)?;
    let resampled = if slices == new_slices { resampled } else { select(&resampled, across.low())? };
    if axis == 0 {
        return resampled.reshape([1, 1, size[0], size[1], size[2]]);
    }
    // The coarsest axis is rarely another one than the first, so the axes are permuted back on the host.
    let mut values = vec![0.0; size.iter().product()];
    StridedView::whole(size).permuted(order).write(&resampled.to_ndhwc()?, &mut values);
    upload([1, size[0], size[1], size[2]], values)
}
