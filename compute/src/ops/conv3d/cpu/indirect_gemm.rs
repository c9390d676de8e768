//! Convolution as a matrix product whose left operand is never built.
//!
//! y[p, co] = sum over k = (kd, kh, kw, ci) of x[source(p, tap) + ci] * w[k, co]. A register block is some output voxels
//! (rows) by two registers of output channels: 12 x 2 accumulators with AVX-512's 32 registers, 6 x 2 with 16, enough to
//! hide the latency of two FMA units. Each step of k broadcasts one float from each row's pointer (see [`Indirection`]) and
//! loads two registers of packed weights. Weights are packed into panels [panel][k][lanes]; k is cut so that the part of
//! two panels in use stays in L1 while all blocks of a task pass over it. Where the taps of an x row lie side by side in
//! memory they are walked as one run.
//!
//! The sum over k runs in the same order whatever the number of threads, so results have the same bits.

use std::ops::Range;
use std::slice;

use rayon::prelude::*;

use super::indirection::{Indirection, table};
use super::packed_weights::{Channels, PackedWeights};
use super::sums::{LINE, Shared, add_up};
use crate::ops::simd::{F32Vector, Kernel, Simd};

/// Voxels of a task: enough to reuse weights, few enough that their inputs stay in L2.
const TILE: usize = 192;
/// Bytes of weights that stay in L1 beside the inputs.
const L1_WEIGHTS: usize = 16 << 10;
/// Tasks a thread should find, so that an uneven end costs little.
pub(super) const TASKS_PER_THREAD: usize = 4;

/// A product with its geometry. A convolution is one; a transposed convolution has one for each phase of its stride.
pub(in crate::ops) struct Phase<'a> {
    pub indirection: Indirection,
    pub weights: &'a PackedWeights,
}

/// Writes the outputs that the phases cover into `y`, every channel of them. Phases share instruction set and channels;
/// a task does its part of all of them, since neighbouring outputs of different phases read the same inputs.
pub(in crate::ops) fn multiply(phases: &[Phase<'_>], bias: Option<&[f32]>, xs: &[&[f32]], y: &mut [f32]) {
    multiply_and(phases, bias, xs, y, None);
}

/// As [`multiply`] of a single phase, and the sum of y and of its squares per output channel of all groups, in f64.
/// Channels of the inputs `xs` follow each other, as if they had been joined.
pub(in crate::ops) fn multiply_and_sum(
    phase: &Phase<'_>,
    bias: Option<&[f32]>,
    xs: &[&[f32]],
    y: &mut [f32],
) -> Vec<[f64; 2]> {
    let Channels { groups, co, .. } = phase.weights.channels;
    let mut parts = vec![[0.0; 2]; tiles(slice::from_ref(phase)) * groups * co];
    multiply_and(slice::from_ref(phase), bias, xs, y, Some(Shared(parts.as_mut_ptr())));
    let mut sums = vec![[0.0; 2]; groups * co];
    for part in parts.chunks_exact((groups * co).max(1)) {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum = [sum[0] + part[0], sum[1] + part[1]];
        }
    }
    sums
}

/// Parts that the voxels are cut into, whatever the number of threads.
fn tiles(phases: &[Phase<'_>]) -> usize {
    phases.iter().map(|p| p.indirection.positions()).max().unwrap_or(0).div_ceil(TILE)
}

fn multiply_and(
    phases: &[Phase<'_>],
    bias: Option<&[f32]>,
    xs: &[&[f32]],
    y: &mut [f32],
    sums: Option<Shared<[f64; 2]>>,
) {
    let Some(Phase { weights, .. }) = phases.first() else { return };
    let zeros = vec![0.0f32; phases.iter().map(|p| p.indirection.zeros()).max().unwrap_or(0)];
    let bias = weights.padded(bias);
    let tiles = tiles(phases);
    let columns = weights.columns();
    let parts = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(tiles.max(1)).clamp(1, columns);
    let output = Shared(y.as_mut_ptr());
    (0..tiles * parts).into_par_iter().for_each(|task| {
        let (tile, part) = (task / parts, task % parts);
        let columns = part * columns / parts..(part + 1) * columns / parts;
        for Phase { indirection, weights } in phases {
            let tile = Tile {
                indirection,
                weights,
                bias: &bias,
                xs,
                zeros: &zeros,
                output,
                sums,
                tile,
                tiles,
                columns: columns.clone(),
            };
            match weights.rows() {
                12 => weights.isa.run(Rows::<12>(tile)),
                _ => weights.isa.run(Rows::<6>(tile)),
            }
        }
    });
}

/// One task: some voxels by some pairs of panels.
struct Tile<'a> {
    indirection: &'a Indirection,
    weights: &'a PackedWeights,
    /// Padded as the panels are.
    bias: &'a [f32],
    xs: &'a [&'a [f32]],
    zeros: &'a [f32],
    output: Shared<f32>,
    /// [tiles][groups * co].
    sums: Option<Shared<[f64; 2]>>,
    /// Which of `tiles` parts of the voxels.
    tile: usize,
    tiles: usize,
    columns: Range<usize>,
}

