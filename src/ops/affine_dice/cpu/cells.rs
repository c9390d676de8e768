//! What the sweep knows of a mask beforehand: its counts and box, a code a cell, a code a brick.

use rayon::prelude::*;

use crate::ops::affine_dice::{Bounds, Stats};

/// Cells along each edge of a brick.
pub(super) const BRICK: usize = 8;
/// The brick's cells differ, or have surface. No cell's code: what is tumour is labelled.
pub(super) const MIXED: u16 = 0x00ff;

/// Counts and bounds of a label map.
pub(in crate::ops::affine_dice) fn stats(labels: &[u8], [w, h, _]: [usize; 3]) -> Stats {
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
pub(in crate::ops::affine_dice) struct Cells {
    /// A code a cell, see [`codes`].
    pub codes: Vec<u16>,
    /// Of each brick the code of all its cells, if that is 0 or says inside or outside of both channels; or [`MIXED`].
    pub bricks: Vec<u16>,
    /// Cells and bricks along each axis.
    pub counts: [usize; 3],
    pub brick_counts: [usize; 3],
}

impl Cells {
    pub fn new(labels: &[u8], size: [usize; 3], bounds: &Bounds) -> Self {
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
