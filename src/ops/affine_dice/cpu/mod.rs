//! The sweep on the CPU. Bricks of cells that are all empty or all inside are crossed in one go, the rest
//! [`LANES`](chunk::LANES) voxels at once. Blocks of rows run in parallel and are added in their own order, so that the number of
//! threads does not change a bit.

mod cells;
mod chunk;

use rayon::prelude::*;

use super::geometry::Limits;
use super::{AffineDiceSums, Matrix};
use crate::ops::conv3d::cpu::lanes::{Isa, Lanes, Vectorised};
use cells::{BRICK, MIXED};
pub(super) use cells::{Cells, stats};
use chunk::{ChannelSums, Chunk, LANES};

/// Rows a task.
const ROWS: usize = 16;

/// What a sweep reads; its matrix maps to cells.
pub(super) struct Sweep<'a> {
    pub fixed: &'a [u8],
    /// (x, y, z).
    pub size: [usize; 3],
    pub cells: &'a Cells,
    pub limits: Limits,
}

/// Rows that one task sweeps.
struct Block<'a, const BORDER: bool> {
    sweep: &'a Sweep<'a>,
    matrix: &'a Matrix,
    rows: std::ops::Range<usize>,
    sums: &'a mut Option<AffineDiceSums>,
}

impl<const BORDER: bool> Vectorised for Block<'_, BORDER> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Self { sweep, matrix, rows, sums } = self;
        let [width, height, _] = sweep.size;
        for row in rows {
            let (y, z) = (row % height, row / height);
            let start = matrix.map(|m| m[1] * y as f64 + m[2] * z as f64 + m[3]);
            let range = sweep.range(matrix, start);
            if !range.is_empty() {
                let line = Line { start, step: matrix.map(|m| m[0]), labels: &sweep.fixed[row * width..][..width] };
                sweep.row::<V, BORDER>(&line, range, [y as f64, z as f64], sums.get_or_insert_default());
            }
        }
    }
}

/// A row of the fixed grid: where its voxels land, and their labels.
struct Line<'a> {
    /// Position of voxel 0, in cells.
    start: [f64; 3],
    /// From voxel to voxel.
    step: [f64; 3],
    labels: &'a [u8],
}

impl Sweep<'_> {
    /// The sums except G.
    pub(super) fn run<const BORDER: bool>(&self, matrix: &Matrix) -> AffineDiceSums {
        let [_, h, d] = self.size;
        let isa = Isa::widest();
        let blocks: Vec<_> = (0..(h * d).div_ceil(ROWS))
            .into_par_iter()
            .map(|block| {
                let mut sums = None;
                let rows = block * ROWS..((block + 1) * ROWS).min(h * d);
                isa.run(Block::<BORDER> { sweep: self, matrix, rows, sums: &mut sums });
                sums
            })
            .collect();
        let mut total = AffineDiceSums::default();
        for block in blocks.iter().flatten() {
            for (total, block) in total.0.iter_mut().zip(&block.0) {
                total.add(block);
            }
        }
        total
    }

    /// The voxels of a row that can contribute, one more on either side so that rounding loses none.
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

    #[inline(always)]
    fn row<V: Lanes, const BORDER: bool>(
        &self,
        line: &Line<'_>,
        range: std::ops::Range<usize>,
        [y, z]: [f64; 2],
        sums: &mut AffineDiceSums,
    ) {
        let mut constant = [[0usize; 2]; 2];
        let mut chunk = Chunk::new();
        let mut row = [ChannelSums::zero(); 2];
        let mut next = range.start;
        while next < range.end {
            let x = next;
            if let Some((code, steps)) = self.uniform::<BORDER>(line, x) {
                next = (x + 1).saturating_add(steps).min(range.end);
                for (channel, constant) in constant.iter_mut().enumerate() {
                    if code >> (8 * channel) & 0xff != 0 {
                        let inside = |label: &&u8| **label == 2 || (channel == 1 && **label == 1);
                        constant[0] += next - x;
                        constant[1] += line.labels[x..next].iter().filter(inside).count();
                    }
                }
                continue;
            }
            next = (x + LANES).min(range.end);
            chunk.land::<V, BORDER>(self, line, x..next);
            if chunk.is_full() {
                chunk.add_to::<V>(&mut row);
            }
        }
        chunk.add_to::<V>(&mut row);
        for ((sum, row), constant) in sums.0.iter_mut().zip(&row).zip(constant) {
            sum.p += constant[0] as f64;
            sum.intersection += constant[1] as f64;
            row.finish([y, z], sum);
        }
    }

    /// Where voxel `x` lies in a brick of cells of one code: that code, and how many more voxels surely do.
    #[inline(always)]
    fn uniform<const BORDER: bool>(&self, line: &Line<'_>, x: usize) -> Option<(u16, usize)> {
        let [bx, by, _] = self.cells.brick_counts;
        let [low, high] = self.limits.clamp;
        let u: [f64; 3] = std::array::from_fn(|r| line.start[r] + line.step[r] * x as f64);
        // Not `u < 0`, which NaN would pass.
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

/// How many more steps from `u` surely stay within its brick.
fn further(u: [f64; 3], step: [f64; 3], brick: [usize; 3]) -> usize {
    let mut steps = f64::INFINITY;
    for r in (0..3).filter(|&r| step[r] != 0.0) {
        let edge = (brick[r] * BRICK) as f64 + if step[r] > 0.0 { BRICK as f64 } else { 0.0 };
        steps = steps.min((edge - u[r]) / step[r]);
    }
    // A little less, so that rounding takes no step too many.
    (steps - 1e-6) as usize
}
