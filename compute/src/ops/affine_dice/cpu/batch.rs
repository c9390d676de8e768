//! Eight neighbouring voxels of a row at once, one per lane, in f64: f32 would be faster still, but the iterations would
//! differ from PyTorch's by 1e-5 instead of 1e-10.
//!
//! For each group of [`F64_LANES`] voxels, the cell of the moving mask and the position inside it are computed first. Once a batch of groups
//! is full, each channel is summed over it with its 14 sums in registers; all channels of one group at a time would need more sums than
//! there are registers.
//!
//! Inside a cell p is a trilinear polynomial whose coefficients are small whole numbers, fixed by its corner bits. Each of
//! the cell's two z planes gives four; p and its gradient then take 8 multiply-adds for both planes and 6 between them.

use std::ops::Range;

use super::{Line, Sweep};
use crate::ops::affine_dice;
use crate::ops::simd::{BitCodes, CodeTable, F64_LANES, F64Vector, Simd};

/// Number of groups in a batch.
const GROUPS: usize = 16;

type Mask<V> = <V as F64Vector>::Mask;

/// The sums of one channel along a row, one per lane: p, p g, and per axis the gradient of p and the gradient times x,
/// over all voxels and over the fixed mask.
#[derive(Clone, Copy)]
pub(super) struct Sums<V> {
    p: V,
    intersection: V,
    all: [[V; 2]; 3],
    within: [[V; 2]; 3],
}

impl<V: F64Vector> Sums<V> {
    #[inline(always)]
    pub(super) fn zero(simd: impl Simd<F64 = V>) -> Self {
        let zero = simd.splat_f64(0.0);
        Self { p: zero, intersection: zero, all: [[zero; 2]; 3], within: [[zero; 2]; 3] }
    }

    /// Adds the lanes, in a fixed order, to the sums of the pass; the row is at (y, z).
    #[inline(always)]
    pub(super) fn finish(&self, [y, z]: [f64; 2], sum: &mut affine_dice::ChannelSums) {
        sum.p += self.p.total();
        sum.intersection += self.intersection.total();
        for (slopes, out) in [(&self.all, &mut sum.all), (&self.within, &mut sum.within)] {
            for (slope, out) in slopes.iter().zip(out) {
                let (all, by_x) = (slope[0].total(), slope[1].total());
                for (out, term) in out.iter_mut().zip([by_x, all * y, all * z, all]) {
                    *out += term;
                }
            }
        }
    }
}

/// The positions at which the voxels of a group sample the moving mask.
#[derive(Clone, Copy)]
struct Group<V: F64Vector> {
    /// The code of each voxel's cell; 0 outside the cells.
    codes: V::Codes,
    /// The channel memberships of the fixed voxels.
    members: [u8; F64_LANES],
    x: V,
    /// The position inside the cell, 0 to 1 along each axis.
    fraction: [V; 3],
    /// The lanes whose coordinate border padding does not clamp, per axis.
    free: [V::Mask; 3],
}

/// The row's sampling positions and the limits of the moving grid, in every lane.
struct Track<V> {
    start: [V; 3],
    step: [V; 3],
    low: [V; 3],
    high: [V; 3],
    count: [V; 3],
    zero: V,
}

/// The groups of one row that were sampled and are not yet summed.
pub(super) struct Batch<S: Simd> {
    simd: S,
    track: Track<S::F64>,
    groups: [Group<S::F64>; GROUPS],
    filled: usize,
    /// Whether border padding clamps a coordinate in any of the groups.
    clamped: bool,
}

impl<S: Simd> Batch<S> {
    #[inline(always)]
    pub(super) fn new(simd: S, sweep: &Sweep<'_>, line: &Line<'_>) -> Self {
        let [low, high] = sweep.limits.clamp;
        let count = sweep.cells.counts.map(|n| n as f64);
        let (start, step) = (splat_each(simd, line.start), splat_each(simd, line.step));
        let [low, high, count] = [splat_each(simd, low), splat_each(simd, high), splat_each(simd, count)];
        let zero = simd.splat_f64(0.0);
        let track = Track { start, step, low, high, count, zero };
        let none = simd.first_lanes(0);
        let group =
            Group { codes: simd.zero_codes(), members: [0; F64_LANES], x: zero, fraction: [zero; 3], free: [none; 3] };
        Self { simd, track, groups: [group; GROUPS], filled: 0, clamped: false }
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.filled == GROUPS
    }

