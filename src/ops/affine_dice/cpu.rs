//! The sweep on the CPU, in f64: a sample is one table look-up unless it is on the mask's surface, so wider arithmetic
//! costs nothing. Bricks of cells that are all empty or all inside are crossed in one go. Blocks of rows run in parallel and are added in their own order, so that the number of threads does
//! not change a bit.

use rayon::prelude::*;

use super::geometry::Limits;
use super::{AffineDiceSums, Bounds, Matrix, Stats};

/// Rows a task.
const ROWS: usize = 16;
/// Cells along each edge of a brick.
const BRICK: usize = 8;
/// The brick's cells differ, or have surface. No cell's code: what is tumour is labelled.
const MIXED: u16 = 0x00ff;

/// Counts and bounds of a label map.
pub(super) fn stats(labels: &[u8], [w, h, _]: [usize; 3]) -> Stats {
    labels
        .par_chunks(w)
        .enumerate()
        .filter_map(|(row, labels)| {
            let both = labels.iter().filter(|&&l| l == 1 || l == 2).count();
            let tumour = labels.iter().filter(|&&l| l == 2).count();
            let first = labels.iter().position(|&l| l == 1 || l == 2)?;
            let last = labels.iter().rposition(|&l| l == 1 || l == 2)?;
            let (y, z) = (row % h, row / h);
            let bounds = Bounds { low: [first, y, z], high: [last, y, z] };
            Some(Stats { counts: [tumour as f64, both as f64], bounds: Some(bounds) })
        })
        // Counts are whole numbers and bounds are least and greatest, so the order of reduction is of no account.
        .reduce(Stats::default, |a, b| Stats {
            counts: [a.counts[0] + b.counts[0], a.counts[1] + b.counts[1]],
            bounds: match (a.bounds, b.bounds) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            },
        })
}

/// The moving mask as the sweep sees it.
#[derive(Debug)]
pub(super) struct Cells {
    /// A code a cell, see [`codes`].
    codes: Vec<u16>,
    /// Of each brick the code of all its cells, if that is 0 or says inside or outside of both channels; or [`MIXED`].
    bricks: Vec<u16>,
    /// Cells and bricks along each axis.
    counts: [usize; 3],
    brick_counts: [usize; 3],
}

impl Cells {
    pub(super) fn new(labels: &[u8], size: [usize; 3], bounds: &Bounds) -> Self {
        let codes = codes(labels, size, bounds);
        let counts @ [nx, ny, nz] = bounds.cells();
        let brick_counts @ [bx, by, bz] = counts.map(|n| n.div_ceil(BRICK));
        let along = |brick: usize, n: usize| brick * BRICK..((brick + 1) * BRICK).min(n);
        let bricks = (0..bx * by * bz)
            .into_par_iter()
            .map(|brick| {
                let (xs, ys, zs) = (along(brick % bx, nx), along(brick / bx % by, ny), along(brick / bx / by, nz));
                let first = codes[(zs.start * ny + ys.start) * nx + xs.start];
                let same = zs
                    .flat_map(|z| ys.clone().map(move |y| (z * ny + y) * nx))
                    .all(|row| codes[row + xs.start..row + xs.end].iter().all(|code| *code == first));
                if same && matches!(first, 0 | 0xff00 | 0xffff) { first } else { MIXED }
            })
            .collect();
        Self { codes, bricks, counts, brick_counts }
    }
}

/// A code a cell: bit k of the low byte says whether the corner (k & 1, k >> 1 & 1, k >> 2) is tumour, bit k of the high
/// byte whether it is labelled at all. Cells are those of [`Bounds::cells`], x fastest.
fn codes(labels: &[u8], [w, h, d]: [usize; 3], bounds: &Bounds) -> Vec<u16> {
    let [nx, ny, nz] = bounds.cells();
    let mut cells = vec![0u16; nx * ny * nz];
    cells.par_chunks_mut(nx).enumerate().for_each(|(row, cells)| {
        let (y, z) = (row % ny + bounds.low[1], row / ny + bounds.low[2]);
        for line in 0..4 {
            // Counted from 1, so that the voxel before the first needs no sign.
            let (y, z) = (y + line % 2, z + line / 2);
            if y == 0 || z == 0 || y > h || z > d {
                continue;
            }
            let labels = &labels[((z - 1) * h + y - 1) * w..][..w];
            let code = |label: u8| u16::from(label == 2) | u16::from(label == 1 || label == 2) << 8;
            for (i, &label) in labels[bounds.low[0]..=bounds.high[0]].iter().enumerate() {
                let code = code(label) << (2 * line);
                // Voxel i of the box is the second corner of cell i and the first of cell i + 1.
                cells[i] |= code << 1;
                cells[i + 1] |= code;
            }
        }
    });
    cells
}

/// What a sweep reads; its matrix maps to cells.
pub(super) struct Sweep<'a> {
    pub fixed: &'a [u8],
    pub size: [usize; 3],
    pub cells: &'a Cells,
    pub limits: Limits,
}

