//! The gradient of a convolution by its weights, by minimal filtering.
//!
//! A tile's outputs are y = Aᵀ((G g) ⊙ (Bᵀ d)), so that the gradient of sum(dy * y) by the taps g is Gᵀ applied to the sum over
//! the tiles of (A dy) ⊙ (Bᵀ d):
//!
//! ```text
//! A dy = [dy0, dy0 + dy1, dy0 - dy1, -dy1]
//! Gᵀ u = [u0 + (u1 + u2) / 2, (u1 - u2) / 2, (u1 + u2) / 2 + u3]
//! ```
//!
//! For each point the sum over the tiles is a matrix product Vᵀ M of [ci, tiles] and [tiles, co], with 64 (16) products for 8 (4) outputs
//! and a pair of channels where the direct sum takes 216 (36). Outputs outside the image are zeros in M.
//!
//! Tiles are cut into parts, and parts into blocks whose V and M stay in the cache of the core. A part has sums of its own, and the
//! parts are added in order. Where the sums of a part are too large for the cache, or the parts too few, all threads share large blocks
//! and divide the points among them. Which of the two is chosen, and every cut, depends on the shapes and the instruction set alone: results
//! have the same bits for any number of threads.
//!
//! With u = 2^-24 and gamma(k) = k u / (1 - k u) the error is at most gamma(t + p + 4 axes) times |G|ᵀ of the sum over the tiles of
//! (|A| |dy|) ⊙ (|B|ᵀ |d|), where t is the number of tiles and p that of parts: however a part is cut, no product passes through more
//! additions than it has tiles, nor a part's sum through more than there are parts, and each axis adds one rounding in V, one in M and two in
//! Gᵀ, whose halves are exact. Counts and times are in docs/performance-log.md ("CPU training").

use rayon::prelude::*;

use super::super::sums::{LINE, Shared};
use super::gradient_blocks::{Gradient, Step, Task};
use super::gradient_taps::Finish;
use super::grid::{Grid, applies};
use crate::memory::Scratch;
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::simd::Isa;

/// Channels, of the input and of the output, from which the transforms cost less than they save.
const LEAST_CHANNELS: usize = 8;
/// Tiles from which the sums of all points cost less than the products they save.
const LEAST_TILES: usize = 64;
/// Tiles of a part.
const PART: usize = 512;
/// Parts without which threads would wait for work: with fewer, they share blocks.
const FEW_PARTS: usize = 8;
/// Floats that the sums of all parts take at most, unless a single one is larger.
const PARTS_LIMIT: usize = 1 << 24;
/// Bytes of a part's sums up to which they stay in the cache beside V and M.
const OWN_SUMS: usize = 512 << 10;
/// Bytes of V and M in a block of one thread: half of a second-level cache of 1 MiB.
const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of V and M in a block that all threads share.
const SHARED_BLOCK_BYTES: usize = 16 << 20;
/// Tiles whose transforms are a task in a shared block.
const GROUP: usize = 16;
/// Output channels that are written side by side at the end.
const COLUMNS: usize = 16;

/// Whether minimal filtering applies to the problem and is expected to be faster.
pub(in crate::ops) fn suits(problem: &Conv3dProblem) -> bool {
    applies(problem, LEAST_CHANNELS) && Grid::of(problem, problem.input_shape()[0]).tiles() >= LEAST_TILES
}

/// How tiles are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub parts: usize,
    /// Tiles of a block.
    pub block: usize,
    pub shared: bool,
}

impl Cut {
    /// For `tiles` tiles whose V and M take `bytes` each, and sums of `sums` floats.
    fn of(tiles: usize, bytes: usize, sums: usize) -> Self {
        let parts = (tiles / PART).min(PARTS_LIMIT / sums).max(1);
        if parts < FEW_PARTS || sums * size_of::<f32>() > OWN_SUMS {
            return Self { parts: 1, block: (SHARED_BLOCK_BYTES / bytes).clamp(1, tiles), shared: true };
        }
        Self { parts, block: (BLOCK_BYTES / bytes).max(1), shared: false }
    }
}

/// dw [co, kd, 3, 3, ci] of `x` [n, d, h, w, ci] and `dy` [n, od, oh, ow, co].
pub(in crate::ops) fn weight_gradient(isa: Isa, problem: &Conv3dProblem, x: &[f32], dy: &[f32]) -> Vec<f32> {
    cut_gradient(isa, problem, x, dy, None)
}