/// A tile in register blocks of `ROWS` voxels.
struct Rows<'a, const ROWS: usize>(Tile<'a>);

impl<const ROWS: usize> Kernel for Rows<'_, ROWS> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (tile, lanes) = (self.0, S::F32::LANES);
        let (Channels { groups, co, ci }, k) = (tile.weights.channels, tile.weights.k);
        let blocks = tile.indirection.positions().div_ceil(ROWS);
        let blocks = tile.tile * blocks / tile.tiles..(tile.tile + 1) * blocks / tile.tiles;
        // Each input has its share of a tap's channels.
        let source = ci / tile.xs.len();
        let segments = tile.indirection.taps() * tile.xs.len();
        let merge = groups == 1 && tile.xs.len() == 1;
        let mut pointers = table::<ROWS>(segments * blocks.len());
        let mut rows = Vec::with_capacity(blocks.len());
        for (i, block) in blocks.clone().enumerate() {
            let table = &mut pointers[i * segments..(i + 1) * segments];
            rows.push(tile.indirection.block(block * ROWS, merge, tile.xs, tile.zeros.as_ptr(), table));
            if tile.indirection.strided() {
                prefetch(simd, table, source * groups);
            }
        }
        // Scratch for the edges of a tile: rows past the last voxel, and blocks whose channels do not fill their
        // registers, are computed here; the part that is output is copied.
        let mut spill = vec![0.0f32; blocks.len() * ROWS * 2 * lanes];
        let panels = tile.weights.panels();
        let pairs = panels.div_ceil(2);
        let chunks = (k * 2 * lanes * size_of::<f32>()).div_ceil(L1_WEIGHTS).max(1);
        for column in tile.columns.clone() {
            let (group, first) = (column / pairs, column % pairs * 2 * lanes);
            let count = (co - first).min(2 * lanes);
            let panel = (group * panels + first / lanes) * lanes;
            for chunk in 0..chunks {
                let steps = chunk * k / chunks..(chunk + 1) * k / chunks;
                for (i, block) in rows.iter().enumerate() {
                    let mut c = [spill[i * ROWS * 2 * lanes..].as_mut_ptr(); ROWS];
                    for r in 0..ROWS {
                        // SAFETY:
                        // - `spill` has ROWS rows of two registers for each block,
                        // - `output` has a voxel's channels at its target.
                        c[r] = unsafe {
                            if r < block.valid && count.is_multiple_of(lanes) {
                                tile.output.0.add(block.targets[r] + group * co + first)
                            } else {
                                c[r].add(r * 2 * lanes)
                            }
                        };
                    }
                    let product = Product {
                        table: &pointers[i * segments..(i + 1) * segments],
                        run: block.taps * source,
                        offset: group * ci,
                        steps: steps.clone(),
                        panel: &tile.weights.data[panel * k..],
                        panel_len: k * lanes,
                        bias: (chunk == 0).then(|| tile.bias[panel..].as_ptr()),
                    };
                    // SAFETY:
                    // - pointers of the table have a segment of their group's channels behind them: a voxel's, a run of
                    //   voxels', or zeros,
                    // - `panel` starts one panel, or two where `count` is over one register, and so does `bias`,
                    // - each row of `c` has as many registers, in `spill` or in the output, which is this task's.
                    unsafe {
                        if count > lanes {
                            product.accumulate::<S, 2>(simd, &c)
                        } else {
                            product.accumulate::<S, 1>(simd, &c)
                        }
                    }
                }
            }
            if !count.is_multiple_of(lanes) {
                for (i, block) in rows.iter().enumerate() {
                    for r in 0..block.valid {
                        let from = &spill[(i * ROWS + r) * 2 * lanes..][..count];
                        // SAFETY:
                        // - a voxel's channels are at its target, and `count` of them start at `first`,
                        // - only this task touches them.
                        unsafe {
                            let to = tile.output.0.add(block.targets[r] + group * co + first);
                            to.copy_from_nonoverlapping(from.as_ptr(), count);
                        }
                    }
                }
            }
            if let Some(sums) = tile.sums {
                let channel = group * co + first;
                // SAFETY:
                // - this task alone has these channels of this tile, in `sums` as in the output,
                // - it has just written each row's `count` outputs from `channel` on.
                unsafe {
                    let sums = sums.0.add(tile.tile * groups * co + channel);
                    let targets = rows.iter().flat_map(|block| &block.targets[..block.valid]).copied();
                    add_up(simd, targets, tile.output.0.add(channel), slice::from_raw_parts_mut(sums, count));
                }
            }
        }
    }
}

