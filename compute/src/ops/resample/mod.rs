//! Resampling a volume between two grids of different spacing, position or orientation.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;
mod table;

pub use table::PlaceTable;

use super::sampling::{ensure_sampleable, spatial};
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor};

/// The interpolation between voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The nearest voxel, halves up (SciPy's order 0, ITK).
    Nearest,
    /// Trilinear (order 1).
    Linear,
    /// Cubic B-spline with prefilter (order 3): SciPy's `map_coordinates(order=3, mode='nearest')`. It can overshoot.
    Cubic,
}

/// The values where the result extends beyond the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outside {
    /// The outermost voxels continue: SciPy's mode `nearest`.
    Border,
    /// A value, in the units of the input, for points more than half a voxel past the outermost voxel centres, which is
    /// outside the outermost voxels' faces; up to there the outermost voxels continue. As ITK.
    Constant(f32),
}

/// CT to network input: v is clipped, then (v - mean) / sd.
///
/// The clip comes **before** the interpolation, on the voxels of the input, because nnU-Net normalises before it
/// resamples: air at -1000 next to tissue then counts as the lower bound. (The rest is linear, so its order does not matter.)
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intensity {
    /// The lowest and the highest value of the clip; may be infinite.
    pub clip: [f32; 2],
    /// The mean that is subtracted.
    pub mean: f32,
    /// The standard deviation by which the difference is divided; positive.
    pub sd: f32,
}

impl Intensity {
    fn clip(&self, v: f32) -> f32 {
        v.clamp(self.clip[0], self.clip[1])
    }

    fn normalise(&self, v: f32) -> f32 {
        (v - self.mean) / self.sd
    }
}

/// The parameters of [`resample`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResampleParams {
    /// The size [d, h, w] of the result.
    pub size: [usize; 3],
    /// The map from an index (z, y, x) of the result to one of the input: the rows of [A | t], in voxels.
    pub matrix: [[f64; 4]; 3],
    /// The interpolation between voxels.
    pub interpolation: Interpolation,
    /// The values outside the image.
    pub outside: Outside,
    /// The normalisation that is fused with the resampling; None for the values themselves.
    pub intensity: Option<Intensity>,
}

/// A resampling that has been checked. Build with [`ResampleProblem::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct ResampleProblem {
    input: [usize; 3],
    dtype: DType,
    params: ResampleParams,
    table: PlaceTable,
    /// The constant outside of labels; 0 where there is none.
    label: u8,
}

impl ResampleProblem {
    /// A problem for an image of shape [1, 1, d, h, w] and type f32, i16 or u8.
    pub fn new(input: Shape, dtype: DType, params: &ResampleParams) -> Result<Self> {
        let [d, h, w] = params.size;
        if input[..2] != [1, 1] {
            return Err(Error::shape("resample: image", "[1, 1, d, h, w]", format!("{input:?}")));
        }
        if !matches!(dtype, DType::F32 | DType::I16 | DType::U8) {
            return Err(Error::argument("resample: dtype", "f32, i16 or u8", dtype));
        }
        ensure_sampleable("resample", input, [1, 1, d, h, w])?;
        if let Some(Intensity { clip: [low, high], mean, sd }) = params.intensity {
            if low.is_nan() || high.is_nan() || low > high {
                return Err(Error::argument("resample: clip", "lowest <= highest", format!("{low} and {high}")));
            }
            if !mean.is_finite() {
                return Err(Error::argument("resample: mean", "a finite number", mean));
            }
            if !(sd.is_finite() && sd > 0.0) {
                return Err(Error::argument("resample: sd", "a finite number above 0", sd));
            }
        }
        let table = PlaceTable::new(params.size, &params.matrix)?;
        let mut problem = Self { input: spatial(input), dtype, params: *params, table, label: 0 };
        if let (DType::U8, Outside::Constant(v)) = (problem.output_dtype(), params.outside) {
            problem.label = v as u8;
            if f32::from(problem.label) != v {
                return Err(Error::argument("resample: constant", "a label from 0 to 255", v));
            }
        }
        Ok(problem)
    }

    /// [1, 1, d, h, w] of the result.
    pub fn output_shape(&self) -> Shape {
        let [d, h, w] = self.params.size;
        [1, 1, d, h, w]
    }

    /// u8 for labels (u8, nearest, no intensity), else f32.
    pub fn output_dtype(&self) -> DType {
        let labels = self.dtype == DType::U8 && self.params.interpolation == Interpolation::Nearest;
        if labels && self.params.intensity.is_none() { DType::U8 } else { DType::F32 }
    }

    /// The constant outside, scaled as everything else is; 0 for a border.
    fn constant(&self) -> f32 {
        match (self.params.outside, self.params.intensity) {
            (Outside::Border, _) => 0.0,
            (Outside::Constant(v), None) => v,
            (Outside::Constant(v), Some(intensity)) => intensity.normalise(intensity.clip(v)),
        }
    }
}

/// out(p) = x(A p + t), p and its image being voxel indices (z, y, x); with the optional clip and normalisation of
/// [`Intensity`].
///
/// `x` is [1, 1, d, h, w] of f32, i16 or u8. The result is [1, 1, size] of f32; u8 with [`Interpolation::Nearest`] and
/// no intensity stays u8. Positions have an error of at most 4e-7 voxels on every device and for every size. An identity returns the
/// input's values unchanged (nearest and linear).
///
/// # Errors
/// A shape, dtype, matrix, intensity or constant other than described; a matrix that maps further than 2^21 voxels from the image; an image
/// without voxels; a device that fails.
pub fn resample(x: &Tensor, params: &ResampleParams) -> Result<Tensor> {
    let _span = op_span!("resample", &[x]);
    let problem = ResampleProblem::new(x.shape(), x.dtype(), params)?;
    match x.device() {
        Device::Cpu => cpu::resample(x.host()?, &problem),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("resample", &[x.shape(), problem.output_shape()])?;
            let y = Tensor::gpu_alloc(&device, problem.output_shape(), problem.output_dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let scratch = device.alloc(gpu::scratch_bytes(&problem))?;
            device.run(|client| client.resample(&input, &scratch, &output, &problem))?;
            Ok(y)
        }
    }
}
