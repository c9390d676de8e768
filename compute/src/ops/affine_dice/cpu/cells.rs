//! The part of a mask's evaluation that is done once: counts and box, a code for each cell, a code for each brick.

use rayon::prelude::*;

use crate::ops::affine_dice::{Bounds, Channels, MAX_CHANNELS, Stats};
use crate::ops::simd::{CodeTable, Codes};

/// Number of cells along each edge of a brick.
pub(super) const BRICK: usize = 8;
/// The code of a brick whose cells differ, or are at a surface.
pub(super) const MIXED: u8 = 0xff;

/// The channel memberships of each voxel: bit c for channel c.
pub(in crate::ops::affine_dice) fn members(labels: &[u8], channels: &Channels) -> Vec<u8> {
    let table = channels.table();
    labels.par_iter().with_min_len(1 << 14).map(|&label| table[usize::from(label)]).collect()
}

/// Counts and bounds of a map of [`members`].
pub(in crate::ops::affine_dice) fn stats(members: &[u8], [w, h, _]: [usize; 3]) -> Stats {
    members
        .par_chunks(w)
        .enumerate()
        .filter_map(|(row, members)| {
            let first = members.iter().position(|&m| m != 0)?;
            let last = members.iter().rposition(|&m| m != 0)?;
            let count = |channel| members[first..=last].iter().filter(|&&m| m >> channel & 1 == 1).count() as f64;
            let (y, z) = (row % h, row / h);
            let bounds = Bounds { low: [first, y, z], high: [last, y, z] };
            Some(Stats { counts: std::array::from_fn(count), bounds: Some(bounds) })
        })
        // Counts are whole numbers and bounds are minima and maxima, so the order of reduction does not matter.
        .reduce(Stats::default, |a, b| Stats {
            counts: std::array::from_fn(|c| a.counts[c] + b.counts[c]),
            bounds: match (a.bounds, b.bounds) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            },
        })
}

/// The bits of `channels` channels in a code.
#[inline(always)]
pub(super) const fn code_bits(channels: usize) -> u32 {
    u32::MAX >> (8 * (MAX_CHANNELS - channels))
}

/// The moving mask as the pass over the masks uses it.
#[derive(Debug)]
pub(in crate::ops::affine_dice) struct Cells {
    /// The codes of the cells, x fastest, each of one word for up to two channels and of two for more: bit k of byte c is set where corner
    /// (k & 1, k >> 1 & 1, k >> 2) is in channel c. Cells are those of [`Bounds::cells`].
    codes: Codes,
    /// For each brick the channels that contain all of its cells (bit c), where each channel contains all or none; otherwise [`MIXED`].
    pub bricks: Vec<u8>,
    /// Number of cells and of bricks along each axis.
    pub counts: [usize; 3],
    pub brick_counts: [usize; 3],
}

impl Cells {
    /// The cells of a map of [`members`] with `channels` channels.
    pub fn new(members: &[u8], size: [usize; 3], bounds: &Bounds, channels: usize) -> Self {
        let all = codes(members, size, bounds, channels);
        let (words, codes) = (all.words(), all.values());
        let counts @ [nx, ny, nz] = bounds.cells();
        let brick_counts @ [bx, by, bz] = counts.map(|n| n.div_ceil(BRICK));
        let along = |brick: usize, n: usize| brick * BRICK..((brick + 1) * BRICK).min(n);
        let bricks = (0..bx * by * bz)
            .into_par_iter()
            .map(|brick| {
                let (xs, ys, zs) = (along(brick % bx, nx), along(brick / bx % by, ny), along(brick / bx / by, nz));
                let first = &codes[words * ((zs.start * ny + ys.start) * nx + xs.start)..][..words];
                let same = zs.flat_map(|z| ys.clone().map(move |y| (z * ny + y) * nx)).all(|row| {
                    codes[words * (row + xs.start)..words * (row + xs.end)].chunks(words).all(|c| c == first)
                });
                let corners = first.iter().flat_map(|word| word.to_le_bytes());
                if same { constant(corners.take(channels)) } else { MIXED }
            })
            .collect();
        Self { codes: all, bricks, counts, brick_counts }
    }

    /// The codes, of `WORDS` words each: one for up to two channels, else two.
    ///
    /// # Panics
    /// If the number of words is another.
    pub fn codes<const WORDS: usize>(&self) -> CodeTable<'_, WORDS> {
        self.codes.table()
    }
}

/// The channels that contain all corners, where each channel contains all or none.
fn constant(corners: impl Iterator<Item = u8>) -> u8 {
    let mut inside = 0;
    for (channel, corners) in corners.enumerate() {
        match corners {
            0 => {}
            0xff => inside |= 1 << channel,
            _ => return MIXED,
        }
    }
    inside
}

fn codes(members: &[u8], [w, h, d]: [usize; 3], bounds: &Bounds, channels: usize) -> Codes {
    let words = channels.div_ceil(2);
    let [nx, ny, nz] = bounds.cells();
    let mut codes = Codes::new(nx * ny * nz, words);
    // The bit of a voxel in each byte of its word.
    let spread = |bits: u8| u16::from(bits & 1) | u16::from(bits >> 1 & 1) << 8;
    codes.values_mut().par_chunks_mut(words * nx).enumerate().for_each(|(row, cells)| {
        let (y, z) = (row % ny + bounds.low[1], row / ny + bounds.low[2]);
        for line in 0..4 {
            // Counted from 1, so that the voxel before the first one is not negative.
            let (y, z) = (y + line % 2, z + line / 2);
            if y == 0 || z == 0 || y > h || z > d {
                continue;
            }
            let members = &members[((z - 1) * h + y - 1) * w..][..w];
            for (i, &bits) in members[bounds.low[0]..=bounds.high[0]].iter().enumerate() {
                for word in 0..words {
                    let code = spread(bits >> (2 * word)) << (2 * line);
                    // Voxel i of the box is the second corner of cell i and the first of cell i + 1.
                    cells[words * i + word] |= code << 1;
                    cells[words * (i + 1) + word] |= code;
                }
            }
        }
    });
    codes
}