/// Asks for the inputs of a block. Where neighbouring outputs share few of them, each block meets cache lines that no
/// block before it has touched, too far apart for the machine's own prefetcher.
#[inline(always)]
fn prefetch<const ROWS: usize>(simd: impl Simd, table: &[[*const f32; ROWS]], channels: usize) {
    for row in table.iter().flatten() {
        for c in (0..channels).step_by(LINE) {
            simd.prefetch(row.wrapping_add(c));
        }
    }
}

/// A register block's share of the sum over k.
struct Product<'a, const ROWS: usize> {
    table: &'a [[*const f32; ROWS]],
    run: usize,
    /// Floats from a voxel's first channel to the group's.
    offset: usize,
    steps: Range<usize>,
    panel: &'a [f32],
    panel_len: usize,
    /// Starts the sum; without it the sum goes on from what `c` holds.
    bias: Option<*const f32>,
}

impl<const ROWS: usize> Product<'_, ROWS> {
    /// # Safety
    /// - Each pointer of the table has `offset + run` floats behind it, and `steps` are within the table's and a panel's.
    /// - `panel` holds `N` panels, `panel_len` floats apart; `bias` holds `N` registers.
    /// - Each row of `c` holds `N` registers that nothing else touches.
    #[inline(always)]
    unsafe fn accumulate<S: Simd, const N: usize>(self, simd: S, c: &[*mut f32; ROWS]) {
        let lanes = S::F32::LANES;
        // SAFETY:
        // - the caller's promise: `k` goes through `steps`, a step is a float of each row and a register of each panel.
        unsafe {
            let mut sum: [[S::F32; N]; ROWS] = std::array::from_fn(|r| {
                std::array::from_fn(|v| simd.load_at(self.bias.unwrap_or(c[r]).add(v * lanes)))
            });
            let mut b = self.panel.as_ptr().add(self.steps.start * lanes);
            let mut left = self.steps.len();
            let (mut segment, mut skip) =
                if left > 0 { (self.steps.start / self.run, self.steps.start % self.run) } else { (0, 0) };
            while left > 0 {
                let length = left.min(self.run - skip);
                let at = self.table.get_unchecked(segment);
                let a: [*const f32; ROWS] = std::array::from_fn(|r| at[r].add(self.offset + skip));
                for k in 0..length {
                    let w: [S::F32; N] = std::array::from_fn(|v| simd.load_at(b.add(v * self.panel_len)));
                    for r in 0..ROWS {
                        let x = simd.splat(*a[r].add(k));
                        for v in 0..N {
                            sum[r][v] = x.mul_add(w[v], sum[r][v]);
                        }
                    }
                    b = b.add(lanes);
                }
                left -= length;
                segment += 1;
                skip = 0;
            }
            for r in 0..ROWS {
                for v in 0..N {
                    sum[r][v].store_at(c[r].add(v * lanes));
                }
            }
        }
    }
}
