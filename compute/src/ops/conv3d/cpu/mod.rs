//! Convolution on the CPU, over channels-last rows: by Winograd's minimal filtering where that applies and pays, else as an indirect
//! matrix product.

mod backward;
pub(in crate::ops) mod indirect_gemm;
pub(in crate::ops) mod indirection;
pub(in crate::ops) mod packed_weights;
mod sums;
mod winograd;

use super::{Conv3dParams, Conv3dProblem};
pub(in crate::ops) use backward::bias_gradient;
use indirect_gemm::{Phase, multiply, multiply_and_sum};
use indirection::{AxisSpec, Indirection};
pub(in crate::ops) use packed_weights::PackedWeights;
use packed_weights::{Channels, WeightOrder, Weights};
use winograd::TransformedWeights;

use rayon::prelude::*;

use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, Isa, Kernel, LeakyRelu, Simd};
use crate::tensor::Shape;

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

/// The weights of a convolution as its algorithm reads them.
#[derive(Debug)]
pub(in crate::ops) enum ConvWeights {
    /// For the indirect matrix product.
    Direct(PackedWeights),
    /// For minimal filtering.
    Winograd(TransformedWeights),
}

/// The weights `w` [co, kd, kh, kw, ci / groups], packed for this machine.
pub(in crate::ops) fn pack(problem: &Conv3dProblem, w: &[f32]) -> ConvWeights {
    let isa = Isa::fitting(channels(problem).co);
    if winograd::suits(problem) {
        ConvWeights::Winograd(transform_for(isa, problem, w))
    } else {
        ConvWeights::Direct(pack_for(isa, problem, w))
    }
}

/// Were these packed for this machine, this problem's weights and its algorithm?
pub(in crate::ops) fn fits(problem: &Conv3dProblem, weights: &ConvWeights) -> bool {
    let channels = channels(problem);
    let isa = Isa::fitting(channels.co);
    match weights {
        ConvWeights::Direct(weights) => !winograd::suits(problem) && weights.is_for(isa, channels),
        ConvWeights::Winograd(weights) => {
            winograd::suits(problem) && weights.is_for(isa, [channels.ci, channels.co], problem.weight_shape()[2] == 3)
        }
    }
}

fn transform_for(isa: Isa, problem: &Conv3dProblem, w: &[f32]) -> TransformedWeights {
    let [co, ci, kd, ..] = problem.weight_shape();
    TransformedWeights::of(isa, [ci, co], kd == 3, w)
}

fn pack_for(isa: Isa, problem: &Conv3dProblem, w: &[f32]) -> PackedWeights {
    let taps: Vec<usize> = (0..problem.weight_shape()[2..].iter().product()).collect();
    let weights = Weights { data: w, order: WeightOrder::SummedInnermost, all_taps: taps.len(), taps: &taps };
    PackedWeights::pack(isa, channels(problem), &weights)
}

/// `x` [n, d, h, w, ci] -> [n, od, oh, ow, co].
pub(super) fn conv3d(problem: &Conv3dProblem, x: &[f32], weights: &ConvWeights, b: Option<&[f32]>) -> Buffer {
    let mut y = Buffer::unwritten(problem.output_shape().iter().product());
    match weights {
        ConvWeights::Direct(weights) => {
            multiply(&[Phase { indirection: indirection(problem, problem.input_shape()), weights }], b, &[x], &mut y);
        }
        ConvWeights::Winograd(weights) => winograd::convolve(problem, &[x], weights, b, &mut y),
    }
    y
}

/// As [`conv3d`] of the inputs `xs` [n, d, h, w, ci / xs.len()], their channels one after the other, with the sum and the
/// sum of squares of each image's and channel's outputs [n * co].
pub(in crate::ops) fn conv3d_with_sums(
    problem: &Conv3dProblem,
    xs: &[&[f32]],
    weights: &ConvWeights,
    b: Option<&[f32]>,
) -> (Buffer, Vec<[f64; 2]>) {
    let ([n, ci, d, h, w], output) = (problem.input_shape(), problem.output_shape());
    let source = [1, ci / xs.len(), d, h, w];
    let mut y = Buffer::unwritten(output.iter().product());
    let [from, to] = [source.iter().product::<usize>(), output[1..].iter().product()];
    let images = (0..n).zip(y.chunks_exact_mut(to));
    let sums = images.flat_map(|(image, y)| {
        let xs: Vec<_> = xs.iter().map(|x| &x[image * from..][..from]).collect();
        match weights {
            ConvWeights::Direct(weights) => {
                let phase = Phase { indirection: indirection(problem, source), weights };
                multiply_and_sum(&phase, b, &xs, y)
            }
            ConvWeights::Winograd(weights) => winograd::convolve_and_sum(problem, &xs, weights, b, y),
        }
    });
    let sums = sums.collect();
    (y, sums)
}

