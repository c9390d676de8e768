//! A run of neighbouring voxels at once, a lane each, in f64: in f32 a step takes a fifth less, but the iterations would
//! part from PyTorch's by 1e-5 instead of 1e-10.
//!
//! The loops over lanes hold nothing but arithmetic, so that the compiler turns each into vector instructions.

use std::ops::Range;

use super::{Line, Sweep};
use crate::ops::affine_dice::AffineDiceSums;

/// Voxels a chunk.
pub(super) const LANES: usize = 16;

type Lanes = [f64; LANES];

/// Of one channel: p, p g, and per axis the gradient of p and that times x, over all voxels and over the fixed mask.
#[derive(Clone, Copy)]
struct Channel {
    p: Lanes,
    intersection: Lanes,
    all: [[Lanes; 2]; 3],
    within: [[Lanes; 2]; 3],
}

/// A row's sums, a lane each voxel modulo [`LANES`] from where its chunks start.
pub(super) struct RowSums([Channel; 2]);

impl RowSums {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        let zero = [[[0.0; LANES]; 2]; 3];
        Self([Channel { p: [0.0; LANES], intersection: [0.0; LANES], all: zero, within: zero }; 2])
    }

    /// Adds the lanes up, in their order, and what was summed along the row at (y, z) to the sums of the sweep.
    #[inline(always)]
    pub(super) fn finish(&self, [y, z]: [f64; 2], sums: &mut AffineDiceSums) {
        for (row, sum) in self.0.iter().zip(&mut sums.0) {
            sum.p += total(&row.p);
            sum.intersection += total(&row.intersection);
            for (slopes, out) in [(&row.all, &mut sum.all), (&row.within, &mut sum.within)] {
                for (slope, out) in slopes.iter().zip(out) {
                    let (all, by_x) = (total(&slope[0]), total(&slope[1]));
                    for (out, term) in out.iter_mut().zip([by_x, all * y, all * z, all]) {
                        *out += term;
                    }
                }
            }
        }
    }
}

/// By halves, which vector registers do at once.
#[inline(always)]
fn total(lanes: &Lanes) -> f64 {
    let eight: [f64; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f64; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Where the voxels of a chunk land.
struct Landing {
    /// The code of the cell each is in; 0 outside the cells.
    codes: [u16; LANES],
    /// Where in its cell, 0 to 1.
    fraction: [Lanes; 3],
    /// 1, or 0 where border padding holds the coordinate.
    free: [Lanes; 3],
}

#[inline(always)]
fn land<const BORDER: bool>(sweep: &Sweep<'_>, line: &Line<'_>, voxels: &Range<usize>) -> Landing {
    let [low, high] = sweep.limits.clamp;
    let (mut fraction, mut free) = ([[0.0; LANES]; 3], [[1.0; LANES]; 3]);
    // Cell numbers are whole and far below 2^53.
    let mut at = [0.0f64; LANES];
    let mut inside: [bool; LANES] = std::array::from_fn(|i| i < voxels.len());
    for r in [2, 1, 0] {
        let (count, first) = (sweep.cells.counts[r] as f64, line.start[r] + line.step[r] * voxels.start as f64);
        for i in 0..LANES {
            let mut u = first + line.step[r] * i as f64;
            if BORDER {
                free[r][i] = if u > low[r] && u < high[r] { 1.0 } else { 0.0 };
                u = if u > low[r] { u } else { low[r] };
                u = if u < high[r] { u } else { high[r] };
            }
            // NaN is not inside.
            let here = u >= 0.0 && u < count;
            inside[i] &= here;
            let u = if here { u } else { 0.0 };
            let cell = f64::from(u as i32);
            at[i] = at[i] * count + cell;
            fraction[r][i] = u - cell;
        }
    }
    let codes = std::array::from_fn(|i| if inside[i] { sweep.cells.codes[at[i] as usize] } else { 0 });
    Landing { codes, fraction, free }
}

/// Adds the voxels of a row, [`LANES`] at most, to its sums.
#[inline(always)]
pub(super) fn add<const BORDER: bool>(sweep: &Sweep<'_>, line: &Line<'_>, voxels: Range<usize>, sums: &mut RowSums) {
    let Landing { codes, fraction, free } = land::<BORDER>(sweep, line, &voxels);
    if codes.iter().fold(0, |all, code| all | code) == 0 {
        return;
    }
    let mut labels = [0u8; LANES];
    labels[..voxels.len()].copy_from_slice(&line.labels[voxels.clone()]);
    let x: Lanes = std::array::from_fn(|i| (voxels.start + i) as f64);
    for (channel, sum) in sums.0.iter_mut().enumerate() {
        let bits: [u32; LANES] = std::array::from_fn(|i| u32::from(codes[i] >> (8 * channel)) & 0xff);
        let inside: Lanes = std::array::from_fn(|i| {
            let label = labels[i];
            if label == 2 || (channel == 1 && label == 1) { 1.0 } else { 0.0 }
        });
        if bits.iter().all(|&b| b == 0 || b == 255) {
            for i in 0..LANES {
                let p = f64::from(bits[i] & 1);
                sum.p[i] += p;
                sum.intersection[i] += p * inside[i];
            }
            continue;
        }
        for i in 0..LANES {
            let [fx, fy, fz] = [fraction[0][i], fraction[1][i], fraction[2][i]];
            let corner = |k: u32| f64::from((bits[i] >> k) & 1);
            // Lines along x at (y, z) = 00, 10, 01, 11, and their slopes.
            let (a, b, c, d) = (corner(0), corner(2), corner(4), corner(6));
            let (sa, sb, sc, sd) = (corner(1) - a, corner(3) - b, corner(5) - c, corner(7) - d);
            let (a, b, c, d) = (a + fx * sa, b + fx * sb, c + fx * sc, d + fx * sd);
            let (near, far) = (a + fy * (b - a), c + fy * (d - c));
            let (slope_near, slope_far) = (sa + fy * (sb - sa), sc + fy * (sd - sc));
            let p = near + fz * (far - near);
            let gradient = [
                free[0][i] * (slope_near + fz * (slope_far - slope_near)),
                free[1][i] * ((b - a) + fz * ((d - c) - (b - a))),
                free[2][i] * (far - near),
            ];
            sum.p[i] += p;
            sum.intersection[i] += p * inside[i];
            for r in 0..3 {
                let (all, within) = (gradient[r], gradient[r] * inside[i]);
                sum.all[r][0][i] += all;
                sum.all[r][1][i] += all * x[i];
                sum.within[r][0][i] += within;
                sum.within[r][1][i] += within * x[i];
            }
        }
    }
}
