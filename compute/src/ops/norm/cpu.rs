//! Norms on the CPU: sums in f64 of the distances from the first voxel, then one pass that applies them.
//!
//! In f64 the plain sums keep every digit f32 data can show; measuring from a voxel of the group keeps them small even
//! for a mean far from 0. Chunks depend on the shape alone and are added in order: the thread count changes no bit.

use rayon::prelude::*;

use super::NormProblem;
use crate::memory::Buffer;
use crate::ops::simd::{F32Vector, F64_LANES, F64Vector, Isa, Kernel, LeakyRelu, Simd, repeat_to_fill_vectors};

/// Elements of a task: they stay in L1 while each tile of channels passes over them.
const CHUNK: usize = 1 << 13;
/// Channels summed at once, in registers.
pub(super) const TILE: usize = F64_LANES;

/// Per group and channel [groups, channels].
pub(in crate::ops) struct Statistics {
    pub(super) mean: Vec<f64>,
    /// Biased.
    pub(super) var: Vec<f64>,
}

impl Statistics {
    /// From each group's and channel's sum and sum of squares over `positions` values. For a mean far above the standard
    /// deviation the variance loses the digits of (mean / sd)^2 of f64's sixteen.
    pub(in crate::ops) fn from_sums(sums: &[[f64; 2]], positions: usize) -> Self {
        let positions = positions as f64;
        let mean: Vec<_> = sums.iter().map(|[sum, _]| sum / positions).collect();
        let variance = |([_, squares], mean): (&[f64; 2], &f64)| not_negative(squares / positions - mean * mean);
        let var = sums.iter().zip(&mean).map(variance).collect();
        Self { mean, var }
    }
}

/// What rounding made negative is 0. (`f64::max` would turn a NaN into 0, too.)
fn not_negative(variance: f64) -> f64 {
    if variance < 0.0 { 0.0 } else { variance }
}

pub(super) fn statistics(x: &[f32], problem: NormProblem) -> Statistics {
    statistics_with(Isa::widest(), x, problem)
}

pub(super) fn statistics_with(isa: Isa, x: &[f32], problem: NormProblem) -> Statistics {
    let NormProblem { groups, positions, channels } = problem;
    let mut mean = Vec::with_capacity(groups * channels);
    let mut var = Vec::with_capacity(groups * channels);
    let group = positions * channels;
    for x in x.chunks_exact(group.max(1)) {
        let origin = &x[..channels];
        let parts: Vec<_> = x.par_chunks(chunk(channels)).map(|part| sums(isa, part, origin)).collect();
        for c in 0..channels {
            let (sum, squares) = parts.iter().fold((0.0, 0.0), |(s, q), part| (s + part[c][0], q + part[c][1]));
            let shift = sum / positions as f64;
            mean.push(f64::from(origin[c]) + shift);
            var.push(not_negative(squares / positions as f64 - shift * shift));
        }
    }
    Statistics { mean, var }
}

/// Elements of a chunk: whole positions, at least one.
pub(super) fn chunk(channels: usize) -> usize {
    (CHUNK / channels.max(1)).max(1) * channels.max(1)
}

/// Per channel the sum of the distances from `origin` and of their squares.
fn sums(isa: Isa, x: &[f32], origin: &[f32]) -> Vec<[f64; 2]> {
    let mut sums = vec![[0.0; 2]; origin.len()];
    isa.run(AddUp { x, origin, sums: &mut sums });
    sums
}

/// The sums of some positions.
struct AddUp<'a> {
    /// [positions, channels].
    x: &'a [f32],
    /// A value per channel.
    origin: &'a [f32],
    /// Two per channel.
    sums: &'a mut [[f64; 2]],
}

