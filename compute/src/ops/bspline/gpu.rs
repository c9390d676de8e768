//! Launching B-spline kernels on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::bspline;
use nephron_kernels::common::interpolation::{Elements, Floats, PackedI16, PackedU8};

use super::BsplineResample3dProblem;
use crate::error::Result;
use crate::ops::interpolate::gpu::launch_separable;
use crate::ops::launch::{WORD, array, cube_grid, elements, fits, grid, launches, with_float};
use crate::tensor::{DType, Shape};

/// Number of cubes that compute the range of one image and channel.
const RANGE_CUBES: usize = 64;

/// Bytes of scratch that [`launch_bspline_resample`] needs: the coefficients.
pub fn scratch_bytes(problem: &BsplineResample3dProblem) -> usize {
    problem.input.iter().product::<usize>() * DType::F32.size()
}

launches! {
    pub(crate) trait BsplineLaunches {
        fn bspline_resample = launch_bspline_resample(
            dtype: DType, x: &Handle, scratch: &Handle, y: &Handle, problem: &BsplineResample3dProblem,
        ) -> Result<()>;
    }
}

/// Resizes `x` [n, D, H, W, c] of `dtype` (a float type) into `y` [n, size, c].
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_bspline_resample<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    scratch: &Handle,
    y: &Handle,
    problem: &BsplineResample3dProblem,
) -> Result<()> {
    if problem.output_shape().contains(&0) {
        return Ok(());
    }
    let (input, taps) = (problem.input, problem.taps());
    let (len, out) = (elements(&input), elements(&problem.output_shape()));
    let (scratch_buffer, size) = (("scratch", scratch, len, WORD), dtype.size());
    fits("bspline_resample3d", &[("x", x, len, size), scratch_buffer, ("y", y, out, size)])?;
    launch_coefficients(client, dtype, x, scratch, input, None)?;
    with_float!(dtype, F => {
        let range = match problem.part {
            Some(part) => client.create_from_slice(bytemuck::cast_slice(&part.range.repeat(input[0] * input[1]))),
            None => ranges::<F, R>(client, x, input)?,
        };
        launch_separable::<f32, F, R, 4>(client, scratch, y, input, &taps, Some(&range))?;
    });
    Ok(())
}

/// The range f32 [n, c, 2] of each image and channel.
fn ranges<F: Float, R: Runtime>(client: &ComputeClient<R>, x: &Handle, shape: Shape) -> Result<Handle> {
    let ([n, c, ..], len) = (shape, shape.iter().product::<usize>());
    let (groups, voxels) = (n * c, len / (n * c));
    let count = voxels.div_ceil(bspline::RANGE_UNITS as usize).min(RANGE_CUBES);
    let parts = client.empty(groups * count * 2 * DType::F32.size());
    let range = client.empty(groups * 2 * DType::F32.size());
    // SAFETY: each cube writes the pair of its own position, below their number, and reads voxels of its own image and
    // channel; then each unit writes the pair of its own position from the `count` pairs of its group.
    unsafe {
        bspline::range_parts::launch_unchecked::<F, R>(
            client,
            cube_grid(groups * count)?,
            CubeDim::new_1d(bspline::RANGE_UNITS),
            array(x, len),
            array(&parts, groups * count * 2),
            voxels as u32,
            c as u32,
            count as u32,
        );
        let (cubes, dim) = grid(groups)?;
        bspline::range_join::launch_unchecked::<R>(
            client,
            cubes,
            dim,
            array(&parts, groups * count * 2),
            array(&range, groups * 2),
            count as u32,
        );
    }
    Ok(range)
}

/// The B-spline coefficients f32 of `x` [n, d, h, w, c] of any dtype, clipped first where a clip is given.
///
/// # Errors
/// A buffer that is too short.
pub fn launch_coefficients<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    coefficients: &Handle,
    shape: Shape,
    clip: Option<[f32; 2]>,
) -> Result<()> {
    let len = elements(&shape);
    if len == 0 {
        return Ok(());
    }
    let stored = match dtype {
        DType::I16 => (len.div_ceil(2), WORD),
        DType::U8 => (len.div_ceil(4), WORD),
        float => (len, float.size()),
    };
    let buffers = [("x", x, stored.0, stored.1), ("coefficients", coefficients, len, WORD)];
    fits("B-spline coefficients", &buffers)?;
    match dtype {
        DType::I16 => decode::<PackedI16, R>(client, x, len.div_ceil(2), coefficients, len, clip)?,
        DType::U8 => decode::<PackedU8, R>(client, x, len.div_ceil(4), coefficients, len, clip)?,
        _ => with_float!(dtype, F => decode::<Floats<F>, R>(client, x, len, coefficients, len, clip)?),
    }
    let [_, c, d, h, w] = shape;
    for (axis, stride) in [(d, h * w * c), (h, w * c), (w, c)] {
        if axis == 1 {
            continue; // one voxel is a constant, which is its own spline
        }
        let (count, dim) = grid(len / axis)?;
        // SAFETY: each unit works on the line of its own position, below their number; the lines cover the buffer once.
        unsafe {
            bspline::prefilter::launch_unchecked::<R>(
                client,
                count,
                dim,
                array(coefficients, len),
                (len / axis) as u32,
                axis as u32,
                stride as u32,
            );
        }
    }
    Ok(())
}

/// `x`, stored as `stored` elements of `S`, to `len` f32 values.
fn decode<S: Elements, R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    stored: usize,
    values: &Handle,
    len: usize,
    clip: Option<[f32; 2]>,
) -> Result<()> {
    let (count, dim) = grid(len)?;
    let [low, high] = clip.unwrap_or_default();
    // SAFETY: each unit reads and writes the element of its own position, below `len`, which `stored` elements hold.
    unsafe {
        bspline::decode::launch_unchecked::<S, R>(
            client,
            count,
            dim,
            array(x, stored),
            array(values, len),
            low,
            high,
            clip.is_some(),
        );
    }
    Ok(())
}
