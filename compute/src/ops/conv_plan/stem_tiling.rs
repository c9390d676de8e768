//! The tiles that the stem kernel may run with on a device, and what the kernel cannot do.

use std::fmt;

use nephron_kernels::conv3d::stem::{Brick, RUN, VOXELS};

use super::algorithm::Conv3dAlgorithm;
use super::capabilities::DeviceCaps;
use crate::error::Error;
use crate::ops::conv_problem::Conv3dProblem;

/// Input channels that the kernel takes at most. With more, a matrix product pads less than this kernel loses without
/// matrix instructions.
const MAX_CHANNELS: usize = 4;
/// Taps along x that a thread's window of registers is made for.
const MAX_TAPS: usize = 7;
/// Stride along x that a thread's window of registers is made for. With 3, a kernel of one tap along x keeps 22 inputs to use 8: in
/// f16 that spills on sm_80.
const MAX_STRIDE: usize = 2;

/// A tile of output voxels and channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StemTile {
    /// The tile, and the input under it.
    pub(crate) brick: Brick,
    /// Output channels that a thread stores at once.
    pub(crate) store: usize,
}

impl fmt::Display for StemTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = &self.brick;
        write!(f, "{} x {} x {} by {}, {} units", b.z, b.y, b.x, b.groups * RUN, b.units())
    }
}

/// What the kernel cannot do with this problem of one group.
pub(super) fn obstacle(problem: &Conv3dProblem, caps: &DeviceCaps) -> Option<Error> {
    let ([_, ci, ..], [.., taps], params) = (problem.input_shape(), problem.weight_shape(), problem.params());
    let ([.., stride], [.., dilation]) = (params.stride, params.dilation);
    let refuse =
        |what: &str, most: usize, found: usize| Conv3dAlgorithm::Stem.refuse(what, format!("at most {most}"), found);
    match () {
        () if ci > MAX_CHANNELS => refuse("input channels", MAX_CHANNELS, ci),
        () if taps > MAX_TAPS => refuse("taps along x", MAX_TAPS, taps),
        () if stride > MAX_STRIDE => refuse("stride along x", MAX_STRIDE, stride),
        () if taps > 1 && dilation > 1 => refuse("dilation along x", 1, dilation),
        () if tile(problem, caps).is_none() => {
            let found = format!("{} bytes", caps.shared_bytes);
            Conv3dAlgorithm::Stem.refuse("shared memory", "enough for the weights and one row", found)
        }
        () => None,
    }
}

/// Cubes that cut the output into bricks.
pub(super) fn cubes(brick: &Brick, problem: &Conv3dProblem) -> usize {
    let [n, co, od, oh, ow] = problem.output_shape();
    n * od.div_ceil(brick.z) * oh.div_ceil(brick.y) * ow.div_ceil(brick.x) * co.div_ceil(brick.groups * RUN)
}

/// The tile with the fewest instructions, of those that fit the device. One term of a sum costs an instruction, a vector
/// copied to shared memory about 30, and the start and the end of a cube about what 100 terms cost each of its threads, of
/// which there are at least 32.
pub(super) fn tile(problem: &Conv3dProblem, caps: &DeviceCaps) -> Option<StemTile> {
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
    let fits = |b: &Brick| b.units() <= caps.max_units.min(256) && b.shared_bytes() <= caps.shared_bytes.min(64 << 10);
    let brick = all.into_iter().filter(fits).min_by(|a, b| instructions(a).total_cmp(&instructions(b)))?;
    Some(StemTile { brick, store: caps.vector_width(co).min(RUN) })
}
