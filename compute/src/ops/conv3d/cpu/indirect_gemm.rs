//! Convolution as a matrix product whose left operand is never built.
//!
//! y[p, co] = sum over k = (kd, kh, kw, ci) of x[source(p, tap) + ci] * w[k, co]. A register block is some output voxels
//! (rows) by two registers of output channels: 12 x 2 accumulators with AVX-512's 32 registers, 6 x 2 with 16, enough to
//! hide the latency of two FMA units. Each step of k broadcasts one float from each row's pointer (see [`Gather`]) and
//! loads two registers of packed weights. Weights are packed into panels [panel][k][lanes]; k is cut so that the part of
//! two panels in use stays in L1 while all blocks of a task pass over it. Where the taps of an x row lie side by side in
//! memory they are walked as one run.
//!
//! The sum over k runs in the same order whatever the number of threads, so results have the same bits.

use std::ops::Range;
use std::slice;

use rayon::prelude::*;

use super::gather::{Block, Gather, table};
use super::lanes::{Lanes, Vectorised};
use super::panels::{Channels, Panels};

/// Voxels of a task: enough to reuse weights, few enough that their inputs stay in L2.
const TILE: usize = 192;
/// Bytes of weights that stay in L1 beside the inputs.
const L1_WEIGHTS: usize = 16 << 10;
/// Tasks a thread should find, so that an uneven end costs little.
pub(super) const TASKS_PER_THREAD: usize = 4;
/// Floats of a cache line.
const LINE: usize = 16;

/// Where tasks write: disjoint voxels or disjoint channels of one tensor.
struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: tasks write disjoint elements (see `multiply_and`), and nobody reads before all are done.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

/// A product with its geometry. A convolution is one; a transposed convolution has one for each phase of its stride.
pub(in crate::ops) struct Phase<'a> {
    pub gather: Gather,
    pub weights: &'a Panels,
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
    phases.iter().map(|p| p.gather.positions()).max().unwrap_or(0).div_ceil(TILE)
}

