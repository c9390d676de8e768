//! Fully connected layers on the CPU: one dot product of contiguous rows for each output.

use rayon::prelude::*;

use super::LinearProblem;
use crate::ops::simd::{F32Vector, Isa, Kernel, Simd};

/// Number of partial sums of a dot product. They are independent, so that they fill vectors, and their number is the same on every
/// instruction set, so that the order of the sum is the same.
const PARTS: usize = 16;
/// Number of outputs of a task.
const CHUNK: usize = 16;

pub(super) fn linear(x: &[f32], w: &[f32], bias: Option<&[f32]>, problem: LinearProblem) -> Vec<f32> {
    linear_with(Isa::widest(), x, w, bias, problem)
}

fn linear_with(isa: Isa, x: &[f32], w: &[f32], bias: Option<&[f32]>, problem: LinearProblem) -> Vec<f32> {
    let LinearProblem { rows, outputs, .. } = problem;
    let mut y = vec![0.0; rows * outputs];
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, y)| {
        isa.run(Outputs { x, w, bias, problem, first: chunk * CHUNK, y });
    });
    y
}

/// A task: neighbouring outputs.
struct Outputs<'a> {
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    problem: LinearProblem,
    /// The index of the first output over all rows.
    first: usize,
    y: &'a mut [f32],
}

impl Kernel for Outputs<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let LinearProblem { inputs, outputs, .. } = self.problem;
        for (index, y) in (self.first..).zip(self.y) {
            let (row, output) = (index / outputs, index % outputs);
            let (a, b) = (&self.x[row * inputs..][..inputs], &self.w[output * inputs..][..inputs]);
            let sum = match S::F32::LANES {
                16 => dot::<S, 1>(simd, a, b),
                8 => dot::<S, 2>(simd, a, b),
                _ => dot::<S, 4>(simd, a, b),
            };
            *y = self.bias.map_or(sum, |bias| sum + bias[output]);
        }
    }
}

/// The dot product, in [`PARTS`] partial sums that `N` vectors hold.
#[inline(always)]
fn dot<S: Simd, const N: usize>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let lanes = S::F32::LANES;
    debug_assert_eq!(N * lanes, PARTS);
    let mut sums = [simd.splat(0.0); N];
    let (a_blocks, b_blocks) = (a.chunks_exact(PARTS), b.chunks_exact(PARTS));
    let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for (i, sum) in sums.iter_mut().enumerate() {
            // Not `mul_add`: rounded twice, the sum has the same bits on every instruction set.
            *sum = sum.add(simd.load(&a[i * lanes..]).mul(simd.load(&b[i * lanes..])));
        }
    }
    let mut parts = [0.0; PARTS];
    for (i, sum) in sums.iter().enumerate() {
        sum.store(&mut parts[i * lanes..]);
    }
    parts.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::linear::reference;

    #[test]
    fn every_instruction_set_agrees_with_the_reference_and_in_every_bit() {
        let numbers = |len: usize, salt: usize| -> Vec<f32> {
            (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 0xfff) as f32 / 512.0 - 3.0).collect()
        };
        let f64s = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 15, 5), (2, 16, 17), (1, 100, 33), (5, 257, 2)] {
            let problem = LinearProblem { rows, inputs, outputs };
            let (x, w, bias) = (numbers(rows * inputs, 1), numbers(outputs * inputs, 2), numbers(outputs, 3));
            let (want, magnitude) = reference::linear(&f64s(&x), &f64s(&w), Some(&f64s(&bias)), inputs, outputs);
            let results: Vec<_> =
                Isa::available().map(|isa| (isa, linear_with(isa, &x, &w, Some(&bias), problem))).collect();
            for (isa, y) in &results {
                assert_eq!(y, &results[0].1, "{isa:?} {problem:?}");
                for (y, (want, magnitude)) in y.iter().zip(want.iter().zip(&magnitude)) {
                    // Each term is rounded in its product, in the sums after it, and in the sum with the bias.
                    let bound = (inputs + 2) as f64 * f64::from(f32::EPSILON) / 2.0 * magnitude * 1.001;
                    assert!((f64::from(*y) - want).abs() <= bound, "{isa:?} {problem:?}: {y} {want}");
                }
            }
        }
    }
}
