//! The pass over the masks on the CPU. Bricks of cells that are all empty or all inside are crossed in one step, the rest in groups of
//! [`F64_LANES`] voxels. Blocks of rows run in parallel and are added in a fixed order, so that the result does not depend on the number of
//! threads.

mod batch;
mod cells;

use rayon::prelude::*;

use super::geometry::Limits;
use super::{ChannelSums, Matrix};
use crate::ops::grid_sample::PaddingMode;
use crate::ops::simd::{F64_LANES, Isa, Kernel, Simd};
use batch::{Batch, Sums};
use cells::{BRICK, MIXED};
pub(super) use cells::{Cells, members, stats};

/// Number of rows of a task.
const ROWS: usize = 16;

/// The input of a pass; its matrix maps to cells.
pub(super) struct Sweep<'a> {
    /// The channel memberships of each voxel of the fixed mask.
    pub fixed: &'a [u8],
    /// The size of the fixed grid, (x, y, z).
    pub size: [usize; 3],
    pub cells: &'a Cells,
    pub limits: Limits,
}

/// The rows of one task.
struct Block<'a, const BORDER: bool, const K: usize> {
    sweep: &'a Sweep<'a>,
    matrix: &'a Matrix,
    rows: std::ops::Range<usize>,
    sums: &'a mut Option<[ChannelSums; K]>,
}

impl<const BORDER: bool, const K: usize> Kernel for Block<'_, BORDER, K> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { sweep, matrix, rows, sums } = self;
        let [width, height, _] = sweep.size;
        for row in rows {
            let (y, z) = (row % height, row / height);
            let start = matrix.map(|m| m[1] * y as f64 + m[2] * z as f64 + m[3]);
            let range = sweep.range(matrix, start);
            if !range.is_empty() {
                let line = Line { start, step: matrix.map(|m| m[0]), members: &sweep.fixed[row * width..][..width] };
                let sums = sums.get_or_insert([ChannelSums::default(); K]);
                let at = [y as f64, z as f64];
                // The number of words of a code follows from the channels, which the compiler cannot see.
                if K <= 2 {
                    sweep.row::<S, BORDER, K, 1>(simd, &line, range, at, sums);
                } else {
                    sweep.row::<S, BORDER, K, 2>(simd, &line, range, at, sums);
                }
            }
        }
    }
}

/// A row of the fixed grid: the positions at which its voxels sample the moving mask, and their channel memberships.
struct Line<'a> {
    /// The position of voxel 0, in cells.
    start: [f64; 3],
    /// The step from voxel to voxel, in cells.
    step: [f64; 3],
    members: &'a [u8],
}

