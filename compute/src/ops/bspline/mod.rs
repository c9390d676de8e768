//! Cubic B-spline resizing, as `skimage.transform.resize(order=3, mode="edge")`, which nnU-Net resamples images with.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::ensure_float;
use super::interpolate::cpu::separable;
use super::interpolate::taps::{Taps, centre};
use super::sampling::cpu::Cell;
use super::sampling::{ensure_sampleable, spatial};
use super::span::op_span;
use crate::device::Device;
use crate::error::Result;
use crate::room::ensure_room;
use crate::tensor::{Shape, Tensor};

/// The root of the cubic B-spline's inverse filter: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Number of voxels beyond the edge to which a coordinate is clamped, as in SciPy.
const REACH: isize = 12;

/// A cubic resizing. Build with [`BsplineResample3dProblem::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BsplineResample3dProblem {
    input: Shape,
    size: [usize; 3],
}

impl BsplineResample3dProblem {
    /// The problem of resizing an image [n, c, d, h, w] to `size`.
    ///
    /// # Errors
    /// An image without voxels for a result that has voxels.
    pub fn new(input: Shape, size: [usize; 3]) -> Result<Self> {
        let problem = Self { input, size };
        ensure_sampleable("bspline_resample3d", input, problem.output_shape())?;
        Ok(problem)
    }

    /// [n, c, size].
    pub fn output_shape(&self) -> Shape {
        let ([n, c, ..], [d, h, w]) = (self.input, self.size);
        [n, c, d, h, w]
    }

    fn taps(&self) -> [Taps<4>; 3] {
        let input = spatial(self.input);
        std::array::from_fn(|axis| cubic(input[axis], self.size[axis]))
    }
}

/// The coefficients, and their weights, that make each voxel of a resized axis: at (i + .5) * input / output - .5.
fn cubic(input: usize, output: usize) -> Taps<4> {
    Taps::new((0..output).map(|i| {
        let source = centre(i, input, output);
        let low = source.floor();
        cpu::window(Cell { low: low as isize, fraction: (source - low) as f32 }, input)
    }))
}

/// `x` [n, c, d, h, w] resized to [n, c, size] by cubic B-splines, any float type: SciPy's `zoom` with order 3, mode
/// `nearest` and `grid_mode`, with the result of each image and channel clipped to the range of its input.
///
/// Voxel i of an axis is the value at (i + .5) * input / output - .5 of the spline through the voxels; beyond the edge the edge values
/// continue. (SciPy pads with 12 voxels only: the results differ by 1e-14 of the step at the edge.)
///
/// # Errors
/// A dtype that is not a float type, an image without voxels, an axis over 2^24 voxels, a device that fails.
pub fn bspline_resample3d(x: &Tensor, size: [usize; 3]) -> Result<Tensor> {
    let _span = op_span!("bspline_resample3d", &[x]);
    ensure_float("bspline_resample3d", x)?;
    let problem = BsplineResample3dProblem::new(x.shape(), size)?;
    let shape = problem.output_shape();
    if shape == x.shape() {
        return Ok(x.clone()); // the spline goes through the voxels
    }
    match x.device() {
        Device::Cpu => {
            let x = x.host_floats()?;
            // The coefficients, a copy of them while an axis is filtered, and the result.
            ensure_room::<f32>("a resampled image", 2 * x.len() + shape.iter().product::<usize>())?;
            let (ranges, channels) = (cpu::ranges(x, problem.input), shape[1]);
            let coefficients = cpu::coefficients(problem.input, x.to_vec());
            let y = separable(&coefficients, problem.input, &problem.taps(), |n, c, v| {
                let (low, high) = ranges[n * channels + c];
                if v < low {
                    low
                } else if v > high {
                    high
                } else {
                    v
                }
            });
            Ok(Tensor::host_f32(shape, y))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("bspline_resample3d", &[x.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let scratch = device.alloc(gpu::scratch_bytes(&problem))?;
            device.run(|client| client.bspline_resample(x.dtype(), &input, &scratch, &output, &problem))?;
            Ok(y)
        }
    }
}
