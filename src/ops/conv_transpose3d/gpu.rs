//! Launching transposed convolutions on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv_transpose3d::direct;
use nephron_kernels::conv3d::GeometryLaunch;

use super::ConvTranspose3dProblem;
use crate::ops::conv3d::gpu::{bias_or_nothing, channels_a_unit, windows};
use crate::ops::launch::{array, grid, with_float};
use crate::tensor::DType;

/// y = conv_transpose3d(x, w) + b over buffers of `dtype` (a float type) that hold the problem's tensors, each of fewer
/// than 2^32 elements; `b` f32 with a value per output channel.
pub fn launch_conv_transpose3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    w: &Handle,
    b: Option<&Handle>,
    y: &Handle,
    problem: &ConvTranspose3dProblem,
) {
    let (input, output, weight) = (problem.input_shape(), problem.output_shape(), problem.weight_shape());
    let [x_len, w_len, y_len] = [input, weight, output].map(|s| s.iter().product());
    let (groups, co) = (problem.groups(), weight[1]);
    let steps = [problem.stride(), problem.padding(), problem.dilation()];
    let [z_axis, y_axis, x_axis] = windows(input, output, weight, steps);
    let channels = channels_a_unit(co);
    let (count, dim) = grid(y_len / channels);
    let bias = bias_or_nothing(client, b);
    // SAFETY: a unit writes the `channels` outputs at its position, below the length of y; the loops are cut to taps whose
    // input voxel exists, and the problem's shapes agree with the buffers.
    with_float!(dtype, F => unsafe {
        direct::conv_transpose3d_direct::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, x_len),
            array(w, w_len),
            array(&bias, if b.is_some() { output[1] } else { 1 }),
            array(y, y_len),
            GeometryLaunch::new(z_axis, y_axis, x_axis, weight[0] / groups, co, groups),
            b.is_some(),
            channels,
        )
    });
}