/// The gradient by the input [n, d, h, w, ci] of `dy` [n, od, oh, ow, co], as a convolution of `dy` with the flipped weights; None
/// where that is not the faster way, so that it is left to the transposed convolution.
pub(in crate::ops) fn data_gradient(problem: &Conv3dProblem, dy: &[f32], w: &[f32]) -> Option<Buffer> {
    let adjoint = adjoint(problem).filter(winograd::suits_gradient)?;
    let isa = Isa::fitting(channels(&adjoint).co);
    let weights = transform_for(isa, &adjoint, &flipped(problem.weight_shape(), w));
    Some(conv3d(&adjoint, dy, &ConvWeights::Winograd(weights), None))
}

/// The convolution that gives the gradient by the input, of strides, dilations and groups of 1.
fn adjoint(problem: &Conv3dProblem) -> Option<Conv3dProblem> {
    let ([co, ci, kd, kh, kw], params) = (problem.weight_shape(), problem.params());
    if params.stride != [1; 3] || params.dilation != [1; 3] || params.groups != 1 {
        return None;
    }
    let mut padding = [0; 3];
    for (axis, k) in [kd, kh, kw].into_iter().enumerate() {
        padding[axis] = (k - 1).checked_sub(params.padding[axis])?;
    }
    Conv3dProblem::new(problem.output_shape(), [ci, co, kd, kh, kw], Conv3dParams { padding, ..params }).ok()
}

/// Weights [co, taps, ci] as [ci, taps, co], the taps in the opposite order.
fn flipped([co, ci, kd, kh, kw]: Shape, w: &[f32]) -> Buffer {
    let taps = kd * kh * kw;
    let mut flipped = Buffer::unwritten(w.len());
    flipped.par_chunks_mut(taps * co).enumerate().for_each(|(c, rows)| {
        for (tap, row) in rows.chunks_exact_mut(co).enumerate() {
            for (out, to) in row.iter_mut().enumerate() {
                *to = w[(out * taps + taps - 1 - tap) * ci + c];
            }
        }
    });
    flipped
}

/// `x` [n, d, h, w, ci], `dy` [n, od, oh, ow, co] -> [co, kd, kh, kw, ci / groups].
pub(in crate::ops) fn weight_gradient(problem: &Conv3dProblem, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let isa = Isa::fitting(channels(problem).co);
    if winograd::gradient::suits(problem) {
        winograd::gradient::weight_gradient(isa, problem, x, dy)
    } else {
        weight_gradient_with(isa, problem, x, dy)
    }
}

fn weight_gradient_with(isa: Isa, problem: &Conv3dProblem, x: &[f32], dy: &[f32]) -> Vec<f32> {
    backward::weight_gradient(isa, channels(problem), &indirection(problem, problem.input_shape()), x, dy)
}

fn channels(problem: &Conv3dProblem) -> Channels {
    let ([co, ci, ..], groups) = (problem.weight_shape(), problem.params().groups);
    Channels { groups, ci, co: co / groups }
}

/// `input` is the problem's, but for the number of images and channels.
fn indirection(problem: &Conv3dProblem, input: Shape) -> Indirection {
    let axes = [0, 1, 2].map(|a| problem.axis(a).convolution());
    Indirection::new(axes.each_ref(), input, problem.output_shape())
}

/// Elements of a task of [`finish`]: large enough to hide the task, small enough to stay in L2.
const CHUNK: usize = 1 << 15;

/// y = leaky_relu(y + residual, slope) in one pass: the ReLU for a slope of 0, no activation for 1.
pub(in crate::ops) fn finish(y: &mut [f32], residual: Option<&[f32]>, slope: f32) {
    finish_with(Isa::widest(), y, residual, slope);
}

fn finish_with(isa: Isa, y: &mut [f32], residual: Option<&[f32]>, slope: f32) {
    match residual {
        Some(residual) => y.par_chunks_mut(CHUNK).zip(residual.par_chunks(CHUNK)).for_each(|(y, residual)| {
            isa.run(Finish { y, residual: Some(residual), slope });
        }),
        None => y.par_chunks_mut(CHUNK).for_each(|y| isa.run(Finish { y, residual: None, slope })),
    }
}

/// What follows the convolution of some outputs.
struct Finish<'a> {
    y: &'a mut [f32],
    /// As long as `y`.
    residual: Option<&'a [f32]>,
    slope: f32,
}