    /// Samples up to [`F64_LANES`] consecutive voxels of the row; a group that misses the mask is dropped. Returns whether
    /// all lanes have the same cell code. With `INTERIOR` there must be [`F64_LANES`] voxels that need no test of bounds or padding;
    /// otherwise the look-up of the codes panics or the sums are wrong.
    #[inline(always)]
    pub(super) fn sample_group<const BORDER: bool, const INTERIOR: bool, const WORDS: usize>(
        &mut self,
        codes: CodeTable<'_, WORDS>,
        bits: u32,
        line: &Line<'_>,
        voxels: Range<usize>,
    ) -> bool {
        let (simd, track) = (self.simd, &self.track);
        let x = simd.splat_f64(voxels.start as f64).add(simd.ramp());
        let mut inside = simd.first_lanes(if INTERIOR { F64_LANES } else { voxels.len() });
        // The cell's number in its table: a whole number far below 2^53.
        let mut at = track.zero;
        let group = &mut self.groups[self.filled];
        let mut clamped = false;
        for r in [2, 1, 0] {
            let mut u = track.step[r].mul_add(x, track.start[r]);
            let mut free = simd.first_lanes(F64_LANES);
            if !INTERIOR {
                if BORDER {
                    free = u.between(track.low[r], track.high[r], false, free);
                    clamped |= !S::F64::all(free);
                    u = u.clamp(track.low[r], track.high[r]);
                }
                inside = u.between(track.zero, track.count[r], true, inside);
                // Outside the cells any finite value is correct.
                u = u.keep(inside);
            }
            let cell = u.floor();
            at = if r == 2 { cell } else { at.mul_add(track.count[r], cell) };
            group.fraction[r] = u.sub(cell);
            group.free[r] = free;
        }
        // A lane that is outside along one axis was counted for the axes before.
        if !INTERIOR {
            at = at.keep(inside);
        }
        let codes = simd.look_up(codes, at, inside);
        (group.codes, group.x) = (codes, x);
        if let Some(members) = line.members.get(voxels.start..voxels.start + F64_LANES) {
            group.members.copy_from_slice(members);
        } else {
            group.members[..voxels.len()].copy_from_slice(&line.members[voxels]);
        }
        let common = codes.common(bits);
        if common != Some(0) {
            self.filled += 1;
            self.clamped |= clamped;
        }
        common.is_some()
    }

    /// Adds the batch to the sums of the row, channel after channel, and empties it.
    #[inline(always)]
    pub(super) fn add_to<const K: usize>(&mut self, row: &mut [Sums<S::F64>; K]) {
        let groups = &self.groups[..self.filled];
        if self.clamped {
            add_all::<S, true, K>(self.simd, groups, row);
        } else {
            add_all::<S, false, K>(self.simd, groups, row);
        }
        (self.filled, self.clamped) = (0, false);
    }
}

#[inline(always)]
fn splat_each<S: Simd>(simd: S, [a, b, c]: [f64; 3]) -> [S::F64; 3] {
    [simd.splat_f64(a), simd.splat_f64(b), simd.splat_f64(c)]
}

#[inline(always)]
fn add_all<S: Simd, const CLAMPED: bool, const K: usize>(
    simd: S,
    groups: &[Group<S::F64>],
    row: &mut [Sums<S::F64>; K],
) {
    // Written out, so that each channel's number is known at compile time.
    row[0] = add::<S, CLAMPED, 0>(simd, groups, row[0]);
    if K > 1 {
        row[1] = add::<S, CLAMPED, 1>(simd, groups, row[1]);
    }
    if K > 2 {
        row[2] = add::<S, CLAMPED, 2>(simd, groups, row[2]);
    }
    if K > 3 {
        row[3] = add::<S, CLAMPED, 3>(simd, groups, row[3]);
    }
}

/// p and its derivatives along x and y on one z plane of the cell. (It is a function and not a closure, see the `simd` module.)
#[inline(always)]
fn on_plane<V: F64Vector>([constant, x, y, xy]: [V; 4], fx: V, fy: V) -> [V; 3] {
    let along_y = xy.mul_add(fx, y);
    [fy.mul_add(along_y, fx.mul_add(x, constant)), xy.mul_add(fy, x), along_y]
}

/// `sums` with the voxels of `groups` added.
#[inline(always)]
fn add<S: Simd, const CLAMPED: bool, const CHANNEL: usize>(
    simd: S,
    groups: &[Group<S::F64>],
    sums: Sums<S::F64>,
) -> Sums<S::F64> {
    let Sums { mut p, mut intersection, all: [[mut ax, mut axx], [mut ay, mut ayx], [mut az, mut azx]], .. } = sums;
    let [[mut wx, mut wxx], [mut wy, mut wyx], [mut wz, mut wzx]] = sums.within;
    for group in groups {
        let fixed: Mask<S::F64> = simd.lanes_with_bit(&group.members, CHANNEL);
        let [fx, fy, fz] = group.fraction;
        let shift = 8 * CHANNEL as u32;
        let [near, near_x, near_y] = on_plane(group.codes.bilinear(shift), fx, fy);
        let [far, far_x, far_y] = on_plane(group.codes.bilinear(shift + 4), fx, fy);
        let mut by_z = far.sub(near);
        let value = fz.mul_add(by_z, near);
        let mut by_x = fz.mul_add(far_x.sub(near_x), near_x);
        let mut by_y = fz.mul_add(far_y.sub(near_y), near_y);
        if CLAMPED {
            (by_x, by_y, by_z) = (by_x.keep(group.free[0]), by_y.keep(group.free[1]), by_z.keep(group.free[2]));
        }
        p = p.add(value);
        intersection = intersection.add_where(fixed, value);
        (ax, axx) = (ax.add(by_x), by_x.mul_add(group.x, axx));
        (ay, ayx) = (ay.add(by_y), by_y.mul_add(group.x, ayx));
        (az, azx) = (az.add(by_z), by_z.mul_add(group.x, azx));
        (wx, wxx) = (wx.add_where(fixed, by_x), wxx.add_product_where(fixed, by_x, group.x));
        (wy, wyx) = (wy.add_where(fixed, by_y), wyx.add_product_where(fixed, by_y, group.x));
        (wz, wzx) = (wz.add_where(fixed, by_z), wzx.add_product_where(fixed, by_z, group.x));
    }
    Sums { p, intersection, all: [[ax, axx], [ay, ayx], [az, azx]], within: [[wx, wxx], [wy, wyx], [wz, wzx]] }
}