fn multiply_and(
    phases: &[Phase<'_>],
    bias: Option<&[f32]>,
    xs: &[&[f32]],
    y: &mut [f32],
    sums: Option<Shared<[f64; 2]>>,
) {
    let Some(Phase { weights, .. }) = phases.first() else { return };
    let zeros = vec![0.0f32; phases.iter().map(|p| p.gather.zeros()).max().unwrap_or(0)];
    let bias = weights.padded(bias);
    let tiles = tiles(phases);
    let columns = weights.columns();
    let parts = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(tiles.max(1)).clamp(1, columns);
    let output = Shared(y.as_mut_ptr());
    (0..tiles * parts).into_par_iter().for_each(|task| {
        let (tile, part) = (task / parts, task % parts);
        let columns = part * columns / parts..(part + 1) * columns / parts;
        for Phase { gather, weights } in phases {
            let tile = Tile {
                gather,
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
    gather: &'a Gather,
    weights: &'a Panels,
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

impl<const ROWS: usize> Vectorised for Rows<'_, ROWS> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let tile = self.0;
        let (Channels { groups, co, ci }, k) = (tile.weights.channels, tile.weights.k);
        let blocks = tile.gather.positions().div_ceil(ROWS);
        let blocks = tile.tile * blocks / tile.tiles..(tile.tile + 1) * blocks / tile.tiles;
        // Each input has its share of a tap's channels.
        let source = ci / tile.xs.len();
        let segments = tile.gather.taps() * tile.xs.len();
        let merge = groups == 1 && tile.xs.len() == 1;
        let mut pointers = table::<ROWS>(segments * blocks.len());
        let mut rows = Vec::with_capacity(blocks.len());
        for (i, block) in blocks.clone().enumerate() {
            let table = &mut pointers[i * segments..(i + 1) * segments];
            rows.push(tile.gather.block(block * ROWS, merge, tile.xs, tile.zeros.as_ptr(), table));
            if tile.gather.strided() {
                prefetch::<V, ROWS>(table, source * groups);
            }
        }
        // Rows past the last voxel, and blocks whose channels do not fill their registers, land here first.
        let mut spill = vec![0.0f32; blocks.len() * ROWS * 2 * V::COUNT];
        let panels = tile.weights.panels();
        let pairs = panels.div_ceil(2);
        let chunks = (k * 2 * V::COUNT * size_of::<f32>()).div_ceil(L1_WEIGHTS).max(1);
        for column in tile.columns.clone() {
            let (group, first) = (column / pairs, column % pairs * 2 * V::COUNT);
            let count = (co - first).min(2 * V::COUNT);
            let panel = (group * panels + first / V::COUNT) * V::COUNT;
            for chunk in 0..chunks {
                let steps = chunk * k / chunks..(chunk + 1) * k / chunks;
                for (i, block) in rows.iter().enumerate() {
                    let mut c = [spill[i * ROWS * 2 * V::COUNT..].as_mut_ptr(); ROWS];
                    for r in 0..ROWS {
                        // SAFETY: `spill` has ROWS rows of two registers a block; `output` has a voxel's channels at its target.
                        c[r] = unsafe {
                            if r < block.valid && count.is_multiple_of(V::COUNT) {
                                tile.output.0.add(block.targets[r] + group * co + first)
                            } else {
                                c[r].add(r * 2 * V::COUNT)
                            }
                        };
                    }
                    let product = Product {
                        table: &pointers[i * segments..(i + 1) * segments],
                        run: block.taps * source,
                        offset: group * ci,
                        steps: steps.clone(),
                        panel: &tile.weights.data[panel * k..],
                        panel_len: k * V::COUNT,
                        bias: (chunk == 0).then(|| tile.bias[panel..].as_ptr()),
                    };
                    // SAFETY: pointers of the table have a segment of their group's channels behind them (a voxel's, a run
                    // of voxels', or zeros); `panel` starts one panel, or two where `count` is over one register.
                    unsafe {
                        if count > V::COUNT { product.accumulate::<V, 2>(&c) } else { product.accumulate::<V, 1>(&c) }
                    }
                }
            }
            if !count.is_multiple_of(V::COUNT) {
                for (i, block) in rows.iter().enumerate() {
                    for r in 0..block.valid {
                        let from = &spill[(i * ROWS + r) * 2 * V::COUNT..][..count];
                        // SAFETY: a voxel's channels lie at its target, and `count` of them start at `first`.
                        unsafe {
                            let to = tile.output.0.add(block.targets[r] + group * co + first);
                            to.copy_from_nonoverlapping(from.as_ptr(), count);
                        }
                    }
                }
            }
            if let Some(sums) = tile.sums {
                let channel = group * co + first;
                // SAFETY: this task alone has these channels of this tile, and has just written them.
                unsafe {
                    let sums = sums.0.add(tile.tile * groups * co + channel);
                    add_up(&rows, tile.output.0.add(channel), slice::from_raw_parts_mut(sums, count));
                }
            }
        }
    }
}

/// The sums over the outputs of some blocks of consecutive channels from `y`, and of their squares.
///
/// # Safety
/// Each row's target has as many floats behind it as there are `sums`.
#[inline(always)]
unsafe fn add_up<const ROWS: usize>(blocks: &[Block<ROWS>], y: *const f32, sums: &mut [[f64; 2]]) {
    for (first, sums) in (0..).step_by(LINE).zip(sums.chunks_mut(LINE)) {
        let (mut sum, mut squares) = ([0.0f64; LINE], [0.0f64; LINE]);
        for block in blocks {
            for target in &block.targets[..block.valid] {
                // SAFETY: the caller's promise.
                let row = unsafe { slice::from_raw_parts(y.add(target + first), sums.len()) };
                if let Ok(row) = <&[f32; LINE]>::try_from(row) {
                    for c in 0..LINE {
                        let value = f64::from(row[c]);
                        sum[c] += value;
                        squares[c] += value * value;
                    }
                } else {
                    for (c, value) in row.iter().enumerate() {
                        let value = f64::from(*value);
                        sum[c] += value;
                        squares[c] += value * value;
                    }
                }
            }
        }
        for (to, (sum, squares)) in sums.iter_mut().zip(sum.into_iter().zip(squares)) {
            *to = [sum, squares];
        }
    }
}

/// Asks for the inputs of a block. Where neighbouring outputs share few of them, each block meets cache lines that no
/// block before it has touched, too far apart for the machine's own prefetcher.
#[inline(always)]
fn prefetch<V: Lanes, const ROWS: usize>(table: &[[*const f32; ROWS]], channels: usize) {
    for row in table.iter().flatten() {
        for c in (0..channels).step_by(LINE) {
            V::prefetch(row.wrapping_add(c));
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
    /// The machine has the instructions of `V`; each pointer of the table has `offset + run` floats behind it, `panel`
    /// holds `N` panels, `bias` and each row of `c` `N` registers.
    #[inline(always)]
    unsafe fn accumulate<V: Lanes, const N: usize>(self, c: &[*mut f32; ROWS]) {
        // SAFETY: the caller's promise, and `k` stays within the steps of the table and of the panels.
        unsafe {
            let mut sum: [[V; N]; ROWS] =
                std::array::from_fn(|r| std::array::from_fn(|v| V::load(self.bias.unwrap_or(c[r]).add(v * V::COUNT))));
            let mut b = self.panel.as_ptr().add(self.steps.start * V::COUNT);
            let mut left = self.steps.len();
            let (mut segment, mut skip) =
                if left > 0 { (self.steps.start / self.run, self.steps.start % self.run) } else { (0, 0) };
            while left > 0 {
                let length = left.min(self.run - skip);
                let at = self.table.get_unchecked(segment);
                let a: [*const f32; ROWS] = std::array::from_fn(|r| at[r].add(self.offset + skip));
                for k in 0..length {
                    let w: [V; N] = std::array::from_fn(|v| V::load(b.add(v * self.panel_len)));
                    for r in 0..ROWS {
                        let x = V::splat(a[r].add(k));
                        for v in 0..N {
                            sum[r][v] = x.mul_add(w[v], sum[r][v]);
                        }
                    }
                    b = b.add(V::COUNT);
                }
                left -= length;
                segment += 1;
                skip = 0;
            }
            for r in 0..ROWS {
                for v in 0..N {
                    sum[r][v].store(c[r].add(v * V::COUNT));
                }
            }
        }
    }
}
