//! Launching the gradients of a convolution by weight and bias on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::backward;

use crate::error::{Error, Result};
use crate::ops::conv_plan::output_channels_per_thread;
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::conv3d::launch::geometry;
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, with_float};
use crate::tensor::{DType, Shape};

/// Threads that keep any device busy. Where a gradient has fewer elements, its sums are cut into splits.
const BUSY: usize = 1 << 16;
/// Splits that the second stage adds at most.
const MAX_SPLITS: usize = 256;

launches! {
    pub(crate) trait Conv3dBackwardLaunches {
        fn conv3d_backward_weight = launch_conv3d_backward_weight(
            dtype: DType, x: &Handle, dy: &Handle, dw: &Handle, problem: &Conv3dProblem,
        ) -> Result<()>;
        fn conv3d_backward_bias = launch_conv3d_backward_bias(
            dtype: DType, dy: &Handle, db: &Handle, output: Shape,
        ) -> Result<()>;
    }
}

/// Splits of sums over `terms` rows into the results of `threads` threads. They follow from shapes alone and are the same on
/// every device.
fn splits(threads: usize, terms: usize) -> usize {
    (BUSY / threads).clamp(1, MAX_SPLITS).min(terms)
}

/// dw = the gradient by the weight of sum(dy * conv3d(x, w)), over buffers of `dtype` (a float type) that hold the
/// problem's tensors.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_conv3d_backward_weight<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    dy: &Handle,
    dw: &Handle,
    problem: &Conv3dProblem,
) -> Result<()> {
    let [n, co, od, oh, _] = problem.output_shape();
    let [x_len, w_len, y_len]: [usize; 3] =
        [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| elements(&s));
    let size = dtype.size();
    fits("conv3d_backward", &[("x", x, x_len, size), ("dy", dy, y_len, size), ("dw", dw, w_len, size)])?;
    let channels = output_channels_per_thread(co / problem.params().groups);
    let rows = n * od * oh;
    let splits = splits(w_len / channels, rows);
    let parts = client.empty(splits * w_len * size_of::<f32>());
    let (count, dim) = grid(splits * w_len / channels)?;
    // SAFETY: a thread writes its own `channels` elements of `parts`; it reads rows below `rows` and input voxels that its
    // bounds checks found inside, and the problem's shapes agree with the buffers.
    with_float!(dtype, F => unsafe {
        backward::conv3d_weight_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, x_len),
            array(dy, y_len),
            array(&parts, splits * w_len),
            geometry(problem),
            rows,
            splits,
            channels,
        )
    });
    launch_sum_parts(client, dtype, &parts, dw, w_len, splits)?;
    Ok(())
}

/// db = the gradient by the bias: f32 sums over `dy` of `dtype` (a float type), which has the shape `output` [n, co, od, oh, ow]; a value
/// per output channel.
///
/// # Errors
/// As [`launch_conv3d_backward_weight`].
pub fn launch_conv3d_backward_bias<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    dy: &Handle,
    db: &Handle,
    output: Shape,
) -> Result<()> {
    let [n, co, od, oh, ow] = output;
    let (len, voxels) = (elements(&output), elements(&[n, od, oh, ow]));
    fits("conv3d_backward", &[("dy", dy, len, dtype.size()), ("db", db, co, WORD)])?;
    if len == 0 {
        return Err(Error::shape("conv3d_backward: dy", "at least 1 along every axis", format!("{output:?}")));
    }
    let splits = splits(co, voxels);
    let parts = client.empty(splits * co * size_of::<f32>());
    let (count, dim) = grid(splits * co)?;
    // SAFETY: a thread writes its own element of `parts` and reads one channel of voxels below `voxels`.
    with_float!(dtype, F => unsafe {
        backward::conv3d_bias_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(dy, voxels * co),
            array(&parts, splits * co),
            voxels,
            splits,
        )
    });
    launch_sum_parts(client, DType::F32, &parts, db, co, splits)?;
    Ok(())
}

fn launch_sum_parts<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    parts: &Handle,
    out: &Handle,
    len: usize,
    splits: usize,
) -> Result<()> {
    let (count, dim) = grid(len)?;
    // SAFETY: a thread writes the element at its position, below the length of `out`, and reads it in each of the splits.
    with_float!(dtype, F => unsafe {
        backward::sum_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(parts, splits * len),
            array(out, len),
            splits,
        )
    });
    Ok(())
}
