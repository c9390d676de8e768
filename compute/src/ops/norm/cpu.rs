//! Norms on the CPU: sums in f64 of the distances from the first voxel, then one pass that applies them.
//!
//! In f64 the plain sums keep every digit f32 data can show; measuring from a voxel of the group keeps them small even
//! for a mean far from 0. Chunks depend on the shape alone and are added in order: the thread count changes no bit.

use rayon::prelude::*;

use super::NormProblem;
use crate::memory::Buffer;
use crate::ops::conv3d::cpu::lanes::{Isa, Lanes, Vectorised};

/// Elements a task: they stay in L1 while each tile of channels passes over them.
const CHUNK: usize = 1 << 13;
/// Channels summed at once, in registers.
const TILE: usize = 8;

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
    let NormProblem { groups, positions, channels } = problem;
    let mut mean = Vec::with_capacity(groups * channels);
    let mut var = Vec::with_capacity(groups * channels);
    let group = positions * channels;
    for x in x.chunks_exact(group.max(1)) {
        let origin = &x[..channels];
        let parts: Vec<_> = x.par_chunks(chunk(channels)).map(|part| sums(part, origin)).collect();
        for c in 0..channels {
            let (sum, squares) = parts.iter().fold((0.0, 0.0), |(s, q), part| (s + part[c].0, q + part[c].1));
            let shift = sum / positions as f64;
            mean.push(f64::from(origin[c]) + shift);
            var.push(not_negative(squares / positions as f64 - shift * shift));
        }
    }
    Statistics { mean, var }
}

/// Elements of a chunk: whole positions, at least one.
fn chunk(channels: usize) -> usize {
    (CHUNK / channels.max(1)).max(1) * channels.max(1)
}

/// Per channel the sum of the distances from `origin` and of their squares.
fn sums(x: &[f32], origin: &[f32]) -> Vec<(f64, f64)> {
    let channels = origin.len();
    let mut out = Vec::with_capacity(channels);
    for (tile, origin) in origin.chunks(TILE).enumerate() {
        let first = tile * TILE;
        let mut sum = [0.0f64; TILE];
        let mut squares = [0.0f64; TILE];
        if let Ok(origin) = <&[f32; TILE]>::try_from(origin) {
            for row in x.chunks_exact(channels) {
                let row = &row[first..first + TILE];
                for c in 0..TILE {
                    let distance = f64::from(row[c]) - f64::from(origin[c]);
                    sum[c] += distance;
                    squares[c] += distance * distance;
                }
            }
        } else {
            for row in x.chunks_exact(channels) {
                for (c, (value, origin)) in row[first..].iter().zip(origin).enumerate() {
                    let distance = f64::from(*value) - f64::from(*origin);
                    sum[c] += distance;
                    squares[c] += distance * distance;
                }
            }
        }
        out.extend(sum.into_iter().zip(squares).take(origin.len()));
    }
    out
}

pub(super) fn apply(
    x: &[f32],
    statistics: &Statistics,
    weight: Option<&[f32]>,
    bias: Option<&[f32]>,
    eps: f32,
    problem: NormProblem,
) -> Buffer {
    let NormProblem { positions, channels, .. } = problem;
    let mut y = Buffer::unwritten(x.len());
    let group = (positions * channels).max(1);
    for (index, (y, x)) in y.chunks_exact_mut(group).zip(x.chunks_exact(group)).enumerate() {
        let scale = Scale::new(statistics, index, weight, bias, eps, channels);
        y.par_chunks_mut(chunk(channels)).zip(x.par_chunks(chunk(channels))).for_each(|(y, x)| {
            y.copy_from_slice(x);
            Isa::widest().run(Apply { y, scale: &scale, slope: 1.0 });
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
    for (index, y) in y.chunks_exact_mut((positions * channels).max(1)).enumerate() {
        let scale = Scale::new(statistics, index, weight, bias, eps, channels);
        y.par_chunks_mut(chunk(channels)).for_each(|y| Isa::widest().run(Apply { y, scale: &scale, slope }));
    }
}

/// A group's norm: (x - mean) * scale + bias per channel.
struct Scale {
    mean: Vec<f32>,
    scale: Vec<f32>,
    bias: Vec<f32>,
}

impl Scale {
    fn new(
        statistics: &Statistics,
        group: usize,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        eps: f32,
        channels: usize,
    ) -> Self {
        let own = group * channels..(group + 1) * channels;
        let inverse_sd = statistics.var[own.clone()].iter().map(|var| 1.0 / (var + f64::from(eps)).sqrt());
        Self {
            mean: statistics.mean[own].iter().map(|&m| m as f32).collect(),
            scale: inverse_sd.enumerate().map(|(c, s)| (weight.map_or(1.0, |w| f64::from(w[c])) * s) as f32).collect(),
            bias: bias.map_or_else(|| vec![0.0; channels], <[f32]>::to_vec),
        }
    }
}

/// Norm and leaky ReLU of some positions, in place. Slope 1 leaves the norm as it is.
struct Apply<'a> {
    y: &'a mut [f32],
    scale: &'a Scale,
    slope: f32,
}

impl Vectorised for Apply<'_> {
    /// A loop the compiler vectorises; it runs here for the sake of the wide registers.
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Scale { mean, scale, bias } = self.scale;
        for y in self.y.chunks_exact_mut(mean.len()) {
            for ((y, mean), (scale, bias)) in y.iter_mut().zip(mean).zip(scale.iter().zip(bias)) {
                let v = (*y - mean) * scale + bias;
                // Both are worked out, so that this is a choice of registers and no jump.
                let below = self.slope * v;
                *y = if v > 0.0 { v } else { below };
            }
        }
    }
}