impl Sweep<'_> {
    /// The sums of `channels` channels, except G.
    pub(super) fn run(&self, channels: usize, padding: PaddingMode, matrix: &Matrix) -> Vec<ChannelSums> {
        match padding {
            PaddingMode::Border => self.padded::<true>(channels, matrix),
            PaddingMode::Zeros => self.padded::<false>(channels, matrix),
        }
    }

    fn padded<const BORDER: bool>(&self, channels: usize, matrix: &Matrix) -> Vec<ChannelSums> {
        let isa = Isa::widest();
        match channels {
            1 => self.sums::<BORDER, 1>(isa, matrix).into(),
            2 => self.sums::<BORDER, 2>(isa, matrix).into(),
            3 => self.sums::<BORDER, 3>(isa, matrix).into(),
            _ => self.sums::<BORDER, 4>(isa, matrix).into(),
        }
    }

    fn sums<const BORDER: bool, const K: usize>(&self, isa: Isa, matrix: &Matrix) -> [ChannelSums; K] {
        let [_, h, d] = self.size;
        let blocks: Vec<_> = (0..(h * d).div_ceil(ROWS))
            .into_par_iter()
            .map(|block| {
                let mut sums = None;
                let rows = block * ROWS..((block + 1) * ROWS).min(h * d);
                isa.run(Block::<BORDER, K> { sweep: self, matrix, rows, sums: &mut sums });
                sums
            })
            .collect();
        let mut total = [ChannelSums::default(); K];
        for block in blocks.iter().flatten() {
            for (total, block) in total.iter_mut().zip(block) {
                total.add(block);
            }
        }
        total
    }

    /// The voxels of a row that can contribute, with one more on either side so that rounding drops none.
    fn range(&self, matrix: &Matrix, start: [f64; 3]) -> std::ops::Range<usize> {
        let (mut low, mut high) = (0.0f64, self.size[0] as f64);
        for r in 0..3 {
            let (step, reach) = (matrix[r][0], [self.limits.reach[0][r], self.limits.reach[1][r]]);
            // A step this small does not leave the cell within a row.
            if step.abs() * high < 1e-3 {
                if start[r] < reach[0] - 1.0 || start[r] > reach[1] + 1.0 {
                    return 0..0;
                }
                continue;
            }
            let ends = reach.map(|u| (u - start[r]) / step);
            low = low.max(ends[0].min(ends[1]) - 1.0);
            high = high.min(ends[0].max(ends[1]) + 2.0);
        }
        if low < high { low as usize..high as usize } else { 0..0 }
    }

    /// The voxels of `range` that need no test of bounds or padding: those that are surely inside the cells and not clamped by border
    /// padding.
    fn interior<const BORDER: bool>(&self, line: &Line<'_>, range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let (mut first, mut last) = (range.start as f64, range.end as f64 - 1.0);
        let mut limits = [[0.0; 2]; 3];
        for (r, limits) in limits.iter_mut().enumerate() {
            *limits = [0.0, self.cells.counts[r] as f64];
            if BORDER {
                let [low, high] = self.limits.clamp;
                *limits = [limits[0].max(low[r]), limits[1].min(high[r])];
            }
            let (start, step) = (line.start[r], line.step[r]);
            if step != 0.0 {
                let ends = limits.map(|u| (u - start) / step);
                // One voxel less on either side, for rounding.
                first = first.max(ends[0].min(ends[1]) + 1.0);
                last = last.min(ends[0].max(ends[1]) - 1.0);
            }
        }
        // Positions are monotonic along the row, with any rounding: a bound that holds at both ends holds between them.
        let holds = |x: f64| {
            (0..3).all(|r| {
                let (start, step, [low, high]) = (line.start[r], line.step[r], limits[r]);
                [step * x + start, step.mul_add(x, start)].iter().all(|u| *u > low && *u < high)
            })
        };
        let (first, last) = (first.ceil(), last.floor());
        if first <= last && holds(first) && holds(last) { first as usize..last as usize + 1 } else { 0..0 }
    }

    /// Adds the voxels `range` of the row at (y, z) to `sums`.
    #[inline(always)]
    fn row<S: Simd, const BORDER: bool, const K: usize, const WORDS: usize>(
        &self,
        simd: S,
        line: &Line<'_>,
        range: std::ops::Range<usize>,
        [y, z]: [f64; 2],
        sums: &mut [ChannelSums; K],
    ) {
        // The numbers of voxels that are crossed in one step: of all, and of those in the fixed mask.
        let mut constant = [[0usize; 2]; K];
        let (codes, bits) = (self.cells.codes::<WORDS>(), cells::code_bits(K));
        let (mut batch, mut row) = (Batch::new(simd, self, line), [Sums::zero(simd); K]);
        let interior = self.interior::<BORDER>(line, &range);
        let mut next = range.start;
        // Looking up a brick takes a third of the time of sampling a group, so it is done only where the last cells were all the
        // same.
        let mut try_uniform_brick = true;
        while next < range.end {
            let x = next;
            if try_uniform_brick && let Some((inside, steps)) = self.uniform::<BORDER>(line, x) {
                next = (x + 1).saturating_add(steps).min(range.end);
                for (channel, constant) in constant.iter_mut().enumerate() {
                    if inside >> channel & 1 == 1 {
                        constant[0] += next - x;
                        constant[1] += line.members[x..next].iter().filter(|&&m| m >> channel & 1 == 1).count();
                    }
                }
                continue;
            }
            next = (x + F64_LANES).min(range.end);
            try_uniform_brick = if interior.start <= x && x + F64_LANES <= interior.end {
                batch.sample_group::<BORDER, true, WORDS>(codes, bits, line, x..next)
            } else {
                batch.sample_group::<BORDER, false, WORDS>(codes, bits, line, x..next)
            };
            if batch.is_full() {
                batch.add_to(&mut row);
            }
        }
        batch.add_to(&mut row);
        for ((sum, row), constant) in sums.iter_mut().zip(&row).zip(constant) {
            sum.p += constant[0] as f64;
            sum.intersection += constant[1] as f64;
            row.finish([y, z], sum);
        }
    }

    /// Where voxel `x` samples a brick whose cells are all inside or all outside of each channel: the channels that contain it, and the number
    /// of following voxels that surely sample that brick too.
    #[inline(always)]
    fn uniform<const BORDER: bool>(&self, line: &Line<'_>, x: usize) -> Option<(u8, usize)> {
        let [bx, by, _] = self.cells.brick_counts;
        let [low, high] = self.limits.clamp;
        let u: [f64; 3] = std::array::from_fn(|r| line.start[r] + line.step[r] * x as f64);
        // This form, unlike `u < 0`, also rejects NaN.
        let inside = (0..3).all(|r| u[r] >= 0.0 && u[r] < self.cells.counts[r] as f64);
        let clamped = BORDER && !(0..3).all(|r| u[r] > low[r] && u[r] < high[r]);
        if !inside || clamped {
            return None;
        }
        let brick = u.map(|u| u as usize / BRICK);
        let code = self.cells.bricks[(brick[2] * by + brick[1]) * bx + brick[0]];
        (code != MIXED).then(|| (code, further(u, line.step, brick)))
    }
}

