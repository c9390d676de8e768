//! The blocks of a convolution: their operands, sizes and steps.

use super::super::sums::{LINE, Shared};
use super::grid::Grid;
use super::weights::TransformedWeights;

/// Bytes of V in a block of one thread: half of a second-level cache of 1 MiB.
const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of V in a block that all threads share.
const SHARED_BLOCK_BYTES: usize = 16 << 20;
/// Bytes of weights from which threads share a block.
const SHARED_WEIGHTS: usize = 6 << 20;
/// Blocks without which threads would wait for work: with fewer, they share one.
const FEW_BLOCKS: usize = 12;

/// A convolution with its operands.
pub(super) struct Winograd<'a> {
    pub grid: Grid,
    pub weights: &'a TransformedWeights,
    /// A value per output channel, filled up to whole columns.
    pub bias: Vec<f32>,
    /// Channels-last inputs, whose channels follow each other.
    pub xs: &'a [&'a [f32]],
    /// A voxel outside the image.
    pub zeros: Vec<f32>,
    pub output: Shared<f32>,
    /// [blocks][co].
    pub sums: Option<Shared<[f64; 2]>>,
}

/// How tiles are cut into blocks, and where a block's V and products are.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Floats from a tile to the next: its channels, of the input or of the output.
    pub row: usize,
    /// Floats from a point to the next.
    pub point: usize,
    /// Tiles of a block.
    pub block: usize,
    /// Tiles whose transforms are a task and whose outputs are summed together.
    pub group: usize,
    pub shared: bool,
}

impl Layout {
    pub fn of(weights: &TransformedWeights, grid: &Grid) -> Self {
        let own = Self::new(weights, grid, false, BLOCK_BYTES);
        let few = grid.tiles().div_ceil(own.block) < FEW_BLOCKS;
        if few || weights.bytes() >= SHARED_WEIGHTS { Self::new(weights, grid, true, SHARED_BLOCK_BYTES) } else { own }
    }

    /// Blocks of about so many bytes of V, one row of registers of tiles at least.
    pub fn new(weights: &TransformedWeights, grid: &Grid, shared: bool, bytes: usize) -> Self {
        // The last vector of an input may reach past its channels.
        let row = (weights.ci + weights.lanes()).next_multiple_of(LINE).max(weights.row());
        let (rows, tiles) = (weights.rows(), grid.tiles());
        let most = (bytes / (weights.points() * row * size_of::<f32>()) / rows).max(1) * rows;
        // Equal sizes, so that the last block is not a small one.
        let block = tiles.div_ceil(tiles.div_ceil(most)).next_multiple_of(rows);
        // An odd number of cache lines, so that the stores of a tile's points do not all meet in one set of the cache.
        let point = ((block * row / LINE) | 1) * LINE;
        Self { row, point, block, group: if shared { rows } else { block }, shared }
    }
}

/// What one thread computes of a block.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// V of these tiles, counted from the block's first.
    Input { first: usize, count: usize },
    /// The products of one point for this many tiles.
    Product { point: usize, count: usize },
    /// The outputs of these tiles.
    Output { first: usize, count: usize },
    /// All three for a block of this many tiles.
    All { count: usize },
}

/// A step of a block that starts at tile `start`.
pub(super) struct Task<'a> {
    pub winograd: &'a Winograd<'a>,
    pub layout: Layout,
    pub start: usize,
    pub v: Shared<f32>,
    pub step: Step,
}