impl Kernel for AddUp<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let channels = self.origin.len();
        let tiles = self.origin.chunks(TILE).zip(self.sums.chunks_mut(TILE));
        for (first, (origin, sums)) in (0..).step_by(TILE).zip(tiles) {
            let mut total = [[0.0f64; TILE]; 2];
            if origin.len() == TILE {
                let origin = simd.widen(origin);
                let (mut sum, mut squares) = (simd.splat_f64(0.0), simd.splat_f64(0.0));
                for row in self.x.chunks_exact(channels) {
                    let distance = simd.widen(&row[first..]).sub(origin);
                    sum = sum.add(distance);
                    squares = squares.add(distance.mul(distance));
                }
                sum.store(&mut total[0]);
                squares.store(&mut total[1]);
            } else {
                for row in self.x.chunks_exact(channels) {
                    for (c, (value, origin)) in row[first..].iter().zip(origin).enumerate() {
                        let distance = f64::from(*value) - f64::from(*origin);
                        total[0][c] += distance;
                        total[1][c] += distance * distance;
                    }
                }
            }
            for (c, to) in sums.iter_mut().enumerate() {
                *to = [total[0][c], total[1][c]];
            }
        }
    }
}

/// The norm of `x` with `statistics`.
pub(super) fn apply(
    x: &[f32],
    statistics: &Statistics,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    problem: NormProblem,
) -> Buffer {
    let NormProblem { positions, channels, .. } = problem;
    let (mut y, isa) = (Buffer::unwritten(x.len()), Isa::widest());
    let group = (positions * channels).max(1);
    for (index, (y, x)) in y.chunks_exact_mut(group).zip(x.chunks_exact(group)).enumerate() {
        let scale = Scale::new(statistics, index, weight, bias, eps, channels);
        y.par_chunks_mut(chunk(channels)).zip(x.par_chunks(chunk(channels))).for_each(|(y, x)| {
            y.copy_from_slice(x);
            isa.run(Apply { y, scale: &scale, slope: 1.0 });
        });
    }
    y
}

/// As [`apply`] with a leaky ReLU behind it, in place.
pub(in crate::ops) fn apply_in_place(
    y: &mut [f32],
    statistics: &Statistics,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    problem: NormProblem,
    slope: f32,
) {
    let NormProblem { positions, channels, .. } = problem;
    let isa = Isa::widest();
    for (index, y) in y.chunks_exact_mut((positions * channels).max(1)).enumerate() {
        let scale = Scale::new(statistics, index, weight, bias, eps, channels);
        y.par_chunks_mut(chunk(channels)).for_each(|y| isa.run(Apply { y, scale: &scale, slope }));
    }
}

