//! Neighbouring voxels at once, a lane each, in f64: f32 would be faster still, but the iterations would part from
//! PyTorch's by 1e-5 instead of 1e-10.
//!
//! Groups of [`LANES`] voxels are first landed: which cell, where in it. Then, once some groups are there, each channel
//! goes over them with its 14 sums in registers; taking all channels of a group at once would keep them in memory.
//!
//! In a cell p is a polynomial whose coefficients are small whole numbers that its corners decide. On each of the
//! cell's two planes of z it has four, and from them come p and its slopes by 8 multiplications and additions for both
//! planes and 6 between them.

use std::ops::Range;

use super::doubles::{Doubles, LANES, Plane};
use super::{Line, Sweep};
use crate::ops::affine_dice;

/// Groups that are landed before they are added up.
const GROUPS: usize = 16;

/// Of one channel, a lane each: p, p g, and per axis the gradient of p and that times x, over all voxels and over the
/// fixed mask.
#[derive(Clone, Copy)]
pub(super) struct Sums<D> {
    p: D,
    intersection: D,
    all: [[D; 2]; 3],
    within: [[D; 2]; 3],
}

impl<D: Doubles> Sums<D> {
    /// # Safety
    /// As all of `D`.
    #[inline(always)]
    pub(super) unsafe fn zero() -> Self {
        // SAFETY: the caller's promise.
        let zero = unsafe { D::splat(0.0) };
        Self { p: zero, intersection: zero, all: [[zero; 2]; 3], within: [[zero; 2]; 3] }
    }

    /// Adds the lanes up, in their order, and what was summed along the row at (y, z) to the sums of the sweep.
    ///
    /// # Safety
    /// As all of `D`.
    #[inline(always)]
    pub(super) unsafe fn finish(&self, [y, z]: [f64; 2], sum: &mut affine_dice::ChannelSums) {
        // SAFETY: the caller's promise.
        unsafe {
            sum.p += self.p.total();
            sum.intersection += self.intersection.total();
        }
        for (slopes, out) in [(&self.all, &mut sum.all), (&self.within, &mut sum.within)] {
            for (slope, out) in slopes.iter().zip(out) {
                // SAFETY: the caller's promise.
                let (all, by_x) = unsafe { (slope[0].total(), slope[1].total()) };
                for (out, term) in out.iter_mut().zip([by_x, all * y, all * z, all]) {
                    *out += term;
                }
            }
        }
    }
}

/// Where the voxels of a group land.
#[derive(Clone, Copy)]
struct Group<D: Doubles> {
    /// The code of the cell each is in; 0 outside the cells.
    codes: D::Codes,
    /// Which channels the fixed voxels are in.
    members: [u8; LANES],
    x: D,
    /// Where in its cell, 0 to 1.
    fraction: [D; 3],
    /// Where border padding leaves the coordinate alone.
    free: [D::Mask; 3],
}

/// Where a row lands, in every lane.
struct Track<D> {
    start: [D; 3],
    step: [D; 3],
    low: [D; 3],
    high: [D; 3],
    count: [D; 3],
    zero: D,
}

/// Groups of one row that are not added up yet.
pub(super) struct Chunk<D: Doubles> {
    track: Track<D>,
    groups: [Group<D>; GROUPS],
    filled: usize,
    /// Does border padding hold a coordinate in any of them?
    held: bool,
}

impl<D: Doubles> Chunk<D> {
    /// # Safety
    /// As all of `D`.
    #[inline(always)]
    pub(super) unsafe fn new(sweep: &Sweep<'_>, line: &Line<'_>) -> Self {
        let [low, high] = sweep.limits.clamp;
        let count = sweep.cells.counts.map(|n| n as f64);
        // SAFETY: the caller's promise.
        unsafe {
            let [start, step, low, high, count] =
                [splat_each(line.start), splat_each(line.step), splat_each(low), splat_each(high), splat_each(count)];
            let (zero, none) = (D::splat(0.0), D::first(0));
            let track = Track { start, step, low, high, count, zero };
            let group =
                Group { codes: D::no_codes(), members: [0; LANES], x: zero, fraction: [zero; 3], free: [none; 3] };
            Self { track, groups: [group; GROUPS], filled: 0, held: false }
        }
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.filled == GROUPS
    }

