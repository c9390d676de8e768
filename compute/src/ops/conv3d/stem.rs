//! The stem kernel: what it can do, how its cubes cut the output, and its launch.

use cubecl::prelude::*;
use nephron_kernels::conv3d::stem::{self, Brick, RUN, VOXELS};

use super::Conv3dProblem;
use super::facts::Facts;
use super::gpu::{Conv3dHandles, bias_or_nothing};
use crate::error::{Error, Result};
use crate::ops::launch::{array, cube_grid, vector_width, with_float};
use crate::tensor::DType;

/// Input channels it takes at most: with more, a matrix product pads less than this kernel does without matrices.
const MAX_CHANNELS: usize = 4;
/// Taps and stride along x that a unit's window of registers is made for.
const MAX_TAPS: usize = 7;
const MAX_STRIDE: usize = 3;

/// What the kernel cannot do with this problem, of one group.
pub(super) fn obstacle(problem: &Conv3dProblem, facts: &Facts) -> Option<Error> {
    let ([_, ci, ..], [.., taps], params) = (problem.input_shape(), problem.weight_shape(), problem.params());
    let ([.., stride], [.., dilation]) = (params.stride, params.dilation);
    let refuse = |what: &str, most: usize, found: usize| {
        Some(Error::argument(format!("conv3d by stem: {what}"), format!("at most {most}"), found))
    };
    match () {
        () if ci > MAX_CHANNELS => refuse("input channels", MAX_CHANNELS, ci),
        () if taps > MAX_TAPS => refuse("taps along x", MAX_TAPS, taps),
        () if stride > MAX_STRIDE => refuse("stride along x", MAX_STRIDE, stride),
        () if taps > 1 && dilation > 1 => refuse("dilation along x", 1, dilation),
        () if brick(problem, facts).is_none() => {
            let found = format!("{} bytes", facts.shared_bytes);
            Some(Error::argument("conv3d by stem: shared memory", "enough for the weights and one row", found))
        }
        () => None,
    }
}

/// Cubes that cut the output into bricks.
fn cubes(brick: &Brick, problem: &Conv3dProblem) -> usize {
    let [n, co, od, oh, ow] = problem.output_shape();
    n * od.div_ceil(brick.z) * oh.div_ceil(brick.y) * ow.div_ceil(brick.x) * co.div_ceil(brick.groups * RUN)
}

/// Multiplications with those of the bricks' padding.
pub(super) fn multiplications(brick: &Brick, problem: &Conv3dProblem, processors: usize) -> f64 {
    let terms: usize = problem.weight_shape()[1..].iter().product();
    let cubes = cubes(brick, problem).next_multiple_of(processors);
    cubes as f64 * (brick.units() * VOXELS * RUN * terms) as f64
}

/// The brick with the fewest instructions, of those that fit the device. A sum of one term costs an instruction, a vector
/// copied to shared memory about 30, and a cube's start and end about what 100 terms cost each of its units, at least 32.
pub(super) fn brick(problem: &Conv3dProblem, facts: &Facts) -> Option<Brick> {
    let ([co, ci, kd, kh, kw], params) = (problem.weight_shape(), problem.params());
    if ci > MAX_CHANNELS || kw > MAX_TAPS || params.stride[2] > MAX_STRIDE {
        return None;
    }
    let instructions = |brick: &Brick| {
        let terms = (ci * kd * kh * kw * VOXELS * RUN) as f64;
        let copied = (brick.shared_bytes() / 16) as f64 * 30.0;
        cubes(brick, problem) as f64 * (brick.units().max(32) as f64 * (terms + 100.0) + copied)
    };
    let mut all = Vec::new();
    for groups in 1..=co.div_ceil(RUN).min(4) {
        for x in [32, 16, 8] {
            for y in [16, 8, 4, 2, 1] {
                all.extend([4, 2, 1].map(|z| Brick {
                    z,
                    y,
                    x,
                    groups,
                    ci,
                    kernel: [kd, kh, kw],
                    stride: params.stride,
                    dilation: params.dilation,
                }));
            }
        }
    }
    let fits = |b: &Brick| b.units() <= facts.units.min(256) && b.shared_bytes() <= facts.shared_bytes.min(64 << 10);
    all.into_iter().filter(fits).min_by(|a, b| instructions(a).total_cmp(&instructions(b)))
}

/// y = conv3d(x, w) + b by bricks that [`brick`] chose.
pub(super) fn launch<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    problem: &Conv3dProblem,
    brick: &Brick,
) -> Result<()> {
    let Conv3dHandles { x, w, b, y, .. } = buffers;
    let [x_len, w_len, y_len]: [usize; 3] =
        [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
    let [images, co, ..] = problem.output_shape();
    let bias = bias_or_nothing(client, b);
    let store = vector_width(client, dtype, co).min(RUN);
    // SAFETY: inputs are read where the checks say that they exist, weights below co, outputs are stored below co and the
    // output's extents, `store` of them within a voxel's channels; `Brick` sizes shared memory for all its units read.
    with_float!(dtype, F => unsafe {
        stem::conv3d_stem::launch_unchecked::<F, R>(
            client,
            cube_grid(cubes(brick, problem))?,
            CubeDim::new_1d(brick.units() as u32),
            store,
            array(x, x_len),
            array(w, w_len),
            array(&bias, if b.is_some() { co } else { 1 }),
            array(y, y_len),
            problem.geometry(),
            images,
            b.is_some().into(),
            *brick,
        )
    });
    Ok(())
}
