//! Launching grid sampling on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::common::coordinates::{ExtentLaunch, Padding};
use nephron_kernels::common::interpolation::Mode;
use nephron_kernels::grid_sample;

use super::{GridSampleProblem, PaddingMode, SampleMode};
use crate::error::Result;
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, with_float};
use crate::ops::sampling::{ensure_sampleable, spatial};
use crate::tensor::{DType, Shape};

impl From<SampleMode> for Mode {
    fn from(mode: SampleMode) -> Self {
        match mode {
            SampleMode::Linear => Self::Linear,
            SampleMode::Nearest => Self::Nearest,
        }
    }
}

impl From<PaddingMode> for Padding {
    fn from(padding: PaddingMode) -> Self {
        match padding {
            PaddingMode::Zeros => Self::Zeros,
            PaddingMode::Border => Self::Border,
        }
    }
}

/// (d, h, w) as a kernel argument. Axes are below 2^24 (validated).
pub(in crate::ops) fn extent<R: Runtime>(size: [usize; 3]) -> ExtentLaunch<R> {
    let [d, h, w] = size.map(|s| s as u32);
    ExtentLaunch::new(d, h, w)
}

launches! {
    pub(crate) trait GridSampleLaunches {
        fn grid_sample = launch_grid_sample(
            dtype: DType, x: &Handle, points: &Handle, y: &Handle, problem: &GridSampleProblem,
        ) -> Result<()>;
        fn affine_grid = launch_affine_grid(
            theta: &Handle, points: &Handle, size: Shape, align_corners: bool,
        ) -> Result<()>;
    }
}

/// Samples `x` [n, D, H, W, c] of `dtype` (a float type) at `points` f32 [n, d, h, w, 3] into `y` [n, d, h, w, c].
///
/// # Errors
/// A dtype that is not a float type; an image without voxels; an axis over 2^24 voxels; a buffer that is too short.
pub fn launch_grid_sample<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    points: &Handle,
    y: &Handle,
    problem: &GridSampleProblem,
) -> Result<()> {
    let GridSampleProblem { input, size, mode, padding, align_corners } = *problem;
    ensure_sampleable("grid_sample3d", input, problem.output_shape())?;
    let out = elements(&problem.output_shape());
    if out == 0 {
        return Ok(());
    }
    let (channels, voxels): (usize, usize) = (input[1], size.iter().product());
    let (len, at) = (elements(&input), elements(&[3, input[0], voxels]));
    let (source, target) = (("x", x, len, dtype.size()), ("y", y, out, dtype.size()));
    fits("grid_sample3d", &[source, ("grid", points, at, WORD), target])?;
    let (count, dim) = grid(out)?;
    // SAFETY: each unit writes the element of its own position, below the output's length; its three grid values exist
    // since the grid has a point for every `channels` elements; the kernel reads voxels inside the image only.
    with_float!(dtype, F => unsafe {
        grid_sample::grid_sample::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, len),
            array(points, at),
            array(y, out),
            extent(spatial(input)),
            channels as u32,
            voxels as u32,
            mode.into(),
            padding.into(),
            align_corners,
        )
    });
    Ok(())
}

/// The grid f32 [n, d, h, w, 3] of `theta` f32 [n, 3, 4] for `size` [n, c, d, h, w].
///
/// # Errors
/// An axis over 2^24 voxels; a buffer that is too short.
pub fn launch_affine_grid<R: Runtime>(
    client: &ComputeClient<R>,
    theta: &Handle,
    points: &Handle,
    size: Shape,
    align_corners: bool,
) -> Result<()> {
    let [n, _, d, h, w] = size;
    ensure_sampleable("affine_grid3d: size", [n, 3, 1, 1, 1], [n, 3, d, h, w])?;
    let len = elements(&[n, 3, d, h, w]);
    if len == 0 {
        return Ok(());
    }
    fits("affine_grid3d", &[("theta", theta, elements(&[12, n]), WORD), ("grid", points, len, WORD)])?;
    let (count, dim) = grid(len)?;
    // SAFETY: each unit writes the element of its own position, below the grid's length, and reads the matrix of its
    // image, of which there are n.
    unsafe {
        grid_sample::affine_grid::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(theta, 12 * n),
            array(points, len),
            extent(spatial(size)),
            align_corners,
        );
    }
    Ok(())
}
