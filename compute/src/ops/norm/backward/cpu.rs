//! Gradients of norms on the CPU: a pass of f64 sums over chunks, which are added in order, and a pass that applies them.
//!
//! The sign of the activation's argument is computed by the arithmetic of the forward pass, so that both agree in every bit.

use rayon::prelude::*;

use super::super::NormProblem;
use super::super::cpu::{Scale, Statistics, TILE, chunk, statistics_with};
use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, F64Vector, Isa, Kernel, Simd, repeat_to_fill_vectors};

/// The norm that is differentiated.
pub(super) struct Norm<'a> {
    pub weight: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub eps: f32,
    pub slope: f32,
    pub problem: NormProblem,
}

pub(super) struct Gradients {
    pub dx: Buffer,
    pub dweight: Vec<f32>,
    pub dbias: Vec<f32>,
}

pub(super) fn backward(x: &[f32], dy: &[f32], norm: &Norm<'_>) -> Gradients {
    backward_with(Isa::widest(), x, dy, norm)
}

fn backward_with(isa: Isa, x: &[f32], dy: &[f32], norm: &Norm<'_>) -> Gradients {
    let Norm { weight, bias, eps, slope, problem: NormProblem { positions, channels, .. } } = *norm;
    let statistics = statistics_with(isa, x, norm.problem);
    let (group, size) = (positions * channels, chunk(channels));
    let mut dx = Buffer::unwritten(x.len());
    let mut over_groups = vec![[0.0; 2]; channels];
    let groups = dx.chunks_exact_mut(group).zip(x.chunks_exact(group).zip(dy.chunks_exact(group)));
    for (index, (dx, (x, dy))) in groups.enumerate() {
        let scale = Scale::new(&statistics, index, weight, bias, eps, channels);
        let parts: Vec<_> = x
            .par_chunks(size)
            .zip(dy.par_chunks(size))
            .map(|(x, dy)| {
                let mut sums = vec![[0.0; 2]; channels];
                let mut activated = if slope == 1.0 { Vec::new() } else { vec![0.0; dy.len()] };
                isa.run(AddUp { x, dy, scale: &scale, slope, activated: &mut activated, sums: &mut sums });
                sums
            })
            .collect();
        let mut sums = vec![[0.0; 2]; channels];
        parts.iter().for_each(|part| add_to(&mut sums, part));
        let coefficients = Coefficients::new(&statistics, index, &scale, &mut sums, norm);
        add_to(&mut over_groups, &sums);
        let chunks = dx.par_chunks_mut(size).zip(x.par_chunks(size).zip(dy.par_chunks(size)));
        chunks.for_each(|(dx, (x, dy))| isa.run(Apply { x, dy, dx, coefficients: &coefficients, slope }));
    }
    let [dbias, dweight] = [0, 1].map(|i| over_groups.iter().map(|sums| sums[i] as f32).collect());
    Gradients { dx, dweight, dbias }
}

fn add_to(sums: &mut [[f64; 2]], others: &[[f64; 2]]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum = [sum[0] + other[0], sum[1] + other[1]];
    }
}

/// dy' = dy where the activation's argument is above 0, slope * dy otherwise.
#[inline(always)]
fn activated<V: F32Vector>(slope: V, argument: V, dy: V) -> V {
    argument.select_positive(dy, slope.mul(dy))
}

/// The sums of some positions.
struct AddUp<'a> {
    /// [positions, channels].
    x: &'a [f32],
    /// As long as `x`.
    dy: &'a [f32],
    scale: &'a Scale,
    slope: f32,
    /// Space for dy', as long as `x`; empty for a slope of 1.
    activated: &'a mut [f32],
    /// The sum of dy' and of dy' times the distance from the f32 mean, for each channel.
    sums: &'a mut [[f64; 2]],
}

