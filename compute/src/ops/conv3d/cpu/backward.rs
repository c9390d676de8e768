//! Gradients of a convolution by weight and bias on the CPU. (By its input: `conv_transpose3d`.)
//!
//! dw[co, tap, ci] = sum over outputs p of dy[p, co] * x[source(p, tap) + ci]: the same pointers as the forward pass,
//! the sum running over p. A register block is 4 input channels by two registers of output channels. Outputs are cut
//! into splits of a fixed length with sums of their own, added in order at the end: the same bits for any number of threads.

use rayon::prelude::*;

use super::indirect_gemm::TASKS_PER_THREAD;
use super::indirection::{Block, Indirection, table};
use super::packed_weights::Channels;
use crate::ops::simd::{F32Vector, Isa, Kernel, Simd};

/// Outputs whose pointers are worked out together.
const ROWS: usize = 6;
/// Such blocks in a tile.
const TILE: usize = 16;
/// Outputs of a split.
const SPLIT: usize = 4096;
/// Floats that the sums of all splits take at most, unless a single one is larger.
const PARTS_LIMIT: usize = 1 << 24;
/// Input channels of a register block.
const INPUTS: usize = 4;

/// dw [co, taps, ci] of one convolution; `x` and `dy` channels-last.
pub(in crate::ops) fn weight_gradient(
    isa: Isa,
    channels: Channels,
    indirection: &Indirection,
    x: &[f32],
    dy: &[f32],
) -> Vec<f32> {
    let Channels { groups, ci, co } = channels;
    let (lanes, k) = (isa.f32_lanes(), indirection.taps() * ci);
    let pairs = co.div_ceil(2 * lanes);
    let (columns, column_len) = (groups * pairs, 2 * k * lanes);
    let blocks = indirection.positions().div_ceil(ROWS);
    let splits = (indirection.positions() / SPLIT).min(PARTS_LIMIT / (columns * column_len)).max(1);
    let parts = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(splits).clamp(1, columns);
    let columns_a_task = columns.div_ceil(parts);
    let zeros = vec![0.0f32; indirection.zeros()];
    let mut sums = vec![0.0f32; splits * columns * column_len];
    sums.par_chunks_mut(columns * column_len).enumerate().for_each(|(split, sums)| {
        sums.par_chunks_mut(columns_a_task * column_len).enumerate().for_each(|(part, sums)| {
            isa.run(Task {
                indirection,
                channels,
                x,
                dy,
                zeros: &zeros,
                blocks: [split * blocks / splits, (split + 1) * blocks / splits],
                first_column: part * columns_a_task,
                sums,
            });
        });
    });
    let mut dw = vec![0.0; groups * co * k];
    dw.par_chunks_mut(k).enumerate().for_each(|(row, dw)| {
        let (group, out) = (row / co, row % co);
        let (pair, lane) = (out / (2 * lanes), out % (2 * lanes));
        let first = ((group * pairs + pair) * 2 + lane / lanes) * k * lanes + lane % lanes;
        for split in sums.chunks_exact(columns * column_len) {
            for (to, from) in dw.iter_mut().zip(split[first..].iter().step_by(lanes)) {
                *to += from;
            }
        }
    });
    dw
}

/// db [co] of `dy` [voxels, co].
pub(in crate::ops) fn bias_gradient(dy: &[f32], co: usize) -> Vec<f32> {
    let add = |mut sum: Vec<f32>, row: &[f32]| {
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
        sum
    };
    let parts: Vec<_> = dy.par_chunks(SPLIT * co).map(|part| part.chunks_exact(co).fold(vec![0.0; co], add)).collect();
    parts.iter().fold(vec![0.0; co], |sum, part| add(sum, part))
}

/// Some columns (pairs of registers of output channels) over the outputs of one split.
struct Task<'a> {
    indirection: &'a Indirection,
    channels: Channels,
    x: &'a [f32],
    dy: &'a [f32],
    zeros: &'a [f32],
    /// First and end.
    blocks: [usize; 2],
    first_column: usize,
    /// [columns, 2 registers, taps, ci, lanes].
    sums: &'a mut [f32],
}

