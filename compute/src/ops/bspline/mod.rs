//! Cubic B-spline resizing, as `skimage.transform.resize(order=3, mode="edge")`, which nnU-Net resamples images with.

pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use std::ops::Range;

use super::ensure_float;
use super::interpolate::cpu::separable;
use super::interpolate::taps::{Taps, centre};
use super::sampling::cpu::Cell;
use super::sampling::{ensure_sampleable, spatial};
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::room::ensure_room;
use crate::tensor::{Shape, Tensor};

/// The root of the cubic B-spline's inverse filter: sqrt(3) - 2.
const POLE: f64 = -0.267_949_192_431_122_7;
/// Slices beyond those that an output weighs from which the recursion of the prefilter is started: what an image has beyond them
/// changes a coefficient by POLE^16 = 7e-10 of the voxels' differences, below the rounding of f32.
const HALO: usize = 16;
/// Number of voxels beyond the edge to which a coordinate is clamped, as in SciPy.
const REACH: isize = 12;

/// A cubic resizing. Build with [`BsplineResample3dProblem::new`] or [`BsplineResample3dProblem::of_slices`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BsplineResample3dProblem {
    input: Shape,
    size: [usize; 3],
    part: Option<Part>,
}

/// Some slices of an image and of its resized version.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Part {
    /// Slices of the whole image, and the first of those that are there.
    depth: usize,
    first: usize,
    /// The slices of the whole result that are made.
    outputs: [usize; 2],
    /// What the result is clipped to.
    range: [f32; 2],
}

impl BsplineResample3dProblem {
    /// The problem of resizing an image [n, c, d, h, w] to `size`.
    ///
    /// # Errors
    /// An image without voxels for a result that has voxels.
    pub fn new(input: Shape, size: [usize; 3]) -> Result<Self> {
        let problem = Self { input, size, part: None };
        ensure_sampleable("bspline_resample3d", input, problem.output_shape())?;
        Ok(problem)
    }

    /// The problem of making the slices `outputs` of an image of `depth` slices that is resized to `size`, from `input`, which
    /// holds its slices [`bspline_slices`]; the result is clipped to `range`.
    ///
    /// # Errors
    /// Another number of slices than needed; outputs past the end of `size`; a range that is empty or NaN.
    pub fn of_slices(
        input: Shape,
        depth: usize,
        size: [usize; 3],
        outputs: Range<usize>,
        range: [f32; 2],
    ) -> Result<Self> {
        const OP: &str = "bspline_resample3d_slices";
        if outputs.start > outputs.end || outputs.end > size[0] {
            let expected = format!("slices below {}", size[0]);
            return Err(Error::argument(format!("{OP}: outputs"), expected, format!("{outputs:?}")));
        }
        if range[0].partial_cmp(&range[1]).is_none_or(std::cmp::Ordering::is_gt) {
            let expected = "two numbers, the smaller one first";
            return Err(Error::argument(format!("{OP}: range"), expected, format!("{range:?}")));
        }
        let slices = bspline_slices(depth, size[0], outputs.clone());
        if slices.len() != input[2] {
            return Err(Error::shape(format!("{OP}: slices"), format!("{slices:?}"), input[2]));
        }
        let part = Part { depth, first: slices.start, outputs: [outputs.start, outputs.end], range };
        let problem = Self { input, size, part: Some(part) };
        ensure_sampleable(OP, input, problem.output_shape())?;
        Ok(problem)
    }

    /// [n, c, size], or the slices of it that are made.
    pub fn output_shape(&self) -> Shape {
        let ([n, c, ..], [d, h, w]) = (self.input, self.size);
        [n, c, self.part.map_or(d, |part| part.outputs[1] - part.outputs[0]), h, w]
    }

    fn taps(&self) -> [Taps<4>; 3] {
        let input = spatial(self.input);
        std::array::from_fn(|axis| match self.part {
            Some(part) if axis == 0 => {
                let mut taps = cubic(part.depth, self.size[0]).slice(part.outputs[0]..part.outputs[1]);
                taps.first.iter_mut().for_each(|first| *first -= part.first as u32);
                taps
            }
            _ => cubic(input[axis], self.size[axis]),
        })
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

/// The slices of an image of `depth` slices from which the slices `outputs` of its resized version, which has `size` slices, are
/// computed by [`bspline_resample3d_slices`].
pub fn bspline_slices(depth: usize, size: usize, outputs: Range<usize>) -> Range<usize> {
    if outputs.is_empty() || depth == 0 {
        return 0..0;
    }
    let first = |i: usize| centre(i, depth, size).floor() as isize - 1;
    let from = (first(outputs.start) - HALO as isize).max(0) as usize;
    let until = (first(outputs.end - 1) + 4 + HALO as isize).clamp(1, depth as isize) as usize;
    from.min(until - 1)..until
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
    run(x, &problem)
}

/// Some slices of what [`bspline_resample3d`] makes of an image, from some of its slices, so that the image need not be in memory
/// as a whole.
///
/// The image [n, c, depth, h, w] is to be resized to [n, c, size]; `x` holds its slices [`bspline_slices`]`(depth, size[0],
/// outputs)`, and the result is [n, c, outputs, size 1, size 2], clipped to `range`. It differs from the slices of the whole result
/// by rounding only.
///
/// # Errors
/// As [`bspline_resample3d`]; another number of slices than needed; outputs past the end of `size`; a range that is empty or NaN.
pub fn bspline_resample3d_slices(
    x: &Tensor,
    depth: usize,
    size: [usize; 3],
    outputs: Range<usize>,
    range: [f32; 2],
) -> Result<Tensor> {
    let _span = op_span!("bspline_resample3d_slices", &[x]);
    ensure_float("bspline_resample3d_slices", x)?;
    run(x, &BsplineResample3dProblem::of_slices(x.shape(), depth, size, outputs, range)?)
}

/// Prefilters the image and weighs its coefficients.
fn run(x: &Tensor, problem: &BsplineResample3dProblem) -> Result<Tensor> {
    let shape = problem.output_shape();
    match x.device() {
        Device::Cpu => {
            let x = x.host_floats()?;
            // The coefficients, a copy of them while an axis is filtered, and the result.
            ensure_room::<f32>("a resampled image", 2 * x.len() + shape.iter().product::<usize>())?;
            let ([n, channels, ..], input) = (shape, problem.input);
            let ranges = match problem.part {
                Some(Part { range: [low, high], .. }) => vec![(low, high); n * channels],
                None => cpu::ranges(x, input),
            };
            let coefficients = cpu::coefficients(input, x.to_vec());
            let y = separable(&coefficients, input, &problem.taps(), |n, c, v| {
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
            let scratch = device.alloc(gpu::scratch_bytes(problem))?;
            device.run(|client| client.bspline_resample(x.dtype(), &input, &scratch, &output, problem))?;
            Ok(y)
        }
    }
}
