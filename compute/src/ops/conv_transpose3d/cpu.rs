//! Transposed convolution on the CPU: one indirect matrix product per phase of the stride. With kernel = stride each
//! phase has a single tap, so this is the plain product with a scatter into every stride-th voxel.

use super::ConvTranspose3dProblem;
use crate::memory::Buffer;
use crate::ops::conv3d::cpu::indirect_gemm::{Phase, multiply};
use crate::ops::conv3d::cpu::indirection::{Axis, AxisSpec, Indirection};
use crate::ops::conv3d::cpu::packed_weights::{Channels, PackedWeights, WeightOrder, Weights};
use crate::ops::simd::Isa;

/// The weights of each phase, packed for this machine.
#[derive(Debug)]
pub(in crate::ops) struct Packed {
    kernel: [usize; 3],
    /// Which taps take part follows from these and the kernel.
    placement: [[usize; 3]; 3],
    phases: Vec<PackedWeights>,
}

/// `w` [ci, kd, kh, kw, co / groups].
pub(in crate::ops) fn pack(problem: &ConvTranspose3dProblem, w: &[f32]) -> Packed {
    let [kd, kh, kw] = kernel(problem);
    let pack = |[z, v, u]: [&Axis; 3]| {
        let rows = z.taps.iter().flat_map(|tz| v.taps.iter().map(move |ty| (tz * kh + ty) * kw));
        let taps: Vec<usize> = rows.flat_map(|row| u.taps.iter().map(move |tx| row + tx)).collect();
        let weights = Weights { data: w, order: WeightOrder::OutputInnermost, all_taps: kd * kh * kw, taps: &taps };
        PackedWeights::pack(isa(problem), channels(problem), &weights)
    };
    let phases = combined(&axes(problem)).map(pack).collect();
    Packed { kernel: kernel(problem), placement: placement(problem), phases }
}

/// Were these packed for this machine and this problem's weights?
pub(in crate::ops) fn fits(problem: &ConvTranspose3dProblem, packed: &Packed) -> bool {
    packed.kernel == kernel(problem)
        && packed.placement == placement(problem)
        && packed.phases.len() == combined(&axes(problem)).count()
        && packed.phases.iter().all(|p| p.is_for(isa(problem), channels(problem)))
}

/// `x` [n, d, h, w, ci] -> [n, od, oh, ow, co].
pub(in crate::ops) fn conv_transpose3d(
    problem: &ConvTranspose3dProblem,
    x: &[f32],
    packed: &Packed,
    b: Option<&[f32]>,
) -> Buffer {
    let axes = axes(problem);
    let phases: Vec<_> = combined(&axes)
        .zip(&packed.phases)
        .map(|(axes, weights)| {
            let indirection = Indirection::new(axes, problem.input_shape(), problem.output_shape());
            Phase { indirection, weights }
        })
        .collect();
    let mut y = Buffer::unwritten(problem.output_shape().iter().product());
    multiply(&phases, b, &[x], &mut y);
    y
}

fn kernel(problem: &ConvTranspose3dProblem) -> [usize; 3] {
    let [_, _, kd, kh, kw] = problem.weight_shape();
    [kd, kh, kw]
}

fn placement(problem: &ConvTranspose3dProblem) -> [[usize; 3]; 3] {
    [problem.stride(), problem.padding(), problem.dilation()]
}

fn channels(problem: &ConvTranspose3dProblem) -> Channels {
    let ([ci, co, ..], groups) = (problem.weight_shape(), problem.groups());
    Channels { groups, ci: ci / groups, co }
}

fn isa(problem: &ConvTranspose3dProblem) -> Isa {
    Isa::fitting(channels(problem).co)
}

fn axes(problem: &ConvTranspose3dProblem) -> [Vec<Axis>; 3] {
    [0, 1, 2].map(|axis| phases(problem, axis))
}

/// Every combination of an axis' phases, x fastest.
fn combined([z, y, x]: &[Vec<Axis>; 3]) -> impl Iterator<Item = [&Axis; 3]> {
    z.iter().flat_map(move |z| y.iter().flat_map(move |y| x.iter().map(move |x| [z, y, x])))
}

/// The phases of an axis that have outputs.
fn phases(problem: &ConvTranspose3dProblem, axis: usize) -> Vec<Axis> {
    let spec = AxisSpec {
        input: problem.input_shape()[2 + axis],
        output: problem.output_shape()[2 + axis],
        kernel: problem.weight_shape()[2 + axis],
        stride: problem.stride()[axis],
        padding: problem.padding()[axis],
        dilation: problem.dilation()[axis],
    };
    (0..spec.stride.min(spec.output)).filter_map(|phase| spec.transposed(phase)).collect()
}
