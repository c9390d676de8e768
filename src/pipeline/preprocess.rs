//! An image on its way into the network: orientation, transposition, cropping, normalisation, resampling, as nnU-Net v2
//! does them and in its order.

use super::view::{View, nonzero_box};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Normalization, OrientationRule, SeparateAxis, UNetPlan};
use crate::ops::bspline_resample3d;
use crate::ops::tile::{AxisTaps, Sampling, select};
use crate::tensor::{DType, Tensor};
use crate::volume::{Grid, Orientation, Volume, Voxels};

/// Largest over smallest voxel size from which slices are resampled on their own.
const ANISOTROPY: f64 = 3.0;

/// An image as the network sees it, and the way back.
pub(super) struct Prepared {
    /// f32 [1, 1, d, h, w] in the network's axes and spacing.
    pub(super) image: Tensor,
    /// From the oriented image to the cropped one in the network's axes.
    pub(super) view: View,
    /// Spacing of the view, millimetres.
    pub(super) spacing: [f64; 3],
    /// The grid of the image as it was turned for the network.
    pub(super) oriented: Grid,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// Voxels after resampling: round(old spacing / new spacing * size), halves to even, at least 1.
pub fn resampled_size(size: [usize; 3], from: [f64; 3], to: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| (from[a] / to[a] * size[a] as f64).round_ties_even().max(1.0) as usize)
}

/// The axis that is resampled to the nearest, after its slices were resampled in their plane; None for all three at once.
/// By default where the largest voxel size, of the source or else of the target, is over three times the smallest and
/// belongs to one axis alone.
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

/// Prepares `volume` for a network.
///
/// # Errors
/// NaN or infinite voxels, nothing but zeros, a resampled size past any scan's, a device that fails.
pub(super) fn prepare(volume: &Volume, plan: &UNetPlan, rule: OrientationRule, device: &Device) -> Result<Prepared> {
    volume.check_finite()?;
    let mut warnings = Vec::new();
    let orientation = orientation(volume.orientation(), plan, rule, &mut warnings);
    let oriented = volume.reorient(orientation)?;
    if oriented.orientation() != orientation {
        // Axes at exactly 45 degrees pair with either neighbour: the way back would be another one.
        let found = format!("one as close to {}", oriented.orientation());
        return Err(Error::argument("image: orientation", format!("axes closest to {orientation}"), found));
    }
    let normalization = plan.normalization.first().copied().unwrap_or(Normalization::None);
    let empty = || Error::Data("every voxel is 0: expected an image".into());
    let whole = View::whole(oriented.shape());
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

/// A model that was trained on files as they are stored gets them so, unless their slices run along another axis than
/// the third: no such file can have been among the others, and it would be resampled across the wrong axis.
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
                "stored as {code}, which the model cannot have been trained on: turned to LPS for the network"
            ));
            Orientation::LPS
        }
    }
}

fn crop_and_normalize<T: Copy + Default + PartialEq + Into<f32> + Sync>(
    whole: View,
    voxels: &[T],
    transpose: [usize; 3],
    normalization: Normalization,
) -> Option<(View, Vec<f32>)> {
    // nnU-Net fills the holes of the non-zero mask first, which leaves its box as it is.
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

/// Order-3 resampling of one channel.
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
    // Slices along n, each resampled in its plane and clipped to its own range; then the nearest one for each output slice.
    let order = if axis == 0 { [0, 1, 2] } else { [axis, 0, 3 - axis] };
    let view = View::whole(shape).permuted(order);
    let values = if axis == 0 { values } else { view.read(&values, |v| v) };
    let [slices, rows, columns] = view.shape;
    let [new_slices, new_rows, new_columns] = order.map(|a| size[a]);
    let slices_in = upload([slices, 1, rows, columns], values)?;
    let resampled = if [rows, columns] == [new_rows, new_columns] {
        slices_in
    } else {
        bspline_resample3d(&slices_in, [1, new_rows, new_columns])?
    };
    let across = AxisTaps::new(Sampling::Nearest, slices, new_slices)?;
    let resampled = if slices == new_slices { resampled } else { select(&resampled, across.low())? };
    if axis == 0 {
        return resampled.reshape([1, 1, size[0], size[1], size[2]]);
    }
    // The coarsest axis is hardly ever another one: back through the host.
    let mut values = vec![0.0; size.iter().product()];
    View::whole(size).permuted(order).write(&resampled.to_ndhwc()?, &mut values);
    upload([1, size[0], size[1], size[2]], values)
}