/// Number of further steps from `u` that surely stay within its brick.
fn further(u: [f64; 3], step: [f64; 3], brick: [usize; 3]) -> usize {
    let mut steps = f64::INFINITY;
    for r in (0..3).filter(|&r| step[r] != 0.0) {
        let edge = (brick[r] * BRICK) as f64 + if step[r] > 0.0 { BRICK as f64 } else { 0.0 };
        steps = steps.min((edge - u[r]) / step[r]);
    }
    // Slightly less, so that rounding does not take one step too many.
    (steps - 1e-6) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::affine_dice::Bounds;

    /// Maps that keep neighbours in a row of cells, separate them, reverse them, and leave the grid. No position is on a face of a cell, where
    /// rounding determines the derivative.
    const MATRICES: [Matrix; 4] = [
        [[1.0213, 0.0117, 0.0003, -0.3171], [-0.0419, 0.9787, 0.0231, 0.7193], [0.0007, 0.0313, 1.0139, 0.2111]],
        [[0.4127, 0.7019, -0.3221, 2.1333], [0.5171, -0.6133, 0.4271, 9.3177], [0.3019, 0.2293, 0.9241, -1.7337]],
        [[-1.1093, 0.0211, 0.0001, 33.4219], [0.0133, -0.9173, 0.1021, 12.3391], [0.0009, 0.1103, 1.0027, 0.1357]],
        [[5.3119, 0.1013, 0.0017, -40.2331], [0.2111, 1.3127, 0.0019, -2.0171], [0.0023, 0.0011, 0.2173, 3.3129]],
    ];

    fn sweep<const BORDER: bool, const K: usize>(isa: Isa, matrix: &Matrix) -> [ChannelSums; K] {
        // Random labels in one half, one channel everywhere in a quarter, no labels in the rest.
        let mask = |[w, h, d]: [usize; 3], salt: usize| -> Vec<u8> {
            let member = |i: usize| {
                let noise = (i + salt).wrapping_mul(2_654_435_761) >> 7 & 0xf;
                if i < w * h * d / 2 { noise as u8 } else { u8::from(i < w * h * d * 3 / 4) }
            };
            (0..w * h * d).map(|i| member(i) & (0xf >> (4 - K))).collect()
        };
        let (size, moving_size) = ([37, 14, 25], [35, 13, 27]);
        let (fixed, moving) = (mask(size, 1), mask(moving_size, 77));
        let bounds: Bounds = stats(&moving, moving_size).bounds.expect("something in it");
        let cells = Cells::new(&moving, moving_size, &bounds, K);
        let padding = if BORDER { PaddingMode::Border } else { PaddingMode::Zeros };
        let limits = Limits::new(&bounds, moving_size, padding);
        Sweep { fixed: &fixed, size, cells: &cells, limits }.sums::<BORDER, K>(isa, matrix)
    }

    fn agree<const BORDER: bool, const K: usize>() {
        for matrix in &MATRICES {
            let plain = Isa::available().last().expect("plain code runs anywhere");
            if plain == Isa::widest() {
                eprintln!("SKIPPED: only plain code runs here, there is nothing to compare it with");
            }
            let want: [ChannelSums; K] = sweep::<BORDER, K>(plain, matrix);
            assert!(want.iter().any(|sums| sums.p > 10.0), "{want:?}");
            for isa in Isa::available() {
                let got: [ChannelSums; K] = sweep::<BORDER, K>(isa, matrix);
                for (got, want) in got.iter().zip(&want) {
                    let values = |s: &ChannelSums| {
                        let sums = s.all.as_flattened().iter().chain(s.within.as_flattened());
                        [s.p, s.intersection].into_iter().chain(sums.copied()).collect::<Vec<f64>>()
                    };
                    for (a, b) in values(got).iter().zip(values(want)) {
                        // 12950 voxels at up to 36, slopes of 1 at most: sums up to 4.7e5, added up in an order of
                        // their own by each set. A rounding of such a sum is 5.8e-11 at most. A term meets about 50 on
                        // its way (5 groups and 8 lanes of a row, 16 rows, 22 blocks), but of sums that have grown that
                        // far hardly 20: 1e-9.
                        assert!((a - b).abs() < 1e-9, "{isa:?} {K} {BORDER} {matrix:?}: {a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_sums_alike() {
        agree::<true, 1>();
        agree::<true, 2>();
        agree::<false, 2>();
        agree::<true, 3>();
        agree::<false, 4>();
    }
}
