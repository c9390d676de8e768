//! Launching a resampling on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::common::interpolation::{Elements, Floats, PackedI16, PackedU8};
use nephron_kernels::resample::{self as kernels, ScaleLaunch};

use super::{Interpolation, Outside, ResampleProblem};
use crate::error::Result;
use crate::ops::bspline::gpu::launch_coefficients;
use crate::ops::grid_sample::gpu::extent;
use crate::ops::launch::{WORD, array, elements, fits, grid, launches};
use crate::tensor::DType;

launches! {
    pub(crate) trait ResampleLaunches {
        fn resample = launch_resample(x: &Handle, scratch: &Handle, y: &Handle, problem: &ResampleProblem) -> Result<()>;
    }
}

/// Bytes of scratch that [`launch_resample`] needs: the coefficients of a cubic B-spline.
pub fn scratch_bytes(problem: &ResampleProblem) -> usize {
    match problem.params.interpolation {
        Interpolation::Cubic => problem.input.iter().product::<usize>() * DType::F32.size(),
        Interpolation::Nearest | Interpolation::Linear => 0,
    }
}

/// Resamples `x` [1, d, h, w, 1] of the problem's dtype into `y` of its output shape and dtype.
///
/// # Errors
/// A buffer that is too short.
pub fn launch_resample<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    scratch: &Handle,
    y: &Handle,
    problem: &ResampleProblem,
) -> Result<()> {
    if problem.output_shape().contains(&0) {
        return Ok(());
    }
    let (len, out) = (elements(&problem.input), elements(&problem.output_shape()));
    let (stored, made) = (problem.dtype.size(), problem.output_dtype().size());
    fits("resample", &[("x", x, len, stored), ("y", y, out, made)])?;
    // Elements of less than a word are read, and written, in whole words.
    let words = [(len * stored).div_ceil(WORD), (out * made).div_ceil(WORD)];
    fits("resample", &[("x", x, words[0], WORD), ("y", y, words[1], WORD)])?;
    fits("resample", &[("scratch", scratch, scratch_bytes(problem) / WORD, WORD)])?;
    let table = client.create_from_slice(bytemuck::cast_slice(problem.table.values()));
    let [d, h, w] = problem.input;
    let clip = problem.params.intensity.map(|intensity| intensity.clip);
    match (problem.params.interpolation, problem.dtype) {
        (Interpolation::Cubic, dtype) => {
            launch_coefficients(client, dtype, x, scratch, [1, 1, d, h, w], clip)?;
            cubic(client, scratch, &table, y, problem)?;
        }
        (Interpolation::Nearest, DType::U8) if problem.output_dtype() == DType::U8 => {
            labels(client, x, &table, y, problem)?;
        }
        (_, DType::U8) => floats::<PackedU8, R>(client, x, len.div_ceil(4), &table, y, problem)?,
        (_, DType::I16) => floats::<PackedI16, R>(client, x, len.div_ceil(2), &table, y, problem)?,
        _ => floats::<Floats<f32>, R>(client, x, len, &table, y, problem)?,
    }
    Ok(())
}

/// The intensity as a kernel argument, and whether there is one.
fn scale<R: Runtime>(problem: &ResampleProblem) -> (ScaleLaunch<R>, bool) {
    match problem.params.intensity {
        Some(i) => (ScaleLaunch::new(i.clip[0], i.clip[1], i.mean, i.sd), true),
        None => (ScaleLaunch::new(0.0, 0.0, 0.0, 1.0), false),
    }
}

fn outside(problem: &ResampleProblem) -> kernels::Outside {
    match problem.params.outside {
        Outside::Border => kernels::Outside::Border,
        Outside::Constant(_) => kernels::Outside::Constant,
    }
}

/// Nearest or linear, the image being `stored` elements of `S`.
fn floats<S: Elements, R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    stored: usize,
    table: &Handle,
    y: &Handle,
    problem: &ResampleProblem,
) -> Result<()> {
    let out: usize = problem.params.size.iter().product();
    let (count, dim) = grid(out)?;
    let (scale, scaled) = scale(problem);
    let interpolation = match problem.params.interpolation {
        Interpolation::Nearest => kernels::Interpolation::Nearest,
        Interpolation::Linear | Interpolation::Cubic => kernels::Interpolation::Linear,
    };
    // SAFETY: each unit writes the element of its own position, below the result's length, reads the three entries of
    // its indices, which the table of the same problem has, and voxels inside the image only.
    unsafe {
        kernels::resample::launch_unchecked::<S, R>(
            client,
            count,
            dim,
            array(x, stored),
            array(table, problem.table.values().len()),
            array(y, out),
            extent(problem.input),
            extent(problem.params.size),
            scale,
            problem.constant(),
            interpolation,
            outside(problem),
            scaled,
        );
    }
    Ok(())
}

fn labels<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    table: &Handle,
    y: &Handle,
    problem: &ResampleProblem,
) -> Result<()> {
    let (len, out): (usize, usize) = (problem.input.iter().product(), problem.params.size.iter().product());
    let (count, dim) = grid(out.div_ceil(4))?;
    // SAFETY: as above, with a word of four labels for an element.
    unsafe {
        kernels::resample_labels::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(x, len.div_ceil(4)),
            array(table, problem.table.values().len()),
            array(y, out.div_ceil(4)),
            extent(problem.input),
            extent(problem.params.size),
            problem.label.into(),
            out as u32,
            outside(problem),
        );
    }
    Ok(())
}

fn cubic<R: Runtime>(
    client: &ComputeClient<R>,
    coefficients: &Handle,
    table: &Handle,
    y: &Handle,
    problem: &ResampleProblem,
) -> Result<()> {
    let (len, out): (usize, usize) = (problem.input.iter().product(), problem.params.size.iter().product());
    let (count, dim) = grid(out)?;
    let (scale, scaled) = scale(problem);
    // SAFETY: as above; the coefficients are one for each voxel.
    unsafe {
        kernels::resample_cubic::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(coefficients, len),
            array(table, problem.table.values().len()),
            array(y, out),
            extent(problem.input),
            extent(problem.params.size),
            scale,
            problem.constant(),
            outside(problem),
            scaled,
        );
    }
    Ok(())
}
