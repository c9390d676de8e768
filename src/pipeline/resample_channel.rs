//! One channel of an image onto the network's grid, by nnU-Net's resampling functions.

use super::strided_view::StridedView;
use crate::device::Device;
use crate::ensure_room;
use crate::error::Result;
use crate::models::{Order, Resampling, SeparateAxis};
use crate::ops::tile::{AxisSampling, AxisTaps, select};
use crate::ops::{InterpolateMode, bspline_resample3d, interpolate3d};
use crate::tensor::{DType, Tensor};

/// Voxels after resampling: round(old spacing / new spacing * size), halves to even, at least 1.
pub fn resampled_size(size: [usize; 3], from: [f64; 3], to: [f64; 3]) -> [usize; 3] {
    std::array::from_fn(|a| (from[a] / to[a] * size[a] as f64).round_ties_even().max(1.0) as usize)
}

/// The axis that is resampled after its slices were resampled in their plane; None for all three at once. By default where the
/// largest voxel size, of the source or else of the target, is over `anisotropy` times the smallest and belongs to one axis
/// alone.
pub fn separate_axis(rule: SeparateAxis, anisotropy: f64, from: [f64; 3], to: [f64; 3]) -> Option<usize> {
    let largest = |s: [f64; 3]| s.into_iter().fold(f64::MIN, f64::max);
    let anisotropic = |s: [f64; 3]| largest(s) / s.into_iter().fold(f64::MAX, f64::min) > anisotropy;
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

/// `values` of `shape` to f32 [1, 1, size]; `separate` as [`separate_axis`] gives it.
pub(super) fn resample(
    values: Vec<f32>,
    shape: [usize; 3],
    size: [usize; 3],
    how: &Resampling,
    separate: Option<usize>,
    device: &Device,
) -> Result<Tensor> {
    let upload = |[n, d, h, w]: [usize; 4], values| Tensor::from_ndhwc(device, [n, 1, d, h, w], DType::F32, values);
    let [d, h, w] = shape;
    let Some(axis) = separate.filter(|_| size != shape) else {
        return by_order(&upload([1, d, h, w], values)?, size, how.order);
    };
    // Slices along n, each resampled in its plane and clipped to its own range; then across.
    let order = if axis == 0 { [0, 1, 2] } else { [axis, 0, 3 - axis] };
    let view = StridedView::whole(shape).permuted(order);
    let values = if axis == 0 { values } else { view.read(&values, |v| v)? };
    let [slices, rows, columns] = view.shape;
    let new = order.map(|a| size[a]);
    let resampled = by_order(&upload([slices, 1, rows, columns], values)?, [1, new[1], new[2]], how.order)?;
    let resampled = resampled.reshape([1, 1, slices, new[1], new[2]])?;
    let resampled = by_order(&resampled, new, how.order_across)?;
    if axis == 0 {
        return Ok(resampled);
    }
    // The coarsest axis is hardly ever another one: back through the host.
    ensure_room::<f32>("a resampled image", size.iter().product())?;
    let mut values = vec![0.0; size.iter().product()];
    StridedView::whole(size).permuted(order).write(&resampled.to_ndhwc()?, &mut values);
    upload([1, size[0], size[1], size[2]], values)
}

fn by_order(x: &Tensor, size: [usize; 3], order: Order) -> Result<Tensor> {
    let [n, _, d, h, w] = x.shape();
    if size == [d, h, w] {
        return Ok(x.clone());
    }
    match order {
        Order::Cubic => bspline_resample3d(x, size),
        Order::Linear => interpolate3d(x, size, InterpolateMode::Trilinear, false),
        Order::Nearest if n == 1 && [size[1], size[2]] == [h, w] => {
            let across = AxisTaps::new(AxisSampling::Nearest, d, size[0])?;
            select(&x.reshape([d, 1, 1, h, w])?, across.low())?.reshape([1, 1, size[0], h, w])
        }
        Order::Nearest => nearest(x, size),
    }
}

/// Through the host: models whose images are resampled to the nearest voxel are rare.
fn nearest(x: &Tensor, size: [usize; 3]) -> Result<Tensor> {
    let [n, c, d, h, w] = x.shape();
    let axis = |from: usize, to: usize| AxisTaps::new(AxisSampling::Nearest, from, to);
    let [along_z, along_y, along_x] = [axis(d, size[0])?, axis(h, size[1])?, axis(w, size[2])?];
    let values = x.to_ndhwc()?;
    let len = n * c * size.iter().product::<usize>();
    ensure_room::<f32>("a resampled image", len)?;
    let mut out = Vec::with_capacity(len);
    for image in 0..n {
        for &z in along_z.low() {
            for &y in along_y.low() {
                let row = ((image * d + z as usize) * h + y as usize) * w;
                for &x in along_x.low() {
                    out.extend_from_slice(&values[(row + x as usize) * c..][..c]);
                }
            }
        }
    }
    Tensor::from_ndhwc(&x.device(), [n, c, size[0], size[1], size[2]], DType::F32, out)
}