/// As [`weight_gradient`], cut in another way where one is given.
pub(super) fn cut_gradient(isa: Isa, problem: &Conv3dProblem, x: &[f32], dy: &[f32], cut: Option<Cut>) -> Vec<f32> {
    let [co, ci, ..] = problem.weight_shape();
    let (grid, lanes) = (Grid::of(problem, problem.input_shape()[0]), isa.f32_lanes());
    let points = if grid.deep { 64 } else { 16 };
    // The last vector of an input may reach past its channels.
    let rows = [(ci + lanes).next_multiple_of(LINE), co.next_multiple_of(LINE)];
    let sums_row = co.next_multiple_of(lanes);
    let sums_len = points * ci * sums_row;
    let bytes = points * (rows[0] + rows[1]) * size_of::<f32>();
    let cut = cut.unwrap_or_else(|| Cut::of(grid.tiles(), bytes, sums_len));
    // An odd number of cache lines, so that the stores of a tile's points do not all meet in one set of the cache.
    let strides = rows.map(|row| ((cut.block * row / LINE) | 1) * LINE);
    let zeros = vec![0.0; lanes];
    let gradient = Gradient { grid: &grid, x, ci, dy, co, zeros: &zeros, rows, points: strides, sums_row };
    let mut sums = vec![0.0f32; cut.parts * sums_len];
    if cut.shared {
        in_shared_blocks(isa, &gradient, cut, points, &mut sums);
    } else {
        in_own_blocks(isa, &gradient, cut, points, &mut sums);
    }
    finish(isa, &sums, problem, sums_row)
}

/// Each thread computes parts of its own.
fn in_own_blocks(isa: Isa, gradient: &Gradient<'_>, cut: Cut, points: usize, sums: &mut [f32]) {
    let (tiles, len) = (gradient.grid.tiles(), sums.len() / cut.parts);
    let scratch = || gradient.points.map(|stride| Scratch::unwritten(points * stride));
    sums.par_chunks_mut(len).enumerate().for_each_init(scratch, |[v, m], (part, sums)| {
        let end = (part + 1) * tiles / cut.parts;
        for start in (part * tiles / cut.parts..end).step_by(cut.block) {
            let count = cut.block.min(end - start);
            let (v, m) = (Shared(v.as_mut_ptr()), Shared(m.as_mut_ptr()));
            isa.run(Task { gradient, start, v, m, sums: Shared(sums.as_mut_ptr()), step: Step::All { count } });
        }
    });
}

/// All threads compute one block after the other.
fn in_shared_blocks(isa: Isa, gradient: &Gradient<'_>, cut: Cut, points: usize, sums: &mut [f32]) {
    let tiles = gradient.grid.tiles();
    let [mut v, mut m] = gradient.points.map(|stride| Scratch::unwritten(points * stride));
    let (v, m, sums) = (Shared(v.as_mut_ptr()), Shared(m.as_mut_ptr()), Shared(sums.as_mut_ptr()));
    for start in (0..tiles).step_by(cut.block) {
        let block = cut.block.min(tiles - start);
        let run = |step| isa.run(Task { gradient, start, v, m, sums, step });
        (0..block.div_ceil(GROUP)).into_par_iter().for_each(|group| {
            let first = group * GROUP;
            run(Step::Transforms { first, count: GROUP.min(block - first) });
        });
        (0..points).into_par_iter().for_each(|point| run(Step::Products { points: point..point + 1, count: block }));
    }
}

/// dw of the sums [parts][points][ci][sums_row].
fn finish(isa: Isa, sums: &[f32], problem: &Conv3dProblem, sums_row: usize) -> Vec<f32> {
    let [co, ci, kd, ..] = problem.weight_shape();
    let (deep, taps) = (kd == 3, kd * 9);
    let len = (if deep { 64 } else { 16 }) * ci * sums_row;
    // [ci][taps][sums_row]
    let mut by_input = vec![0.0f32; ci * taps * sums_row];
    by_input.par_chunks_mut(taps * sums_row).enumerate().for_each(|(c, taps)| {
        let parts: Vec<&[f32]> = sums.chunks_exact(len).map(|part| &part[c * sums_row..]).collect();
        isa.run(Finish { parts: &parts, point: ci * sums_row, deep, taps, row: sums_row });
    });
    let mut dw = vec![0.0; co * taps * ci];
    dw.par_chunks_mut(COLUMNS * taps * ci).enumerate().for_each(|(column, dw)| {
        let (first, count) = (column * COLUMNS, dw.len() / (taps * ci));
        for tap in 0..taps {
            for c in 0..ci {
                let from = &by_input[(c * taps + tap) * sums_row + first..][..count];
                for (out, value) in from.iter().enumerate() {
                    dw[(out * taps + tap) * ci + c] = *value;
                }
            }
        }
    });
    dw
}
