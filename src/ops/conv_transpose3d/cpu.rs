//! Transposed convolution on the CPU: one indirect matrix product per phase of the stride. With kernel = stride each
//! phase has a single tap, so this is the plain product with a scatter into every stride-th voxel.

use super::ConvTranspose3dProblem;
use crate::ops::conv3d::cpu::gather::{Axis, AxisSpec, Gather};
use crate::ops::conv3d::cpu::indirect_gemm::{Channels, Panels, WeightOrder, Weights, multiply};
use crate::ops::conv3d::cpu::lanes::Isa;

/// `x` [n, d, h, w, ci], `w` [ci, kd, kh, kw, co / groups] -> [n, od, oh, ow, co].
pub(in crate::ops) fn conv_transpose3d(
    problem: &ConvTranspose3dProblem,
    x: &[f32],
    w: &[f32],
    b: Option<&[f32]>,
) -> Vec<f32> {
    let ([ci, co, kd, kh, kw], groups) = (problem.weight_shape(), problem.groups());
    let channels = Channels { groups, ci: ci / groups, co };
    let mut y = vec![0.0; problem.output_shape().iter().product()];
    let [z_phases, y_phases, x_phases] = [0, 1, 2].map(|axis| phases(problem, axis));
    for z in &z_phases {
        for v in &y_phases {
            for u in &x_phases {
                let taps: Vec<usize> = z
                    .taps
                    .iter()
                    .flat_map(|tz| v.taps.iter().map(move |ty| (tz * kh + ty) * kw))
                    .flat_map(|row| u.taps.iter().map(move |tx| row + tx))
                    .collect();
                let weights =
                    Weights { data: w, order: WeightOrder::OutputInnermost, all_taps: kd * kh * kw, taps: &taps };
                let panels = Panels::pack(Isa::fitting(co), channels, &weights, b);
                let gather = Gather::new([z, v, u], problem.input_shape(), problem.output_shape());
                multiply(&gather, &panels, x, &mut y);
            }
        }
    }
    y
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
