//! Convolution as a matrix product whose left operand is never built.
//!
//! y[p, co] = sum over k = (kd, kh, kw, ci) of x[source(p, tap) + ci] * w[k, co]. A register block is 6 output voxels by
//! two registers of output channels: 12 accumulators, which is what hides the latency of two FMA units. Each step of k
//! broadcasts one float from each of 6 pointers (see [`Gather`]) and loads two registers of packed weights. Weights are
//! packed once a call into panels [panel][k][lanes]; k is cut so that the part of two panels in use stays in L1 while all
//! blocks of a task pass over it. Where the taps of an x row lie side by side in memory they are walked as one run.
//!
//! The sum over k runs in the same order whatever the number of threads, so results have the same bits.

use std::cell::Cell;
use std::mem;
use std::ops::Range;

use rayon::prelude::*;

use super::gather::{Gather, ROWS, table};
use super::lanes::{Isa, Lanes, Vectorised};

/// Blocks of [`ROWS`] voxels in a task: enough to reuse weights, few enough that their inputs stay in L2.
pub(super) const TILE: usize = 16;
/// Bytes of weights that stay in L1 beside the inputs.
const L1_WEIGHTS: usize = 16 << 10;
/// Tasks a thread should find, so that an uneven end costs little.
pub(super) const TASKS_PER_THREAD: usize = 4;

thread_local! {
    /// The buffer of the last packed weights of this thread. Fresh memory costs a page fault every 4 KiB, which for the
    /// weights of a deep layer is longer than its product takes.
    static SPARE: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Weights of one product, packed for an instruction set.
pub(in crate::ops) struct Panels {
    isa: Isa,
    /// [groups][panels][k][lanes], the last panel of a group filled up with zeros.
    data: Vec<f32>,
    /// [groups][panels][lanes].
    bias: Vec<f32>,
    groups: usize,
    /// Output channels of a group.
    co: usize,
    /// Input channels of a group.
    ci: usize,
    /// Length of the summed axis.
    k: usize,
}

/// The sizes of a product beside its geometry.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Channels {
    pub groups: usize,
    /// Per group.
    pub ci: usize,
    /// Per group.
    pub co: usize,
}

/// Weights as they are stored, and the taps of theirs that take part.
pub(in crate::ops) struct Weights<'a> {
    pub data: &'a [f32],
    pub order: WeightOrder,
    /// Taps of the stored kernel.
    pub all_taps: usize,
    /// Those of this product, in its order.
    pub taps: &'a [usize],
}

/// Which channel lies innermost.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::ops) enum WeightOrder {
    /// [groups, co, taps, ci]: a convolution's.
    SummedInnermost,
    /// [groups, ci, taps, co]: a transposed convolution's, and a convolution's read for its data gradient.
    OutputInnermost,
}

impl Panels {
    /// `bias` holds a value per output channel of all groups.
    pub fn pack(isa: Isa, channels: Channels, weights: &Weights<'_>, bias: Option<&[f32]>) -> Self {
        let Channels { groups, ci, co } = channels;
        let (lanes, k) = (isa.lanes(), weights.taps.len() * ci);
        let panels = co.div_ceil(lanes);
        let mut data = SPARE.take();
        data.resize(groups * panels * k * lanes, 0.0);
        data.par_chunks_mut((k * lanes).max(1)).enumerate().for_each(|(i, panel)| {
            let (group, first) = (i / panels, i % panels * lanes);
            weights.copy_panel(channels, group, first..co.min(first + lanes), lanes, panel);
        });
        let mut padded = vec![0.0; groups * panels * lanes];
        if let Some(bias) = bias {
            for (to, from) in padded.chunks_exact_mut(panels * lanes).zip(bias.chunks_exact(co)) {
                to[..co].copy_from_slice(from);
            }
        }
        Self { isa, data, bias: padded, groups, co, ci, k }
    }

    fn panels(&self) -> usize {
        self.co.div_ceil(self.isa.lanes())
    }

    /// Pairs of panels over all groups; an odd panel at a group's end is a pair of its own.
    fn columns(&self) -> usize {
        self.groups * self.panels().div_ceil(2)
    }
}

impl Drop for Panels {
    fn drop(&mut self) {
        SPARE.set(mem::take(&mut self.data));
    }
}

