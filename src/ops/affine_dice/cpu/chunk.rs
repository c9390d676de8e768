//! Neighbouring voxels at once, a lane each, in f64: f32 would be faster still, but the iterations would part from PyTorch's
//! by 1e-5 instead of 1e-10.
//!
//! Groups of [`LANES`] voxels are first landed: which cell, where in it. Then, once some groups are there, each channel
//! goes over them with its 14 sums in registers; taking both channels of a group at once would keep them in memory.
//! The loops over lanes hold nothing but arithmetic, so that the compiler turns each into vector instructions.

use std::ops::Range;

use super::{Line, Sweep};
use crate::ops::affine_dice;
use crate::ops::conv3d::cpu::lanes::Lanes;

/// Voxels a group.
pub(super) const LANES: usize = 8;
/// Groups that are landed before they are added up.
const GROUPS: usize = 16;

type Floats = [f64; LANES];

/// a * b + c, in one instruction where there is one.
#[inline(always)]
fn fma<V: Lanes>(a: f64, b: f64, c: f64) -> f64 {
    if V::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// a + t (b - a).
#[inline(always)]
fn mix<V: Lanes>(a: f64, b: f64, t: f64) -> f64 {
    fma::<V>(t, b - a, a)
}

/// Of one channel, a lane each: p, p g, and per axis the gradient of p and that times x, over all voxels and over the
/// fixed mask.
#[derive(Clone, Copy)]
pub(super) struct ChannelSums {
    p: Floats,
    intersection: Floats,
    all: [[Floats; 2]; 3],
    within: [[Floats; 2]; 3],
}

impl ChannelSums {
    #[inline(always)]
    pub(super) fn zero() -> Self {
        let zero = [[[0.0; LANES]; 2]; 3];
        Self { p: [0.0; LANES], intersection: [0.0; LANES], all: zero, within: zero }
    }

    /// Adds the lanes up, in their order, and what was summed along the row at (y, z) to the sums of the sweep.
    #[inline(always)]
    pub(super) fn finish(&self, [y, z]: [f64; 2], sum: &mut affine_dice::ChannelSums) {
        sum.p += total(&self.p);
        sum.intersection += total(&self.intersection);
        for (slopes, out) in [(&self.all, &mut sum.all), (&self.within, &mut sum.within)] {
            for (slope, out) in slopes.iter().zip(out) {
                let (all, by_x) = (total(&slope[0]), total(&slope[1]));
                for (out, term) in out.iter_mut().zip([by_x, all * y, all * z, all]) {
                    *out += term;
                }
            }
        }
    }
}

/// By halves, which vector registers do at once.
#[inline(always)]
fn total(lanes: &Floats) -> f64 {
    let four: [f64; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Where the voxels of a group land.
#[derive(Clone, Copy)]
struct Group {
    /// The code of the cell each is in; 0 outside the cells.
    codes: [u32; LANES],
    labels: [u8; LANES],
    x: Floats,
    /// Where in its cell, 0 to 1.
    fraction: [Floats; 3],
    /// 1, or 0 where border padding holds the coordinate.
    free: [Floats; 3],
}

/// Groups of one row that are not added up yet.
pub(super) struct Chunk {
    groups: [Group; GROUPS],
    filled: usize,
}

impl Chunk {
    #[inline(always)]
    pub(super) fn new() -> Self {
        let zero = [[0.0; LANES]; 3];
        let group = Group { codes: [0; LANES], labels: [0; LANES], x: zero[0], fraction: zero, free: zero };
        Self { groups: [group; GROUPS], filled: 0 }
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.filled == GROUPS
    }

    /// Puts down the voxels of a row, [`LANES`] at most; not kept where none is in a cell with anything in it.
    #[inline(always)]
    pub(super) fn land<V: Lanes, const BORDER: bool>(
        &mut self,
        sweep: &Sweep<'_>,
        line: &Line<'_>,
        voxels: Range<usize>,
    ) {
        let [low, high] = sweep.limits.clamp;
        let (first, count) = (voxels.start as f64, voxels.len() as f64);
        let x: Floats = std::array::from_fn(|i| first + i as f64);
        // 1 inside the cells, else 0. (`&` and selects throughout: a branch would keep a loop from becoming vectors.)
        let mut inside: Floats = std::array::from_fn(|i| if (i as f64) < count { 1.0 } else { 0.0 });
        // Cell numbers are whole and far below 2^53.
        let mut at = [0.0; LANES];
        let (mut fraction, mut free) = ([[0.0; LANES]; 3], [[1.0; LANES]; 3]);
        for r in [2, 1, 0] {
            let (start, step, count) = (line.start[r], line.step[r], sweep.cells.counts[r] as f64);
            for i in 0..LANES {
                let mut u = start + step * x[i];
                if BORDER {
                    free[r][i] = if (u > low[r]) & (u < high[r]) { 1.0 } else { 0.0 };
                    u = if u > low[r] { u } else { low[r] };
                    u = if u < high[r] { u } else { high[r] };
                }
                // NaN is not inside.
                let here = (u >= 0.0) & (u < count);
                inside[i] = if here { inside[i] } else { 0.0 };
                u = if here { u } else { 0.0 };
                let cell = if V::FUSED { u.floor() } else { u as i64 as f64 };
                at[i] = fma::<V>(at[i], count, cell);
                fraction[r][i] = u - cell;
            }
        }
        let group = &mut self.groups[self.filled];
        (group.x, group.fraction, group.free) = (x, fraction, free);
        let codes = &sweep.cells.codes;
        group.codes = std::array::from_fn(|i| u32::from(codes[at[i] as usize]) * inside[i] as u32);
        group.labels[..voxels.len()].copy_from_slice(&line.labels[voxels]);
        self.filled += usize::from(group.codes.iter().fold(0, |all, code| all | code) != 0);
    }

    /// Adds both channels of what was landed to the sums of the row.
    #[inline(always)]
    pub(super) fn add_to<V: Lanes>(&mut self, row: &mut [ChannelSums; 2]) {
        let groups = &self.groups[..self.filled];
        for (channel, sums) in row.iter_mut().enumerate() {
            let mut own = *sums;
            for group in groups {
                add::<V>(group, channel, &mut own);
            }
            *sums = own;
        }
        self.filled = 0;
    }
}

#[inline(always)]
fn add<V: Lanes>(group: &Group, channel: usize, sum: &mut ChannelSums) {
    let least = 2 - channel as u8;
    for i in 0..LANES {
        let inside = if group.labels[i] >= least && group.labels[i] <= 2 { 1.0 } else { 0.0 };
        let bits = group.codes[i] >> (8 * channel);
        let [fx, fy, fz] = [group.fraction[0][i], group.fraction[1][i], group.fraction[2][i]];
        let corner = |k: u32| f64::from((bits >> k & 1) as i32);
        // Lines along x at (y, z) = 00, 10, 01, 11, and their slopes.
        let (a, b, c, d) = (corner(0), corner(2), corner(4), corner(6));
        let (sa, sb, sc, sd) = (corner(1) - a, corner(3) - b, corner(5) - c, corner(7) - d);
        let (a, b, c, d) = (fma::<V>(fx, sa, a), fma::<V>(fx, sb, b), fma::<V>(fx, sc, c), fma::<V>(fx, sd, d));
        let (near, far) = (mix::<V>(a, b, fy), mix::<V>(c, d, fy));
        let p = mix::<V>(near, far, fz);
        let gradient = [
            group.free[0][i] * mix::<V>(mix::<V>(sa, sb, fy), mix::<V>(sc, sd, fy), fz),
            group.free[1][i] * mix::<V>(b - a, d - c, fz),
            group.free[2][i] * (far - near),
        ];
        sum.p[i] += p;
        sum.intersection[i] = fma::<V>(p, inside, sum.intersection[i]);
        for r in 0..3 {
            let (all, within) = (gradient[r], gradient[r] * inside);
            sum.all[r][0][i] += all;
            sum.all[r][1][i] = fma::<V>(all, group.x[i], sum.all[r][1][i]);
            sum.within[r][0][i] += within;
            sum.within[r][1][i] = fma::<V>(within, group.x[i], sum.within[r][1][i]);
        }
    }
}