impl Kernel for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (activation, lanes) = (LeakyRelu::new(simd, self.slope), S::F32::LANES);
        if let Some(residual) = self.residual {
            let (mut rows, mut residuals) = (self.y.chunks_exact_mut(lanes), residual.chunks_exact(lanes));
            for (y, residual) in (&mut rows).zip(&mut residuals) {
                activation.of(simd.load(y).add(simd.load(residual))).store(y);
            }
            let (y, residual) = (rows.into_remainder(), residuals.remainder());
            activation.of(simd.load_partial(y).add(simd.load_partial(residual))).store_partial(y);
        } else {
            let mut rows = self.y.chunks_exact_mut(lanes);
            for y in &mut rows {
                activation.of(simd.load(y)).store(y);
            }
            let y = rows.into_remainder();
            activation.of(simd.load_partial(y)).store_partial(y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conv3dParams, Conv3dProblem, reference};
    use super::{ConvWeights, Isa, conv3d, data_gradient, finish_with, pack_for, weight_gradient_with};
    use crate::tensor::{from_channels_last, to_channels_last};

    /// Whole numbers, so that every instruction set must give the reference's bits.
    #[test]
    fn every_instruction_set_of_this_machine_is_exact() {
        let params = Conv3dParams { stride: [1, 2, 1], padding: [1, 0, 1], dilation: [1, 1, 2], groups: 2 };
        for co in [6, 22, 70] {
            let (xs, ws) = ([2, 10, 3, 6, 9], [co, 5, 3, 2, 2]);
            let problem = Conv3dProblem::new(xs, ws, params).expect("a problem");
            let ys = problem.output_shape();
            let numbers = |len: usize, step: usize| (0..len).map(|i| (i * step % 7) as f32 - 3.0).collect::<Vec<_>>();
            let f64s = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
            let [x, w, dy] = [(xs, 3), (ws, 5), (ys, 4)].map(|(s, step)| numbers(s.iter().product(), step));
            let b = numbers(co, 2);
            let want = reference::conv3d(&f64s(&x), xs, &f64s(&w), ws, Some(&f64s(&b)), &params).value;
            let want_dw = reference::conv3d_backward(&f64s(&x), xs, &f64s(&w), ws, &f64s(&dy), &params).dw.value;
            let [x, w, dy] = [(xs, &x), (ws, &w), (ys, &dy)].map(|(s, data)| to_channels_last(s, data));
            for isa in Isa::available() {
                let y = conv3d(&problem, &x, &ConvWeights::Direct(pack_for(isa, &problem, &w)), Some(&b));
                assert_eq!(f64s(&from_channels_last(ys, &y)), want, "{isa:?}");
                let dw = weight_gradient_with(isa, &problem, &x, &dy);
                assert_eq!(f64s(&from_channels_last(ws, &dw)), want_dw, "{isa:?}");
            }
        }
    }

    #[test]
    fn gradients_by_the_input_of_whole_numbers_are_exact() {
        for (xs, kd, padding) in
            [([1, 17, 5, 6, 7], 3, [1, 1, 1]), ([2, 16, 3, 6, 9], 1, [0, 2, 0]), ([1, 8, 4, 5, 6], 3, [1, 1, 1])]
        {
            let (ws, params) = ([18, xs[1], kd, 3, 3], Conv3dParams { padding, ..Default::default() });
            let problem = Conv3dProblem::new(xs, ws, params).expect("a problem");
            let ys = problem.output_shape();
            let numbers = |shape: [usize; 5], step: usize| {
                (0..shape.iter().product()).map(|i: usize| (i * step % 7) as f64 - 3.0).collect::<Vec<_>>()
            };
            let (w, dy) = (numbers(ws, 5), numbers(ys, 4));
            let want = reference::conv3d_backward(&numbers(xs, 3), xs, &w, ws, &dy, &params).dx.value;
            let floats = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<_>>();
            let [w, dy] = [(ws, &w), (ys, &dy)].map(|(shape, data)| to_channels_last(shape, &floats(data)));
            let dx = data_gradient(&problem, &dy, &w).expect("by minimal filtering");
            let dx: Vec<f64> = from_channels_last(xs, &dx).into_iter().map(f64::from).collect();
            assert_eq!(dx, want, "{xs:?}");
        }
        // Left to the transposed convolution: a stride, and more padding than the flipped kernel can have.
        for params in [
            Conv3dParams { stride: [2; 3], padding: [1; 3], ..Default::default() },
            Conv3dParams { padding: [3; 3], ..Default::default() },
        ] {
            let problem = Conv3dProblem::new([1, 16, 9, 9, 9], [16, 16, 3, 3, 3], params).expect("a problem");
            let dy = vec![0.0; problem.output_shape().iter().product()];
            assert!(data_gradient(&problem, &dy, &[0.0; 16 * 16 * 27]).is_none(), "{params:?}");
        }
    }

    #[test]
    fn every_instruction_set_adds_the_residual_and_activates() {
        let values = [f32::NEG_INFINITY, -2.0, -0.0, 0.0, 3.0, f32::INFINITY, f32::NAN];
        let y: Vec<f32> = values.iter().copied().cycle().take(101).collect();
        let residual: Vec<f32> = (0..y.len()).map(|i| (i % 5) as f32 - 2.0).collect();
        for isa in Isa::available() {
            for slope in [0.0, 0.25, 1.0] {
                for residual in [None, Some(&residual[..])] {
                    let mut got = y.clone();
                    finish_with(isa, &mut got, residual, slope);
                    for (i, got) in got.iter().enumerate() {
                        let v = residual.map_or(y[i], |r| y[i] + r[i]);
                        // Not a product for a slope of 0, which would make NaN of minus infinity.
                        let below = if slope == 0.0 { 0.0 } else { v * slope };
                        let want = if v < 0.0 { below } else { v };
                        assert!(*got == want || got.is_nan() && want.is_nan(), "{isa:?} {slope}: {got} of {v}");
                    }
                }
            }
        }
    }
}
