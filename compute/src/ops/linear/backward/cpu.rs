//! Gradients of fully connected layers on the CPU: rows of weights and inputs added up with factors, in the order of the sums.

use rayon::prelude::*;

use super::super::LinearProblem;
use crate::ops::simd::{F32Vector, Isa, Kernel, Simd};

/// Number of inputs of a task of dx.
const CHUNK: usize = 256;

/// dx [rows, inputs], dw [outputs, inputs] and db [outputs].
pub(super) fn linear_backward(x: &[f32], w: &[f32], dy: &[f32], problem: LinearProblem) -> [Vec<f32>; 3] {
    linear_backward_with(Isa::widest(), x, w, dy, problem)
}

fn linear_backward_with(isa: Isa, x: &[f32], w: &[f32], dy: &[f32], problem: LinearProblem) -> [Vec<f32>; 3] {
    let LinearProblem { rows, inputs, outputs } = problem;
    let [mut dx, mut dw, mut db] = [rows * inputs, outputs * inputs, outputs].map(|len| vec![0.0f32; len]);
    if inputs > 0 && outputs > 0 {
        dx.par_chunks_mut(inputs).enumerate().for_each(|(row, dx)| {
            let factors = &dy[row * outputs..][..outputs];
            dx.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, dx)| {
                isa.run(AddRows { factors, step: 1, rows: &w[chunk * CHUNK..], length: inputs, sum: dx });
            });
        });
        dw.par_chunks_mut(inputs).enumerate().for_each(|(output, dw)| {
            if rows > 0 {
                isa.run(AddRows { factors: &dy[output..], step: outputs, rows: x, length: inputs, sum: dw });
            }
        });
    }
    for dy in dy.chunks_exact(outputs.max(1)) {
        db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy);
    }
    [dx, dw, db]
}

/// sum += factor * row for rows that start `length` values apart, and every `step`th factor.
struct AddRows<'a> {
    factors: &'a [f32],
    step: usize,
    rows: &'a [f32],
    length: usize,
    sum: &'a mut [f32],
}

impl Kernel for AddRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (lanes, len) = (S::F32::LANES, self.sum.len());
        let whole = len - len % lanes;
        for (factor, row) in self.factors.iter().step_by(self.step).zip(self.rows.chunks(self.length)) {
            let factor = simd.splat(*factor);
            for first in (0..whole).step_by(lanes) {
                // Not `mul_add`: rounded twice, the sum has the same bits on every instruction set.
                let product = factor.mul(simd.load(&row[first..]));
                simd.load(&self.sum[first..]).add(product).store(&mut self.sum[first..]);
            }
            let product = factor.mul(simd.load_partial(&row[whole..len]));
            simd.load_partial(&self.sum[whole..]).add(product).store_partial(&mut self.sum[whole..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let numbers = |len: usize, salt: usize| -> Vec<f32> {
            (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 0xfff) as f32 / 512.0 - 3.0).collect()
        };
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 37, 5), (2, 600, 7), (5, 16, 1)] {
            let problem = LinearProblem { rows, inputs, outputs };
            let [x, w, dy] =
                [(rows * inputs, 1), (outputs * inputs, 2), (rows * outputs, 3)].map(|(n, s)| numbers(n, s));
            let want = linear_backward(&x, &w, &dy, problem);
            for isa in Isa::available() {
                assert!(linear_backward_with(isa, &x, &w, &dy, problem) == want, "{isa:?} {problem:?}");
            }
        }
    }
}
