//! Normalising and resampling a large image slab by slab, so that it is never in memory as a whole in f32 at its own spacing.

use super::normalize::normalize;
use super::strided_view::StridedView;
use crate::device::Device;
use crate::ensure_room;
use crate::error::{Error, Result};
use crate::models::{ChannelNormalization, Normalization, Order, Resampling};
use crate::ops::{bspline_resample3d_slices, bspline_slices};
use crate::tensor::{DType, Tensor};

/// Voxels of a slab: 128 MiB of f32, and as much for its coefficients. Smaller images are resampled at once. Of slices of 512 x 512
/// voxels a slab has 128, to which its neighbours add about 40.
const SLAB: usize = 1 << 25;

/// Whether an image is resampled in slabs: on the CPU, whose memory holds the image besides, by cubic splines along all axes at
/// once, where a voxel is normalised without looking at the others.
pub(super) fn is_resampled_in_slabs(
    shape: [usize; 3],
    size: [usize; 3],
    how: &Resampling,
    scheme: Normalization,
    device: &Device,
) -> bool {
    let is_pointwise = matches!(scheme, Normalization::Ct { .. } | Normalization::None);
    let is_large = shape.iter().product::<usize>() > SLAB;
    *device == Device::Cpu && is_pointwise && is_large && how.order == Order::Cubic && how.enabled && size != shape
}

/// The image under the view, normalised and resampled to f32 [1, 1, size].
///
/// # Errors
/// As [`normalize`]; a size that does not fit in memory.
pub(super) fn resample_in_slabs<T: Copy + Into<f32> + PartialOrd + Sync + Send>(
    voxels: &[T],
    view: &StridedView,
    how: &ChannelNormalization,
    size: [usize; 3],
    device: &Device,
) -> Result<Tensor> {
    let [d, h, w] = view.shape;
    let (low, high) = view.range(voxels).ok_or_else(|| Error::Data("an image without voxels".into()))?;
    // Normalising keeps the order of values.
    let ends = normalize(&[low, high], &StridedView::whole([1, 1, 2]), *how, None)?;
    let slab = (SLAB / (h * w)).max(1);
    let step = (slab * size[0] / d).max(1);
    let voxels_out = size.iter().product();
    ensure_room::<f32>("the resampled image", voxels_out)?;
    let mut values = Vec::new();
    values
        .try_reserve_exact(voxels_out)
        .map_err(|e| Error::other(format!("the resampled image of {size:?} voxels does not fit in memory"), e))?;
    for start in (0..size[0]).step_by(step) {
        let outputs = start..(start + step).min(size[0]);
        let slices = bspline_slices(d, size[0], outputs.clone());
        let shape = [1, 1, slices.len(), h, w];
        let slab = normalize(voxels, &view.cropped(&[slices, 0..h, 0..w]), *how, None)?;
        let slab = Tensor::from_ndhwc(device, shape, DType::F32, slab)?;
        let resampled = bspline_resample3d_slices(&slab, d, size, outputs, [ends[0], ends[1]])?;
        values.extend_from_slice(&resampled.to_ndhwc()?);
    }
    Tensor::from_ndhwc(device, [1, 1, size[0], size[1], size[2]], DType::F32, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::bspline_resample3d;

    #[test]
    fn slabs_give_the_image_that_is_resampled_at_once() {
        // 512 x 512 x 200 voxels are two slabs.
        let (shape, size) = ([200, 512, 512], [67, 64, 48]);
        let voxels: Vec<i16> = (0..shape.iter().product::<usize>()).map(|i| (i * 7919 % 4001) as i16 - 2000).collect();
        let how = ChannelNormalization {
            scheme: Normalization::Ct { clip: [-1000.0, 900.0], mean: 100.0, sd: 150.0 },
            inside_mask: false,
        };
        let view = StridedView::whole(shape);
        let found = resample_in_slabs(&voxels, &view, &how, size, &Device::Cpu).expect("resampled");
        let all = normalize(&voxels, &view, how, None).expect("values");
        let all = Tensor::from_ndhwc(&Device::Cpu, [1, 1, 200, 512, 512], DType::F32, all).expect("a tensor");
        let want = bspline_resample3d(&all, size).expect("resampled");
        // The values lie between -8 and 6; about 30 roundings of f32.
        let worst = found
            .to_ndhwc()
            .expect("values")
            .iter()
            .zip(want.to_ndhwc().expect("values"))
            .fold(0.0, |worst: f32, (a, b)| worst.max((a - b).abs()));
        assert!(worst <= 8.0 * 30.0 * f32::EPSILON, "{worst}");
    }
}