impl Kernel for AddUp<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { x, dy, scale: Scale { mean, scale, bias }, slope, activated: scratch, sums } = self;
        let (factor, lanes) = (simd.splat(slope), S::F32::LANES);
        let rows = scratch.chunks_mut(mean.len()).zip(x.chunks(mean.len()).zip(dy.chunks(mean.len())));
        for (to, (x, dy)) in rows {
            let whole = x.len() - x.len() % lanes;
            for first in (0..whole).step_by(lanes) {
                let distance = simd.load(&x[first..]).sub(simd.load(&mean[first..]));
                let argument = distance.mul(simd.load(&scale[first..])).add(simd.load(&bias[first..]));
                activated(factor, argument, simd.load(&dy[first..])).store(&mut to[first..]);
            }
            if whole < x.len() {
                let own = whole..x.len();
                let distance = simd.load_partial(&x[own.clone()]).sub(simd.load_partial(&mean[own.clone()]));
                let scaled = distance.mul(simd.load_partial(&scale[own.clone()]));
                let argument = scaled.add(simd.load_partial(&bias[own.clone()]));
                activated(factor, argument, simd.load_partial(&dy[own.clone()])).store_partial(&mut to[own]);
            }
        }
        let dy = if slope == 1.0 { dy } else { &*scratch };
        let channels = sums.len();
        for (first, sums) in (0..).step_by(TILE).zip(sums.chunks_mut(TILE)) {
            let mut total = [[0.0f64; TILE]; 2];
            let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            if sums.len() == TILE {
                let mean = simd.widen(&mean[first..]);
                let (mut sum, mut products) = (simd.splat_f64(0.0), simd.splat_f64(0.0));
                for (x, dy) in rows {
                    let dy = simd.widen(&dy[first..]);
                    sum = sum.add(dy);
                    products = products.add(dy.mul(simd.widen(&x[first..]).sub(mean)));
                }
                sum.store(&mut total[0]);
                products.store(&mut total[1]);
            } else {
                let mean = &mean[first..first + sums.len()];
                for (x, dy) in rows {
                    for (c, ((x, dy), mean)) in x[first..].iter().zip(&dy[first..]).zip(mean).enumerate() {
                        let dy = f64::from(*dy);
                        total[0][c] += dy;
                        total[1][c] += dy * (f64::from(*x) - f64::from(*mean));
                    }
                }
            }
            for (c, to) in sums.iter_mut().enumerate() {
                *to = [total[0][c], total[1][c]];
            }
        }
    }
}

/// dx = factor * ((dy' - shift) - (x - mean) * steepness) of a group, and the activation's argument (x - mean) * scale + bias; per channel,
/// the channels repeated to fill vectors.
struct Coefficients<'a> {
    argument: &'a Scale,
    factor: Vec<f32>,
    shift: Vec<f32>,
    steepness: Vec<f32>,
}

impl<'a> Coefficients<'a> {
    /// Turns `sums`, from sums of dy' and of dy' times the distance from the f32 mean, into sums of dy' and dy' * xhat.
    fn new(statistics: &Statistics, group: usize, argument: &'a Scale, sums: &mut [[f64; 2]], norm: &Norm<'_>) -> Self {
        let count = norm.problem.positions as f64;
        let [mut factor, mut shift, mut steepness] = [(); 3].map(|()| Vec::with_capacity(sums.len()));
        for (c, sum) in sums.iter_mut().enumerate() {
            let at = group * norm.problem.channels + c;
            let inverse_sd = 1.0 / (statistics.var[at] + f64::from(norm.eps)).sqrt();
            // What the mean lost when it was rounded to f32.
            let lost = f64::from(argument.mean[c]) - statistics.mean[at];
            sum[1] = (sum[1] + lost * sum[0]) * inverse_sd;
            factor.push((norm.weight.map_or(1.0, |w| f64::from(w[c])) * inverse_sd) as f32);
            shift.push((sum[0] / count) as f32);
            steepness.push((sum[1] / count * inverse_sd) as f32);
        }
        let [factor, shift, steepness] = [factor, shift, steepness].map(|values| repeat_to_fill_vectors(&values));
        Self { argument, factor, shift, steepness }
    }
}

