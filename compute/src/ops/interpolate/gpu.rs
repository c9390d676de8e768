//! Launching a resizing on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::interpolate;

use super::taps::Taps;
use super::{Interpolate3dProblem, InterpolateMode};
use crate::error::Result;
use crate::ops::grid_sample::gpu::extent;
use crate::ops::launch::{array, elements, fits, grid, launches, with_float};
use crate::ops::sampling::spatial;
use crate::tensor::{DType, Shape};

launches! {
    pub(crate) trait InterpolateLaunches {
        fn interpolate = launch_interpolate(
            dtype: DType, x: &Handle, y: &Handle, problem: &Interpolate3dProblem,
        ) -> Result<()>;
    }
}

/// Resizes `x` [n, D, H, W, c] of `dtype` (a float type) into `y` [n, size, c].
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_interpolate<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    problem: &Interpolate3dProblem,
) -> Result<()> {
    let input = problem.input;
    let (len, out, size) = (elements(&input), elements(&problem.output_shape()), dtype.size());
    fits("interpolate3d", &[("x", x, len, size), ("y", y, out, size)])?;
    match problem.mode {
        InterpolateMode::Nearest => {
            let taps = problem.nearest();
            with_float!(dtype, F => launch_separable::<F, F, R, 1>(client, x, y, input, &taps, None)?);
        }
        InterpolateMode::Trilinear => {
            let taps = problem.linear();
            with_float!(dtype, F => launch_separable::<F, F, R, 2>(client, x, y, input, &taps, None)?);
        }
    }
    Ok(())
}

/// `x` resized by the taps of (z, y, x), and clipped to `range` f32 [n, c, 2] if there is one. The callers have checked
/// `x` and `y`.
pub(crate) fn launch_separable<I: Float, O: Float, R: Runtime, const COUNT: usize>(
    client: &ComputeClient<R>,
    x: &Handle,
    y: &Handle,
    input: Shape,
    taps: &[Taps<COUNT>; 3],
    range: Option<&Handle>,
) -> Result<()> {
    let [n, c, ..] = input;
    let size: [usize; 3] = std::array::from_fn(|axis| taps[axis].len());
    let out = n * c * size.iter().product::<usize>();
    if out == 0 {
        return Ok(());
    }
    let first: Vec<u32> = taps.iter().flat_map(|t| t.first.iter().copied()).collect();
    let weights: Vec<f32> = taps.iter().flat_map(|t| t.weights.iter().flatten().copied()).collect();
    let entries = client.create_from_slice(bytemuck::cast_slice(&first));
    let weighted = client.create_from_slice(bytemuck::cast_slice(&weights));
    // Without a range the kernel does not read this buffer, but an argument is needed.
    let (range, ranges) = range.map_or((&weighted, 1), |range| (range, 2 * n * c));
    let (count, dim) = grid(out)?;
    // SAFETY: each unit writes the element of its own position, below the result's length, and reads the entries of its
    // three indices; their voxels are clamped into the image, which has some.
    unsafe {
        interpolate::separable::launch_unchecked::<I, O, R>(
            client,
            count,
            dim,
            array(x, input.iter().product()),
            array(&entries, first.len()),
            array(&weighted, weights.len()),
            array(range, ranges),
            array(y, out),
            extent(spatial(input)),
            extent(size),
            c as u32,
            COUNT,
            ranges > 1,
        );
    }
    Ok(())
}
