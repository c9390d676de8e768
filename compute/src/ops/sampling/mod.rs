//! Code that the ops which interpolate share: their limits, and the CPU code of interpolation.

pub(crate) mod cpu;

use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor, checked_len};

/// Largest number of voxels along an axis: coordinates are f32, which does not represent all larger whole numbers.
const MAX_AXIS: usize = 1 << 24;

/// How a value between voxels is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SampleMode {
    /// Trilinear, from the eight corners of the cell.
    Linear,
    /// The nearest voxel, halves to even.
    Nearest,
}

/// What lies outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaddingMode {
    /// Voxels outside are 0.
    Zeros,
    /// Coordinates are clamped to the outermost voxel centres.
    Border,
}

/// (d, h, w) of a shape.
pub(crate) fn spatial(shape: Shape) -> [usize; 3] {
    [shape[2], shape[3], shape[4]]
}

/// Checks an image to sample and the shape of the result: axes must be short enough for f32 coordinates, and an image without voxels
/// allows only a result without voxels.
pub(crate) fn ensure_sampleable(what: &str, input: Shape, output: Shape) -> Result<()> {
    for shape in [input, output] {
        if let Some(axis) = spatial(shape).into_iter().find(|&s| s > MAX_AXIS) {
            return Err(Error::shape(what, format!("axes of at most {MAX_AXIS} voxels"), axis));
        }
    }
    checked_len(what, output)?;
    if spatial(input).contains(&0) && !output.contains(&0) {
        let found = format!("{input:?} for an output of {output:?}");
        return Err(Error::shape(what, "an image with voxels", found));
    }
    Ok(())
}

/// Checks that coordinates are f32. They are f32 whatever the image's type, because half precision would be off by a tenth of a voxel.
pub(crate) fn ensure_f32(what: &str, x: &Tensor) -> Result<()> {
    if x.dtype() == DType::F32 {
        return Ok(());
    }
    Err(Error::argument(format!("{what}: dtype"), DType::F32, x.dtype()))
}