impl Weights<'_> {
    /// The output channels `range` of `group` into `panel` [taps, ci, lanes], whose other lanes become zero.
    fn copy_panel(
        &self,
        Channels { ci, co, .. }: Channels,
        group: usize,
        range: Range<usize>,
        lanes: usize,
        panel: &mut [f32],
    ) {
        if range.len() < lanes {
            panel.fill(0.0);
        }
        for (&tap, block) in self.taps.iter().zip(panel.chunks_exact_mut(ci * lanes)) {
            match self.order {
                WeightOrder::SummedInnermost => {
                    for (lane, out) in range.clone().enumerate() {
                        let row = &self.data[((group * co + out) * self.all_taps + tap) * ci..][..ci];
                        for (step, value) in block.chunks_exact_mut(lanes).zip(row) {
                            step[lane] = *value;
                        }
                    }
                }
                WeightOrder::OutputInnermost => {
                    for (c, step) in block.chunks_exact_mut(lanes).enumerate() {
                        let row = &self.data[((group * ci + c) * self.all_taps + tap) * co..][..co];
                        step[..range.len()].copy_from_slice(&row[range.clone()]);
                    }
                }
            }
        }
    }
}

/// Where tasks write: disjoint voxels or disjoint channels of one tensor.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: tasks write disjoint elements (see `multiply`), and nobody reads before all are done.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// Writes the outputs that `gather` covers into `y`, every channel of them.
pub(in crate::ops) fn multiply(gather: &Gather, weights: &Panels, x: &[f32], y: &mut [f32]) {
    let zeros = vec![0.0f32; gather.zeros()];
    let blocks = gather.positions().div_ceil(ROWS);
    let tiles = blocks.div_ceil(TILE);
    let columns = weights.columns();
    let parts = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(tiles.max(1)).clamp(1, columns);
    let output = Output(y.as_mut_ptr());
    (0..tiles * parts).into_par_iter().for_each(|task| {
        let (tile, part) = (task / parts, task % parts);
        weights.isa.run(Tile {
            gather,
            weights,
            x,
            zeros: &zeros,
            output,
            blocks: tile * blocks / tiles..(tile + 1) * blocks / tiles,
            columns: part * columns / parts..(part + 1) * columns / parts,
        });
    });
}

/// One task: some blocks of voxels by some pairs of panels.
struct Tile<'a> {
    gather: &'a Gather,
    weights: &'a Panels,
    x: &'a [f32],
    zeros: &'a [f32],
    output: Output,
    blocks: Range<usize>,
    columns: Range<usize>,
}

impl Vectorised for Tile<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let Panels { groups, co, ci, k, .. } = *self.weights;
        let segments = self.gather.taps();
        let mut pointers = table(segments * self.blocks.len());
        let mut rows = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.clone().enumerate() {
            let table = &mut pointers[i * segments..(i + 1) * segments];
            rows.push(self.gather.block(block * ROWS, groups == 1, self.x.as_ptr(), self.zeros.as_ptr(), table));
        }
        // Rows past the last voxel, and blocks whose channels do not fill their registers, land here first.
        let mut spill = vec![0.0f32; self.blocks.len() * ROWS * 2 * V::COUNT];
        let pairs = self.weights.panels().div_ceil(2);
        let chunks = (k * 2 * V::COUNT * size_of::<f32>()).div_ceil(L1_WEIGHTS).max(1);
        for column in self.columns.clone() {
            let (group, first) = (column / pairs, column % pairs * 2 * V::COUNT);
            let count = (co - first).min(2 * V::COUNT);
            let panel = (group * self.weights.panels() + first / V::COUNT) * V::COUNT;
            for chunk in 0..chunks {
                let steps = chunk * k / chunks..(chunk + 1) * k / chunks;
                for (i, block) in rows.iter().enumerate() {
                    let mut c = [spill[i * ROWS * 2 * V::COUNT..].as_mut_ptr(); ROWS];
                    for r in 0..ROWS {
                        // SAFETY: `spill` has ROWS rows of two registers a block; `output` has a voxel's channels at its target.
                        c[r] = unsafe {
                            if r < block.valid && count.is_multiple_of(V::COUNT) {
                                self.output.0.add(block.targets[r] + group * co + first)
                            } else {
                                c[r].add(r * 2 * V::COUNT)
                            }
                        };
                    }
                    let table = &pointers[i * segments..(i + 1) * segments];
                    let product = Product {
                        table,
                        run: block.taps * ci,
                        offset: group * ci,
                        steps: steps.clone(),
                        panel: &self.weights.data[panel * k..],
                        panel_len: k * V::COUNT,
                        bias: (chunk == 0).then(|| self.weights.bias[panel..].as_ptr()),
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
                            let to = self.output.0.add(block.targets[r] + group * co + first);
                            to.copy_from_nonoverlapping(from.as_ptr(), count);
                        }
                    }
                }
            }
        }
    }
}

/// A register block's share of the sum over k.
struct Product<'a> {
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

impl Product<'_> {
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
