//! The 1x1x1 kernel for few output channels: what it can do, and its launch.

use cubecl::prelude::*;
use nephron_kernels::conv3d::pointwise;

use super::Conv3dProblem;
use super::facts::Facts;
use super::gpu::{Conv3dHandles, bias_or_nothing};
use crate::error::{Error, Result};
use crate::ops::launch::{BLOCK, array, grid, with_float};
use crate::tensor::DType;

/// Output channels of a unit at most. With more, a matrix product pads little.
const MAX_CHANNELS: usize = 8;

/// What the kernel cannot do with this problem, of one group.
pub(super) fn obstacle(problem: &Conv3dProblem, facts: &Facts) -> Option<Error> {
    let ([co, ci, ..], params) = (problem.weight_shape(), problem.params());
    let refuse = |what: &str, expected: String, found: String| {
        Some(Error::argument(format!("conv3d by pointwise: {what}"), expected, found))
    };
    let kernel = &problem.weight_shape()[2..];
    let bytes = pointwise::shared_bytes(ci, co);
    match () {
        () if co > MAX_CHANNELS => refuse("output channels", format!("at most {MAX_CHANNELS}"), co.to_string()),
        () if kernel != [1; 3] => refuse("kernel", "[1, 1, 1]".into(), format!("{kernel:?}")),
        () if params.stride != [1; 3] => refuse("stride", "[1, 1, 1]".into(), format!("{:?}", params.stride)),
        () if params.padding != [0; 3] => refuse("padding", "[0, 0, 0]".into(), format!("{:?}", params.padding)),
        () if bytes > facts.shared_bytes => {
            refuse("bytes of weights", format!("at most {}", facts.shared_bytes), bytes.to_string())
        }
        () => None,
    }
}

/// Multiplications with those of the last cubes.
pub(super) fn multiplications(problem: &Conv3dProblem, processors: usize) -> f64 {
    let [n, co, d, h, w] = problem.output_shape();
    let cubes = (n * d * h * w).div_ceil(BLOCK as usize).next_multiple_of(processors);
    cubes as f64 * (BLOCK as usize * co * problem.weight_shape()[1]) as f64
}

/// y = conv3d(x, w) + b, channels read in vectors of `width`.
pub(super) fn launch<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    problem: &Conv3dProblem,
    width: usize,
) -> Result<()> {
    let Conv3dHandles { x, w, b, y, .. } = buffers;
    let ([n, co, od, oh, ow], ci) = (problem.output_shape(), problem.weight_shape()[1]);
    let voxels = n * od * oh * ow;
    let bias = bias_or_nothing(client, b);
    let (count, dim) = grid(voxels)?;
    // SAFETY: a unit reads and writes the channels of the voxel at its position, below `voxels`; `width` divides ci.
    with_float!(dtype, F => unsafe {
        pointwise::conv3d_pointwise::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            width,
            array(x, voxels * ci),
            array(w, co * ci),
            array(&bias, if b.is_some() { co } else { 1 }),
            array(y, voxels * co),
            voxels,
            b.is_some().into(),
            ci,
            co,
        )
    });
    Ok(())
}
