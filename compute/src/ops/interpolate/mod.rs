//! Resizing on the voxel grid, as PyTorch's `interpolate`.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;
pub(crate) mod taps;

use super::ensure_float;
use super::sampling::{ensure_sampleable, spatial};
use super::span::op_span;
use crate::device::Device;
use crate::error::Result;
use crate::tensor::{Shape, Tensor};

/// The interpolation of [`interpolate3d`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InterpolateMode {
    /// The voxel floor(i * input / output) of each axis, computed in f32 as PyTorch does; `align_corners` does not matter.
    Nearest,
    /// Linear along each axis.
    Trilinear,
}

/// A resizing. Build with [`Interpolate3dProblem::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interpolate3dProblem {
    input: Shape,
    size: [usize; 3],
    mode: InterpolateMode,
    align_corners: bool,
}

impl Interpolate3dProblem {
    /// The problem of resizing an image [n, c, d, h, w] to `size`.
    ///
    /// # Errors
    /// An image without voxels for a result that has voxels.
    pub fn new(input: Shape, size: [usize; 3], mode: InterpolateMode, align_corners: bool) -> Result<Self> {
        let problem = Self { input, size, mode, align_corners };
        ensure_sampleable("interpolate3d", input, problem.output_shape())?;
        Ok(problem)
    }

    /// [n, c, size].
    pub fn output_shape(&self) -> Shape {
        let ([n, c, ..], [d, h, w]) = (self.input, self.size);
        [n, c, d, h, w]
    }

    fn nearest(&self) -> [taps::Taps<1>; 3] {
        let input = spatial(self.input);
        std::array::from_fn(|axis| taps::nearest(input[axis], self.size[axis]))
    }

    fn linear(&self) -> [taps::Taps<2>; 3] {
        let input = spatial(self.input);
        std::array::from_fn(|axis| taps::linear(input[axis], self.size[axis], self.align_corners))
    }
}

/// `x` [n, c, d, h, w] resized to [n, c, size], any float type: PyTorch's `interpolate` of a 5D tensor.
///
/// Trilinear interpolation reads the position (i + .5) * input / output - .5, at least 0 and with the edge voxel beyond the end, or, with
/// `align_corners`, i * (input - 1) / (output - 1). Positions and weights are computed in f64.
///
/// # Errors
/// A dtype that is not a float type, an image without voxels, an axis over 2^24 voxels, a device that fails.
pub fn interpolate3d(x: &Tensor, size: [usize; 3], mode: InterpolateMode, align_corners: bool) -> Result<Tensor> {
    let _span = op_span!("interpolate3d", &[x]);
    ensure_float("interpolate3d", x)?;
    let problem = Interpolate3dProblem::new(x.shape(), size, mode, align_corners)?;
    let shape = problem.output_shape();
    if shape == x.shape() {
        return Ok(x.clone()); // Every mode gives each voxel itself.
    }
    match x.device() {
        Device::Cpu => {
            let x = x.host_floats()?;
            let y = match mode {
                InterpolateMode::Nearest => cpu::separable(x, problem.input, &problem.nearest(), |_, _, v| v),
                InterpolateMode::Trilinear => cpu::separable(x, problem.input, &problem.linear(), |_, _, v| v),
            };
            Ok(Tensor::host_f32(shape, y))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("interpolate3d", &[x.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.interpolate(x.dtype(), &input, &output, &problem))?;
            Ok(y)
        }
    }
}
