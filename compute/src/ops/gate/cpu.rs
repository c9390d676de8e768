//! Gating on the CPU: one pass over rows of voxels, memory bound.

use rayon::prelude::*;

use super::GateProblem;
use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, Isa, Kernel, LeakyRelu, Simd};

pub(super) fn gated_residual(x: &[f32], gate: &[f32], residual: &[f32], slope: f32, problem: &GateProblem) -> Buffer {
    gated_residual_with(Isa::widest(), x, gate, residual, slope, problem)
}

fn gated_residual_with(
    isa: Isa,
    x: &[f32],
    gate: &[f32],
    residual: &[f32],
    slope: f32,
    problem: &GateProblem,
) -> Buffer {
    let ([_, c, d, h, w], [_, _, gate_d, gate_h, gate_w]) = (problem.input, problem.gate);
    let mut y = Buffer::unwritten(x.len());
    if y.is_empty() {
        return y;
    }
    // A value of the gate serves many voxels: its exponential is taken once.
    let factors: Vec<f32> = gate.iter().map(|&v| sigmoid(v)).collect();
    let (row, gate_row) = (w * c, gate_w * c);
    let rows = y.par_chunks_mut(row).zip(x.par_chunks(row).zip(residual.par_chunks(row)));
    rows.enumerate().for_each(|(index, (y, (x, residual)))| {
        let (along_y, slice) = (index % h, index / h);
        let gate_slice = slice / d * gate_d + slice % d % gate_d;
        let first = (gate_slice * gate_h + along_y % gate_h) * gate_row;
        isa.run(Gated { x, factors: &factors[first..first + gate_row], residual, y, slope });
    });
    y
}

/// 1 / (1 + exp(-v)); the exponential of a large negative v is infinite, and the quotient 0.
fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// A row of voxels.
struct Gated<'a> {
    x: &'a [f32],
    /// The gate's sigmoid for the row, or for one voxel where it is the same for all of them.
    factors: &'a [f32],
    /// As long as `x`.
    residual: &'a [f32],
    /// As long as `x`.
    y: &'a mut [f32],
    slope: f32,
}

impl Kernel for Gated<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (activation, lanes, len) = (LeakyRelu::new(simd, self.slope), S::F32::LANES, self.factors.len());
        let rows = self.x.chunks_exact(len).zip(self.residual.chunks_exact(len));
        for ((x, residual), y) in rows.zip(self.y.chunks_exact_mut(len)) {
            let whole = len - len % lanes;
            for first in (0..whole).step_by(lanes) {
                let gated = simd.load(&x[first..]).mul(simd.load(&self.factors[first..]));
                activation.of(gated.add(simd.load(&residual[first..]))).store(&mut y[first..]);
            }
            let gated = simd.load_partial(&x[whole..]).mul(simd.load_partial(&self.factors[whole..]));
            activation.of(gated.add(simd.load_partial(&residual[whole..]))).store_partial(&mut y[whole..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channels that fill vectors and that leave a rest, and a gate of every kind: the same bits on every instruction set.
    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let numbers = |len: usize, salt: usize| -> Vec<f32> {
            (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 0xfff) as f32 / 512.0 - 3.0).collect()
        };
        for c in [1, 5, 16, 37] {
            let input = [2, c, 2, 3, 4];
            let len = input.iter().product();
            for axes in [[2, 3, 4], [1, 1, 4], [1, 1, 1], [2, 1, 1]] {
                let [d, h, w] = axes;
                let problem = GateProblem::new(input, [2, c, d, h, w]).expect("a problem");
                let gate = numbers(2 * c * d * h * w, 3);
                let (x, residual) = (numbers(len, 1), numbers(len, 2));
                let results: Vec<_> = Isa::available()
                    .map(|isa| gated_residual_with(isa, &x, &gate, &residual, 0.01, &problem).to_vec())
                    .collect();
                assert!(results.iter().all(|y| y == &results[0]), "{c} {axes:?}");
            }
        }
    }
}
