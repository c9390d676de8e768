//! Warping an image by a dense displacement field, or by an affine matrix without a grid in memory.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::grid_sample::{PaddingMode, SampleMode, ensure_theta};
use super::sampling::{ensure_f32, ensure_sampleable};
use super::span::op_span;
use super::{ensure_float, ensure_same_device};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor};

/// out(p) = x(p + flow(p)), trilinear: MONAI's `Warp` (bilinear).
///
/// `x` is [n, c, d, h, w] of any float type. `flow` is f32, logically [n, 3, d, h, w] on the voxels of `x`: displacements
/// in voxels, channels (z, y, x). The result has the shape and dtype of `x`. A NaN displacement counts as below the image.
///
/// # Errors
/// A flow of another shape or dtype, an axis over 2^24 voxels, operands on different devices, a device that fails.
pub fn warp3d(x: &Tensor, flow: &Tensor, padding: PaddingMode) -> Result<Tensor> {
    let _span = op_span!("warp3d", &[x, flow]);
    ensure_float("warp3d", x)?;
    ensure_same_device("warp3d: flow", x, flow)?;
    let [n, _, d, h, w] = x.shape();
    let expected = [n, 3, d, h, w];
    if flow.shape() != expected {
        return Err(Error::shape("warp3d: flow", format!("{expected:?}"), format!("{:?}", flow.shape())));
    }
    ensure_f32("warp3d: flow", flow)?;
    ensure_sampleable("warp3d", x.shape(), x.shape())?;
    match x.device() {
        Device::Cpu => {
            Ok(Tensor::host_f32(x.shape(), cpu::warp(x.host_floats()?, flow.host_floats()?, x.shape(), padding)))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("warp3d", &[x.shape(), flow.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let (input, field, output) = (x.gpu_handle(&device)?, flow.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.warp(x.dtype(), &input, &field, &output, x.shape(), padding))?;
            Ok(y)
        }
    }
}

/// An affine warp: `grid_sample3d` of `affine_grid3d`, without the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AffineWarpProblem {
    /// The image [n, c, d, h, w].
    pub input: Shape,
    /// [d, h, w] of the result.
    pub size: [usize; 3],
    /// The interpolation between voxels.
    pub mode: SampleMode,
    /// The values outside the image.
    pub padding: PaddingMode,
    /// Whether -1 and 1 are the outermost voxel centres, rather than the outer faces.
    pub align_corners: bool,
}

impl AffineWarpProblem {
    /// [n, c, d, h, w] of the result.
    pub fn output_shape(&self) -> Shape {
        let ([n, c, ..], [d, h, w]) = (self.input, self.size);
        [n, c, d, h, w]
    }
}

/// [`grid_sample3d`](super::grid_sample3d) at [`affine_grid3d`](super::affine_grid3d) of `theta`, in one pass.
///
/// `x` is [n, c, D, H, W] of any float type, or u8 labels with [`SampleMode::Nearest`], which stay u8. `theta` is f32
/// [n, 1, 1, 3, 4], rows and columns (x, y, z): from normalised coordinates of the result (of `size` [d, h, w]) to those
/// of `x`. The result is [n, c, d, h, w].
///
/// # Errors
/// A theta of another shape or dtype, labels to be interpolated, an image without voxels, an axis over 2^24 voxels,
/// operands on different devices, a device that fails.
pub fn affine_warp3d(
    x: &Tensor,
    theta: &Tensor,
    size: [usize; 3],
    mode: SampleMode,
    padding: PaddingMode,
    align_corners: bool,
) -> Result<Tensor> {
    let _span = op_span!("affine_warp3d", &[x]);
    if (x.dtype(), mode) != (DType::U8, SampleMode::Nearest) {
        ensure_float("affine_warp3d (labels need nearest)", x)?;
    }
    ensure_same_device("affine_warp3d: theta", x, theta)?;
    ensure_theta("affine_warp3d: theta", theta, x.shape()[0])?;
    let problem = AffineWarpProblem { input: x.shape(), size, mode, padding, align_corners };
    let shape = problem.output_shape();
    ensure_sampleable("affine_warp3d", x.shape(), shape)?;
    match x.device() {
        Device::Cpu if x.dtype() == DType::U8 => {
            Ok(Tensor::host_u8(shape, cpu::affine_warp_labels(x.host_labels()?, theta.host_floats()?, &problem)))
        }
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::affine_warp(x.host_floats()?, theta.host_floats()?, &problem))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("affine_warp3d", &[x.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            let (input, matrix, output) = (x.gpu_handle(&device)?, theta.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.affine_warp(x.dtype(), &input, &matrix, &output, &problem))?;
            Ok(y)
        }
    }
}