impl Kernel for Task<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (Channels { ci, co, .. }, lanes) = (self.channels, S::F32::LANES);
        let taps = self.indirection.taps();
        let (k, pairs) = (taps * ci, co.div_ceil(2 * lanes));
        let mut pointers = table(TILE * taps);
        let mut rows = Vec::with_capacity(TILE);
        // dy of a tile [2 registers, rows, lanes], zero past the last output and past the last channel.
        let mut packed = vec![0.0f32; 2 * TILE * ROWS * lanes];
        let (mut first_block, end) = (self.blocks[0], self.blocks[1]);
        while first_block < end {
            rows.clear();
            let count = TILE.min(end - first_block);
            for (i, table) in pointers.chunks_exact_mut(taps).enumerate().take(count) {
                let at = (first_block + i) * ROWS;
                rows.push(self.indirection.block(at, false, &[self.x], self.zeros.as_ptr(), table));
            }
            for (i, sums) in self.sums.chunks_exact_mut(2 * k * lanes).enumerate() {
                let (group, first) = ((self.first_column + i) / pairs, (self.first_column + i) % pairs * 2 * lanes);
                let wide = co - first > lanes;
                let from = group * co + first;
                pack(lanes, &rows, &self.dy[from..], (co - first).min(2 * lanes), &mut packed);
                for tap in 0..taps {
                    let outer =
                        Outer { pointers: &pointers[..count * taps], tap, taps, packed: &packed, register: k * lanes };
                    let mut c = 0;
                    while c < ci {
                        let block = INPUTS.min(ci - c);
                        let sums = &mut sums[(tap * ci + c) * lanes..];
                        // SAFETY:
                        // - table pointers have all channels of a voxel, or as many zeros, behind them, and c + block of
                        //   this group's,
                        // - `sums` starts `block` rows of a register, and again a register's size later.
                        unsafe {
                            match (block == INPUTS, wide) {
                                (true, true) => outer.add::<S, INPUTS, 2>(simd, group * ci + c, sums),
                                (true, false) => outer.add::<S, INPUTS, 1>(simd, group * ci + c, sums),
                                (false, true) => outer.add::<S, 1, 2>(simd, group * ci + c, sums),
                                (false, false) => outer.add::<S, 1, 1>(simd, group * ci + c, sums),
                            }
                        }
                        c += if block == INPUTS { INPUTS } else { 1 };
                    }
                }
            }
            first_block += count;
        }
    }
}

/// `count` channels of each row's output, from the group's first in `dy`, to [2 registers, rows, lanes].
#[inline(always)]
fn pack(lanes: usize, rows: &[Block<ROWS>], dy: &[f32], count: usize, packed: &mut [f32]) {
    let (low, high) = packed.split_at_mut(TILE * ROWS * lanes);
    let narrow = count.min(lanes);
    for (i, block) in rows.iter().enumerate() {
        for r in 0..ROWS {
            let at = (i * ROWS + r) * lanes;
            let (low, high) = (&mut low[at..at + lanes], &mut high[at..at + lanes]);
            low.fill(0.0);
            high.fill(0.0);
            if r < block.valid {
                let from = &dy[block.targets[r]..][..count];
                low[..narrow].copy_from_slice(&from[..narrow]);
                high[..count - narrow].copy_from_slice(&from[narrow..]);
            }
        }
    }
}

/// A tile's outer products of one tap.
struct Outer<'a> {
    /// [blocks, taps] of rows.
    pointers: &'a [[*const f32; ROWS]],
    tap: usize,
    taps: usize,
    packed: &'a [f32],
    /// Floats from the first register's sums to the second's.
    register: usize,
}

impl Outer<'_> {
    /// Adds `M` input channels from `offset` by `N` registers into `sums` [N][M][lanes].
    ///
    /// # Safety
    /// - `offset + M` floats are behind each pointer, and `tap` is below `taps`.
    /// - `packed` has a row of `N` registers for each row of the blocks.
    /// - `sums` holds `M` registers at 0 and, if `N` is 2, at `register`.
    #[inline(always)]
    unsafe fn add<S: Simd, const M: usize, const N: usize>(&self, simd: S, offset: usize, sums: &mut [f32]) {
        let lanes = S::F32::LANES;
        // SAFETY:
        // - the caller's promise: each pointer is read at `offset` to `offset + M`, and each row of `packed` once.
        unsafe {
            let to = sums.as_mut_ptr();
            let mut sum: [[S::F32; N]; M] =
                std::array::from_fn(|m| std::array::from_fn(|v| simd.load_at(to.add(v * self.register + m * lanes))));
            let mut dy = self.packed.as_ptr();
            for block in self.pointers.chunks_exact(self.taps) {
                let rows = block.get_unchecked(self.tap);
                for pointer in rows {
                    let x = pointer.add(offset);
                    let g: [S::F32; N] = std::array::from_fn(|v| simd.load_at(dy.add(v * TILE * ROWS * lanes)));
                    for m in 0..M {
                        let x = simd.splat(*x.add(m));
                        for v in 0..N {
                            sum[m][v] = x.mul_add(g[v], sum[m][v]);
                        }
                    }
                    dy = dy.add(lanes);
                }
            }
            for m in 0..M {
                for v in 0..N {
                    sum[m][v].store_at(to.add(v * self.register + m * lanes));
                }
            }
        }
    }
}
