//! Launching convolutions on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::{GeometryLaunch, WindowLaunch, backward, direct};

use super::Conv3dProblem;
use crate::ops::launch::{array, grid, with_float};
use crate::tensor::{DType, Shape};

/// Output channels a unit makes: the largest number the kernels know that divides a group's.
pub(in crate::ops) fn channels_a_unit(co: usize) -> usize {
    [4, 2].into_iter().find(|c| co.is_multiple_of(*c)).unwrap_or(1)
}

/// The buffer of an optional bias: without one the kernel is compiled not to look at it.
pub(in crate::ops) fn bias_or_nothing<R: Runtime>(client: &ComputeClient<R>, bias: Option<&Handle>) -> Handle {
    bias.cloned().unwrap_or_else(|| client.empty(size_of::<f32>()))
}

/// How the kernel moves over spatial axes `input` -> `output`, which are the ends of the shapes.
pub(in crate::ops) fn windows<R: Runtime>(
    input: Shape,
    output: Shape,
    weight: Shape,
    [stride, padding, dilation]: [[usize; 3]; 3],
) -> [WindowLaunch<R>; 3] {
    [0, 1, 2].map(|a| WindowLaunch::new(input[2 + a], output[2 + a], weight[2 + a], stride[a], padding[a], dilation[a]))
}

impl Conv3dProblem {
    /// The sizes as the kernels take them; channels are a group's.
    fn geometry<R: Runtime>(&self) -> GeometryLaunch<R> {
        let p = self.params();
        let steps = [p.stride, p.padding, p.dilation];
        let [z, y, x] = windows(self.input_shape(), self.output_shape(), self.weight_shape(), steps);
        let [co, ci, ..] = self.weight_shape();
        GeometryLaunch::new(z, y, x, ci, co / p.groups, p.groups)
    }
}

/// y = conv3d(x, w) + b over buffers of `dtype` (a float type) that hold the problem's tensors, each of fewer than 2^32
/// elements; `b` f32 with a value per output channel.
pub fn launch_conv3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    w: &Handle,
    b: Option<&Handle>,
    y: &Handle,
    problem: &Conv3dProblem,
) {
    let [x_len, w_len, y_len] =
        [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
    let co = problem.weight_shape()[0];
    let channels = channels_a_unit(co / problem.params().groups);
    let (count, dim) = grid(y_len / channels);
    let bias = bias_or_nothing(client, b);
    // SAFETY: a unit writes the `channels` outputs at its position, below the length of y; the loops are cut to taps whose
    // input voxel exists, and the problem's shapes agree with the buffers.
    with_float!(dtype, F => unsafe {
        direct::conv3d_direct::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, x_len),
            array(w, w_len),
            array(&bias, if b.is_some() { co } else { 1 }),
            array(y, y_len),
            problem.geometry(),
            b.is_some(),
            channels,
        )
    });
}

/// Units that keep any device busy: where a gradient has fewer elements, its sums are cut into splits.
const BUSY: usize = 1 << 16;
/// Splits that the second stage adds at most.
const MAX_SPLITS: usize = 256;

/// Splits of a sum over `terms` rows into `units` units' results. From shapes alone: the same on every device.
fn splits(units: usize, terms: usize) -> usize {
    (BUSY / units).clamp(1, MAX_SPLITS).min(terms)
}

/// dw = the gradient by the weight of sum(dy * conv3d(x, w)), over buffers of `dtype` (a float type) that hold the
/// problem's tensors, each of fewer than 2^32 elements.
pub fn launch_conv3d_backward_weight<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    dy: &Handle,
    dw: &Handle,
    problem: &Conv3dProblem,
) {
    let [n, co, od, oh, _] = problem.output_shape();
    let [x_len, w_len, y_len]: [usize; 3] =
        [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
    let channels = channels_a_unit(co / problem.params().groups);
    let rows = n * od * oh;
    let splits = splits(w_len / channels, rows);
    let parts = client.empty(splits * w_len * size_of::<f32>());
    let (count, dim) = grid(splits * w_len / channels);
    // SAFETY: a unit writes its own `channels` elements of `parts`; it reads rows below `rows` and input voxels that its
    // bounds checks found inside, and the problem's shapes agree with the buffers.
    with_float!(dtype, F => unsafe {
        backward::conv3d_weight_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, x_len),
            array(dy, y_len),
            array(&parts, splits * w_len),
            problem.geometry(),
            rows,
            splits,
            channels,
        )
    });
    launch_sum_parts(client, dtype, &parts, dw, w_len, splits);
}

/// db = the gradient by the bias: f32 sums over `dy` of `dtype` (a float type), a value per output channel.
pub fn launch_conv3d_backward_bias<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    dy: &Handle,
    db: &Handle,
    problem: &Conv3dProblem,
) {
    let [n, co, od, oh, ow] = problem.output_shape();
    let voxels = n * od * oh * ow;
    let splits = splits(co, voxels);
    let parts = client.empty(splits * co * size_of::<f32>());
    let (count, dim) = grid(splits * co);
    // SAFETY: a unit writes its own element of `parts` and reads one channel of voxels below `voxels`.
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
    launch_sum_parts(client, DType::F32, &parts, db, co, splits);
}

fn launch_sum_parts<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    parts: &Handle,
    out: &Handle,
    len: usize,
    splits: usize,
) {
    let (count, dim) = grid(len);
    // SAFETY: a unit writes the element of its position, below the length of `out`, and reads it in each of the splits.
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
}
