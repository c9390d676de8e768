//! Launching grid sampling on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::common::coordinates::{ExtentLaunch, Padding};
use nephron_kernels::common::interpolation::Mode;
use nephron_kernels::grid_sample;

use super::{GridSampleProblem, PaddingMode, SampleMode};
use crate::ops::launch::{array, grid, with_float};
use crate::ops::sampling::spatial;
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

/// Samples `x` [n, D, H, W, c] of `dtype` at `points` f32 [n, d, h, w, 3] into `y` [n, d, h, w, c].
pub fn launch_grid_sample<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    points: &Handle,
    y: &Handle,
    problem: &GridSampleProblem,
) {
    let GridSampleProblem { input, size, mode, padding, align_corners } = *problem;
    let out: usize = problem.output_shape().iter().product();
    if out == 0 {
        return;
    }
    let (channels, voxels): (usize, usize) = (input[1], size.iter().product());
    let (count, dim) = grid(out);
    // SAFETY: each unit writes the element of its own position, below the output's length; its three grid values exist
    // since the grid has a point for every `channels` elements; the kernel reads voxels inside the image alone.
    with_float!(dtype, F => unsafe {
        grid_sample::grid_sample::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, input.iter().product()),
            array(points, 3 * input[0] * voxels),
            array(y, out),
            extent(spatial(input)),
            channels as u32,
            voxels as u32,
            mode.into(),
            padding.into(),
            align_corners,
        )
    });
}

/// The grid f32 [n, d, h, w, 3] of `theta` f32 [n, 3, 4] for `size` [n, c, d, h, w].
pub fn launch_affine_grid<R: Runtime>(
    client: &ComputeClient<R>,
    theta: &Handle,
    points: &Handle,
    size: Shape,
    align_corners: bool,
) {
    let len = 3 * size[0] * spatial(size).iter().product::<usize>();
    if len == 0 {
        return;
    }
    let (count, dim) = grid(len);
    // SAFETY: each unit writes the element of its own position, below the grid's length, and reads the matrix of its
    // image, of which there are n.
    unsafe {
        grid_sample::affine_grid::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(theta, 12 * size[0]),
            array(points, len),
            extent(spatial(size)),
            align_corners,
        );
    }
}
