//! Convolution on the CPU: an indirect matrix product over channels-last rows.

pub(in crate::ops) mod gather;
pub(in crate::ops) mod indirect_gemm;
pub(in crate::ops) mod lanes;

use super::Conv3dProblem;
use gather::{AxisSpec, Gather};
use indirect_gemm::{Channels, Panels, WeightOrder, Weights, multiply};
use lanes::Isa;

impl Conv3dProblem {
    fn axis(&self, axis: usize) -> AxisSpec {
        let params = self.params();
        AxisSpec {
            input: self.input_shape()[2 + axis],
            output: self.output_shape()[2 + axis],
            kernel: self.weight_shape()[2 + axis],
            stride: params.stride[axis],
            padding: params.padding[axis],
            dilation: params.dilation[axis],
        }
    }
}

/// `x` [n, d, h, w, ci], `w` [co, kd, kh, kw, ci / groups] -> [n, od, oh, ow, co].
pub(super) fn conv3d(problem: &Conv3dProblem, x: &[f32], w: &[f32], b: Option<&[f32]>) -> Vec<f32> {
    let co = problem.weight_shape()[0] / problem.params().groups;
    conv3d_with(Isa::fitting(co), problem, x, w, b)
}

fn conv3d_with(isa: Isa, problem: &Conv3dProblem, x: &[f32], w: &[f32], b: Option<&[f32]>) -> Vec<f32> {
    let ([co, ci, ..], groups) = (problem.weight_shape(), problem.params().groups);
    let axes = [0, 1, 2].map(|a| problem.axis(a).convolution());
    let gather = Gather::new(axes.each_ref(), problem.input_shape(), problem.output_shape());
    let taps: Vec<usize> = (0..gather.taps()).collect();
    let weights = Weights { data: w, order: WeightOrder::SummedInnermost, all_taps: taps.len(), taps: &taps };
    let panels = Panels::pack(isa, Channels { groups, ci, co: co / groups }, &weights, b);
    let mut y = vec![0.0; problem.output_shape().iter().product()];
    multiply(&gather, &panels, x, &mut y);
    y
}