impl Sweep<'_> {
    /// The sums except G.
    pub(super) fn run<const BORDER: bool>(&self, matrix: &Matrix) -> AffineDiceSums {
        let [_, h, d] = self.size;
        let blocks: Vec<_> = (0..(h * d).div_ceil(ROWS))
            .into_par_iter()
            .map(|block| {
                let mut sums: Option<AffineDiceSums> = None;
                for row in block * ROWS..((block + 1) * ROWS).min(h * d) {
                    let (y, z) = (row % h, row / h);
                    let start = matrix.map(|m| m[1] * y as f64 + m[2] * z as f64 + m[3]);
                    let range = self.range(matrix, start);
                    if !range.is_empty() {
                        let labels = &self.fixed[row * self.size[0]..][..self.size[0]];
                        let step = matrix.map(|m| m[0]);
                        let sums = sums.get_or_insert_default();
                        self.row::<BORDER>(labels, range, start, step, [y as f64, z as f64], sums);
                    }
                }
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

    fn row<const BORDER: bool>(
        &self,
        labels: &[u8],
        range: std::ops::Range<usize>,
        start: [f64; 3],
        step: [f64; 3],
        [y, z]: [f64; 2],
        sums: &mut AffineDiceSums,
    ) {
        let [nx, ny, nz] = self.cells.counts;
        let [bx, by, _] = self.cells.brick_counts;
        let [low, high] = self.limits.clamp;
        let mut constant = [[0usize; 2]; 2];
        // Per channel and axis: sum of gradient and of gradient times x, over all voxels, then over the fixed mask.
        let mut slopes = [[[0.0f64; 4]; 3]; 2];
        let mut surface = false;
        let mut next = range.start;
        while next < range.end {
            let x = next;
            next += 1;
            let mut u: [f64; 3] = std::array::from_fn(|r| start[r] + step[r] * x as f64);
            let mut free = [true; 3];
            if BORDER {
                free = std::array::from_fn(|r| u[r] > low[r] && u[r] < high[r]);
                u = std::array::from_fn(|r| u[r].max(low[r]).min(high[r]));
            }
            // Not `u < 0`, which NaN would pass.
            if !(u[0] >= 0.0 && u[1] >= 0.0 && u[2] >= 0.0) {
                continue;
            }
            let cell = u.map(|u| u as usize);
            if cell[0] >= nx || cell[1] >= ny || cell[2] >= nz {
                continue;
            }
            let brick = cell.map(|c| c / BRICK);
            let uniform = self.cells.bricks[(brick[2] * by + brick[1]) * bx + brick[0]];
            if uniform != MIXED && free == [true; 3] {
                next = (x + 1).saturating_add(further(u, step, brick)).min(range.end);
                for (channel, constant) in constant.iter_mut().enumerate() {
                    if uniform >> (8 * channel) & 0xff != 0 {
                        let inside = |label: &&u8| **label == 2 || (channel == 1 && **label == 1);
                        constant[0] += next - x;
                        constant[1] += labels[x..next].iter().filter(inside).count();
                    }
                }
                continue;
            }
            let code = self.cells.codes[(cell[2] * ny + cell[1]) * nx + cell[0]];
            if code == 0 {
                continue;
            }
            let within = [labels[x] == 2, labels[x] == 1 || labels[x] == 2];
            for channel in 0..2 {
                let bits = (code >> (8 * channel)) as u8;
                if bits == 0 {
                    continue;
                }
                if bits == 255 {
                    constant[channel][0] += 1;
                    constant[channel][1] += usize::from(within[channel]);
                    continue;
                }
                surface = true;
                let f = std::array::from_fn(|r| u[r] - cell[r] as f64);
                let (p, gradient) = trilinear(bits, f);
                let sum = &mut sums.0[channel];
                sum.p += p;
                if within[channel] {
                    sum.intersection += p;
                }
                for r in 0..3 {
                    let slope = if free[r] { gradient[r] } else { 0.0 };
                    let out = &mut slopes[channel][r];
                    out[0] += slope;
                    out[1] += slope * x as f64;
                    if within[channel] {
                        out[2] += slope;
                        out[3] += slope * x as f64;
                    }
                }
            }
        }
        for (channel, sum) in sums.0.iter_mut().enumerate() {
            sum.p += constant[channel][0] as f64;
            sum.intersection += constant[channel][1] as f64;
            if surface {
                for r in 0..3 {
                    let [all, all_x, within, within_x] = slopes[channel][r];
                    add(&mut sum.all[r], [all_x, all * y, all * z, all]);
                    add(&mut sum.within[r], [within_x, within * y, within * z, within]);
                }
            }
        }
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

fn add(sum: &mut [f64; 4], terms: [f64; 4]) {
    for (sum, term) in sum.iter_mut().zip(terms) {
        *sum += term;
    }
}

/// The value at fraction f of a cell whose corners are the bits, and its derivative along (x, y, z).
fn trilinear(bits: u8, [fx, fy, fz]: [f64; 3]) -> (f64, [f64; 3]) {
    let corner = &CORNERS[usize::from(bits)];
    let mix = |a: f64, b: f64, t: f64| a + t * (b - a);
    // Lines along x, in the order (y, z) = 00, 10, 01, 11.
    let slope: [f64; 4] = std::array::from_fn(|i| f64::from(corner[2 * i + 1] - corner[2 * i]));
    let line: [f64; 4] = std::array::from_fn(|i| f64::from(corner[2 * i]) + fx * slope[i]);
    let (near, far) = (mix(line[0], line[1], fy), mix(line[2], line[3], fy));
    let dx = mix(mix(slope[0], slope[1], fy), mix(slope[2], slope[3], fy), fz);
    let dy = mix(line[1] - line[0], line[3] - line[2], fz);
    (mix(near, far, fz), [dx, dy, far - near])
}

/// The bits of a byte as numbers.
static CORNERS: [[f32; 8]; 256] = {
    let mut table = [[0.0; 8]; 256];
    let mut bits = 0;
    while bits < 256 {
        let mut k = 0;
        while k < 8 {
            table[bits][k] = ((bits >> k) & 1) as f32;
            k += 1;
        }
        bits += 1;
    }
    table
};
