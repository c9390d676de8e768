//! Gradient descent on the CPU: one pass over weights, gradient and buffer, memory bound.

use rayon::prelude::*;

use super::Rates;
use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, F64_LANES, F64Vector, Isa, Kernel, Simd};

/// Number of elements of a task: large enough to hide the overhead of a task, small enough for L2.
const CHUNK: usize = 1 << 14;

/// New weights and momentum buffer from weights, gradient and buffer.
pub(super) fn sgd_step(operands: [&[f32]; 3], rates: Rates) -> [Buffer; 2] {
    sgd_step_with(Isa::widest(), operands, rates)
}

fn sgd_step_with(isa: Isa, [w, g, b]: [&[f32]; 3], rates: Rates) -> [Buffer; 2] {
    let [mut weights, mut buffer] = [(); 2].map(|()| Buffer::unwritten(w.len()));
    let written = weights.par_chunks_mut(CHUNK).zip(buffer.par_chunks_mut(CHUNK));
    let read = w.par_chunks(CHUNK).zip(g.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)));
    written.zip(read).for_each(|((weights, buffer), (w, (g, b)))| isa.run(Step { w, g, b, weights, buffer, rates }));
    [weights, buffer]
}

/// A step of some weights; all slices are of one length.
struct Step<'a> {
    w: &'a [f32],
    g: &'a [f32],
    b: &'a [f32],
    weights: &'a mut [f32],
    buffer: &'a mut [f32],
    rates: Rates,
}

/// A vector of each rate.
#[derive(Clone, Copy)]
struct Factors<V> {
    lr: V,
    momentum: V,
    weight_decay: V,
    nesterov: bool,
}

impl<V: F32Vector> Factors<V> {
    /// New weights and buffer. Not `mul_add`: rounded twice, they have the same bits on every instruction set.
    #[inline(always)]
    fn step(self, w: V, g: V, b: V) -> [V; 2] {
        let g = g.add(self.weight_decay.mul(w));
        let buffer = self.momentum.mul(b).add(g);
        let step = if self.nesterov { g.add(self.momentum.mul(buffer)) } else { buffer };
        [w.sub(self.lr.mul(step)), buffer]
    }
}

impl Kernel for Step<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { w, g, b, weights, buffer, rates } = self;
        let factors = Factors {
            lr: simd.splat(rates.lr),
            momentum: simd.splat(rates.momentum),
            weight_decay: simd.splat(rates.weight_decay),
            nesterov: rates.nesterov,
        };
        let lanes = S::F32::LANES;
        let whole = w.len() - w.len() % lanes;
        for i in (0..whole).step_by(lanes) {
            let [new, moved] = factors.step(simd.load(&w[i..]), simd.load(&g[i..]), simd.load(&b[i..]));
            new.store(&mut weights[i..]);
            moved.store(&mut buffer[i..]);
        }
        let (w, g, b) = (&w[whole..], &g[whole..], &b[whole..]);
        let [new, moved] = factors.step(simd.load_partial(w), simd.load_partial(g), simd.load_partial(b));
        new.store_partial(&mut weights[whole..]);
        moved.store_partial(&mut buffer[whole..]);
    }
}

/// The sum of squares: chunks of fixed size, added in order.
pub(super) fn squared_norm(x: &[f32]) -> f64 {
    squared_norm_with(Isa::widest(), x)
}

fn squared_norm_with(isa: Isa, x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(CHUNK)
        .map(|x| {
            let mut sum = 0.0;
            isa.run(Squares { x, sum: &mut sum });
            sum
        })
        .collect();
    parts.into_iter().sum()
}

/// Vectors of independent sums.
const SUMS: usize = 4;

/// The sum of squares of a chunk.
struct Squares<'a> {
    x: &'a [f32],
    sum: &'a mut f64,
}

impl Kernel for Squares<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut sums = [simd.splat_f64(0.0); SUMS];
        let blocks = self.x.chunks_exact(SUMS * F64_LANES);
        let rest: f64 = blocks.remainder().iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        for block in blocks {
            for (i, sum) in sums.iter_mut().enumerate() {
                let v = simd.widen(&block[i * F64_LANES..]);
                // The square of an f32 is exact in f64.
                *sum = sum.add(v.mul(v));
            }
        }
        let [a, b, c, d] = sums;
        *self.sum = a.add(b).add(c.add(d)).total() + rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
        let numbers = |len: usize, salt: usize| -> Vec<f32> {
            (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 0xfff) as f32 / 512.0 - 3.0).collect()
        };
        for len in [0, 1, 37, 64, 3 * CHUNK + 5] {
            let [w, g, b] = [1, 2, 3].map(|salt| numbers(len, salt));
            let norm = squared_norm(&w);
            for nesterov in [false, true] {
                let rates = Rates { lr: 0.01, momentum: 0.99, nesterov, weight_decay: 3e-5 };
                let bits = |[a, b]: [Buffer; 2]| a.iter().chain(b.iter()).map(|v| v.to_bits()).collect::<Vec<_>>();
                let want = bits(sgd_step([&w, &g, &b], rates));
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                        let got = pool
                            .install(|| (bits(sgd_step_with(isa, [&w, &g, &b], rates)), squared_norm_with(isa, &w)));
                        assert!(
                            got.0 == want && got.1.to_bits() == norm.to_bits(),
                            "{isa:?}, {threads} threads, {len}"
                        );
                    }
                }
            }
        }
    }
}