/// dx of some positions.
struct Apply<'a> {
    x: &'a [f32],
    /// As long as `x`.
    dy: &'a [f32],
    /// As long as `x`.
    dx: &'a mut [f32],
    coefficients: &'a Coefficients<'a>,
    slope: f32,
}

/// A vector of each of the operands of dx.
struct Operands<V> {
    /// x - mean.
    distance: V,
    dy: V,
    scale: V,
    bias: V,
    factor: V,
    shift: V,
    steepness: V,
}

impl<V: F32Vector> Operands<V> {
    #[inline(always)]
    fn dx(self, slope: V) -> V {
        let Self { distance, dy, scale, bias, factor, shift, steepness } = self;
        let dy = activated(slope, distance.mul(scale).add(bias), dy);
        dy.sub(shift).sub(distance.mul(steepness)).mul(factor)
    }
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Coefficients { argument: Scale { mean, scale, bias }, factor, shift, steepness } = self.coefficients;
        let (slope, lanes) = (simd.splat(self.slope), S::F32::LANES);
        let rows = self.dx.chunks_mut(mean.len()).zip(self.x.chunks(mean.len()).zip(self.dy.chunks(mean.len())));
        for (dx, (x, dy)) in rows {
            // The last row may be shorter than the repeated channels.
            let whole = x.len() - x.len() % lanes;
            for first in (0..whole).step_by(lanes) {
                let operands = Operands {
                    distance: simd.load(&x[first..]).sub(simd.load(&mean[first..])),
                    dy: simd.load(&dy[first..]),
                    scale: simd.load(&scale[first..]),
                    bias: simd.load(&bias[first..]),
                    factor: simd.load(&factor[first..]),
                    shift: simd.load(&shift[first..]),
                    steepness: simd.load(&steepness[first..]),
                };
                operands.dx(slope).store(&mut dx[first..]);
            }
            if whole < x.len() {
                let own = whole..x.len();
                let operands = Operands {
                    distance: simd.load_partial(&x[own.clone()]).sub(simd.load_partial(&mean[own.clone()])),
                    dy: simd.load_partial(&dy[own.clone()]),
                    scale: simd.load_partial(&scale[own.clone()]),
                    bias: simd.load_partial(&bias[own.clone()]),
                    factor: simd.load_partial(&factor[own.clone()]),
                    shift: simd.load_partial(&shift[own.clone()]),
                    steepness: simd.load_partial(&steepness[own.clone()]),
                };
                operands.dx(slope).store_partial(&mut dx[own]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Channels that fill vectors, repeat to fill them, and do neither; several chunks; the same bits on every instruction set and
    /// for any number of threads.
    #[test]
    fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
        for (groups, positions, channels) in
            [(2, 105, 32), (1, 77, 1), (3, 9001, 3), (2, 9, 20), (1, 18, 37), (1, 4, 300)]
        {
            let problem = NormProblem { groups, positions, channels };
            let numbers = |len: usize, salt: usize| -> Vec<f32> {
                (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 0xfff) as f32 / 512.0 - 3.0).collect()
            };
            let len = groups * positions * channels;
            let (x, dy) = (numbers(len, 1), numbers(len, 2));
            let (weight, bias) = (numbers(channels, 3), numbers(channels, 4));
            for slope in [1.0, 0.25] {
                let norm = Norm { weight: Some(&weight), bias: Some(&bias), eps: 1e-5, slope, problem };
                let bits = |gradients: Gradients| -> Vec<u32> {
                    let Gradients { dx, dweight, dbias } = gradients;
                    dx.iter().chain(&dweight).chain(&dbias).map(|v| v.to_bits()).collect()
                };
                let want = bits(backward(&x, &dy, &norm));
                for isa in Isa::available() {
                    for threads in [1, 3] {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                        let got = pool.install(|| bits(backward_with(isa, &x, &dy, &norm)));
                        assert!(got == want, "{isa:?}, {threads} threads, {problem:?}");
                    }
                }
            }
        }
    }
}