/// A group's norm: (x - mean) * scale + bias per channel, the channels repeated to fill vectors.
pub(super) struct Scale {
    pub(super) mean: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

impl Scale {
    pub(super) fn new(
        statistics: &Statistics,
        group: usize,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        eps: f32,
        channels: usize,
    ) -> Self {
        let own = group * channels..(group + 1) * channels;
        let inverse_sd = statistics.var[own.clone()].iter().map(|var| 1.0 / (var + f64::from(eps)).sqrt());
        let mean: Vec<_> = statistics.mean[own].iter().map(|&m| m as f32).collect();
        let scale: Vec<_> =
            inverse_sd.enumerate().map(|(c, s)| (weight.map_or(1.0, |w| f64::from(w[c])) * s) as f32).collect();
        Self {
            mean: repeat_to_fill_vectors(&mean),
            scale: repeat_to_fill_vectors(&scale),
            bias: repeat_to_fill_vectors(bias.unwrap_or(&vec![0.0; channels])),
        }
    }
}

/// Norm and leaky ReLU of some positions, in place. Slope 1 leaves the norm as it is.
struct Apply<'a> {
    y: &'a mut [f32],
    scale: &'a Scale,
    slope: f32,
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Scale { mean, scale, bias } = self.scale;
        let (activation, lanes) = (LeakyRelu::new(simd, self.slope), S::F32::LANES);
        for row in self.y.chunks_mut(mean.len()) {
            // The last row may be shorter than the repeated channels.
            let [mean, scale, bias] = [mean, scale, bias].map(|values| &values[..row.len()]);
            let whole = row.len() - row.len() % lanes;
            for first in (0..whole).step_by(lanes) {
                let y = &mut row[first..first + lanes];
                let distance = simd.load(y).sub(simd.load(&mean[first..]));
                activation.of(distance.mul(simd.load(&scale[first..])).add(simd.load(&bias[first..]))).store(y);
            }
            if whole < row.len() {
                let y = &mut row[whole..];
                let distance = simd.load_partial(y).sub(simd.load_partial(&mean[whole..]));
                let scaled = distance.mul(simd.load_partial(&scale[whole..]));
                activation.of(scaled.add(simd.load_partial(&bias[whole..]))).store_partial(y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{activation, norm::reference};
    use crate::tensor::{from_channels_last, to_channels_last};

    /// Channels that fill vectors, repeat to fill them, and do neither; positions that leave a rest.
    const SHAPES: [[usize; 5]; 6] =
        [[2, 32, 3, 5, 7], [1, 1, 1, 7, 11], [1, 3, 5, 5, 5], [2, 20, 1, 3, 3], [1, 37, 2, 3, 3], [1, 300, 1, 2, 2]];

    fn numbers(len: usize, salt: usize) -> Vec<f32> {
        (0..len).map(|i| ((i + salt).wrapping_mul(2_654_435_761) >> 11 & 0xfff) as f32 / 512.0 - 3.0).collect()
    }

    fn f64s(values: &[f32]) -> Vec<f64> {
        values.iter().map(|v| f64::from(*v)).collect()
    }

    /// The norm and leaky ReLU of all positions as a single task.
    fn block(isa: Isa, shape: [usize; 5], x: &[f32], parameters: [&[f32]; 2], eps: f32, slope: f32) -> Vec<f32> {
        let [groups, channels, d, h, w] = shape;
        let problem = NormProblem { groups, positions: d * h * w, channels };
        let statistics = statistics_with(isa, x, problem);
        let mut y = x.to_vec();
        for (group, y) in y.chunks_exact_mut(problem.positions * channels).enumerate() {
            let scale = Scale::new(&statistics, group, Some(parameters[0]), Some(parameters[1]), eps, channels);
            isa.run(Apply { y, scale: &scale, slope });
        }
        y
    }

    #[test]
    fn every_instruction_set_agrees_with_the_reference_and_in_every_bit() {
        let (eps, slope) = (1e-5, 0.01);
        for shape in SHAPES {
            let x = numbers(shape.iter().product(), 1);
            let (weight, bias) = (numbers(shape[1], 3), numbers(shape[1], 4));
            let want = reference::instance_norm(&f64s(&x), shape, Some(&f64s(&weight)), Some(&f64s(&bias)), eps.into());
            let values = activation::reference::leaky_relu(&want.value, slope.into());
            let channels_last = to_channels_last(shape, &x);
            let results: Vec<_> = Isa::available()
                .map(|isa| (isa, block(isa, shape, &channels_last, [&weight, &bias], eps, slope)))
                .collect();
            for (isa, y) in &results {
                assert_eq!(y, &results[0].1, "{isa:?} {shape:?}");
                for (got, (want, magnitude)) in
                    from_channels_last(shape, y).iter().zip(values.iter().zip(&want.magnitude))
                {
                    // Eight roundings to f32: of mean, scale and bias, and of each step.
                    let bound = 8.0 * f64::from(f32::EPSILON) * magnitude;
                    assert!((f64::from(*got) - want).abs() <= bound, "{isa:?} {shape:?}: {got} {want}");
                }
            }
        }
    }

    /// A slope of 0 is the ReLU: minus infinity, which a value beyond f32 becomes, is 0 and not NaN.
    #[test]
    fn what_overflows_below_is_zero_behind_a_relu() {
        let statistics = Statistics { mean: vec![0.0; 5], var: vec![1.0; 5] };
        for isa in Isa::available() {
            let scale = Scale::new(&statistics, 0, Some(&[1e30; 5]), None, 0.0, 5);
            let mut y = [-1e30, 1e30, f32::NAN, -1.0, 0.0].repeat(20);
            isa.run(Apply { y: &mut y, scale: &scale, slope: 0.0 });
            for y in y.chunks_exact(5) {
                assert_eq!([y[0], y[1], y[3], y[4]], [0.0, f32::INFINITY, 0.0, 0.0], "{isa:?}");
                assert!(y[2].is_nan(), "{isa:?}: {}", y[2]);
            }
        }
    }
}