    /// Puts down the voxels of a row, [`LANES`] at most; not kept where none is inside the cells. Are all in cells of
    /// one code? `SURE`: there are [`LANES`], all inside the cells, none held by border padding.
    ///
    /// # Safety
    /// As all of `D`; what `SURE` says is so.
    #[inline(always)]
    pub(super) unsafe fn land<const BORDER: bool, const SURE: bool, const K: usize>(
        &mut self,
        sweep: &Sweep<'_>,
        line: &Line<'_>,
        voxels: Range<usize>,
    ) -> bool {
        // SAFETY: the caller's promise; cells are gathered where the position is inside their grid.
        unsafe {
            let track = &self.track;
            let x = D::splat(voxels.start as f64).add(D::ramp());
            let mut inside = D::first(if SURE { LANES } else { voxels.len() });
            // Cell numbers are whole and far below 2^53.
            let mut at = track.zero;
            let group = &mut self.groups[self.filled];
            let mut held = false;
            for r in [2, 1, 0] {
                let mut u = track.step[r].mul_add(x, track.start[r]);
                let mut free = D::first(LANES);
                if !SURE {
                    if BORDER {
                        free = u.between(track.low[r], track.high[r], false, free);
                        held |= !D::all(free);
                        u = u.clamp(track.low[r], track.high[r]);
                    }
                    inside = u.between(track.zero, track.count[r], true, inside);
                    // Outside, anything finite will do.
                    u = u.keep(inside);
                }
                let cell = u.floor();
                at = if r == 2 { cell } else { at.mul_add(track.count[r], cell) };
                group.fraction[r] = u.sub(cell);
                group.free[r] = free;
            }
            // Where a coordinate was already outside, the others of its lane count for nothing.
            if !SURE {
                at = at.keep(inside);
            }
            let codes = if K <= 2 {
                D::gather::<1>(sweep.cells.codes(), at, inside)
            } else {
                D::gather::<2>(sweep.cells.codes(), at, inside)
            };
            (group.codes, group.x) = (codes, x);
            if let Some(members) = line.members.get(voxels.start..voxels.start + LANES) {
                group.members.copy_from_slice(members);
            } else {
                group.members[..voxels.len()].copy_from_slice(&line.members[voxels]);
            }
            let common = D::common(codes, super::cells::code_bits(K));
            if common != Some(0) {
                self.filled += 1;
                self.held |= held;
            }
            common.is_some()
        }
    }

    /// Adds the channels of what was landed to the sums of the row.
    ///
    /// # Safety
    /// As all of `D`.
    #[inline(always)]
    pub(super) unsafe fn add_to<const K: usize>(&mut self, row: &mut [Sums<D>; K]) {
        let groups = &self.groups[..self.filled];
        // SAFETY: the caller's promise.
        unsafe {
            if self.held {
                add_all::<D, true, K>(groups, row);
            } else {
                add_all::<D, false, K>(groups, row);
            }
        }
        (self.filled, self.held) = (0, false);
    }
}

/// # Safety
/// As all of `D`.
#[inline(always)]
unsafe fn splat_each<D: Doubles>([a, b, c]: [f64; 3]) -> [D; 3] {
    // SAFETY: the caller's promise.
    unsafe { [D::splat(a), D::splat(b), D::splat(c)] }
}

/// # Safety
/// As all of `D`.
#[inline(always)]
unsafe fn add_all<D: Doubles, const HELD: bool, const K: usize>(groups: &[Group<D>], row: &mut [Sums<D>; K]) {
    // A channel at a time, its number known to the compiler.
    // SAFETY: the caller's promise.
    unsafe {
        row[0] = add::<D, HELD, 0>(groups, row[0]);
        if K > 1 {
            row[1] = add::<D, HELD, 1>(groups, row[1]);
        }
        if K > 2 {
            row[2] = add::<D, HELD, 2>(groups, row[2]);
        }
        if K > 3 {
            row[3] = add::<D, HELD, 3>(groups, row[3]);
        }
    }
}

/// p and its slopes along x and y on one of the cell's planes.
///
/// # Safety
/// As all of `D`. (A function, not a closure: what has no `inline(always)` is compiled without the instructions of
/// `D`.)
#[inline(always)]
unsafe fn on_plane<D: Doubles>([constant, x, y, xy]: Plane<D>, fx: D, fy: D) -> [D; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        let along_y = xy.mul_add(fx, y);
        [fy.mul_add(along_y, fx.mul_add(x, constant)), xy.mul_add(fy, x), along_y]
    }
}

/// # Safety
/// As all of `D`.
#[inline(always)]
unsafe fn add<D: Doubles, const HELD: bool, const CHANNEL: usize>(groups: &[Group<D>], sums: Sums<D>) -> Sums<D> {
    let Sums { mut p, mut intersection, all: [[mut ax, mut axx], [mut ay, mut ayx], [mut az, mut azx]], .. } = sums;
    let [[mut wx, mut wxx], [mut wy, mut wyx], [mut wz, mut wzx]] = sums.within;
    for group in groups {
        // SAFETY: the caller's promise.
        unsafe {
            let fixed = D::with_bit(&group.members, CHANNEL);
            let [fx, fy, fz] = group.fraction;
            let shift = 8 * CHANNEL as u32;
            let [near, near_x, near_y] = on_plane(D::plane(group.codes, shift), fx, fy);
            let [far, far_x, far_y] = on_plane(D::plane(group.codes, shift + 4), fx, fy);
            let mut by_z = far.sub(near);
            let value = fz.mul_add(by_z, near);
            let mut by_x = fz.mul_add(far_x.sub(near_x), near_x);
            let mut by_y = fz.mul_add(far_y.sub(near_y), near_y);
            if HELD {
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
    }
    Sums { p, intersection, all: [[ax, axx], [ay, ayx], [az, azx]], within: [[wx, wxx], [wy, wyx], [wz, wzx]] }
}
