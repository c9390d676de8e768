//! The registration loss and its gradient in one sweep over the fixed grid, for any number of pairs of masks at once.
//!
//! Up to four channels, each a set of labels. Beforehand a mask's labels become *members*: bit c of a byte a voxel says
//! whether channel c has it. A *cell* is the cube between eight neighbouring voxels of the moving mask; its code has a
//! byte a channel and in it a bit a corner: corner k lies at (x, y, z) + (k & 1, k >> 1 & 1, k >> 2). For one or two
//! channels two codes share a word, for three or four a code has one. With the codes made once, a sample costs one load
//! for all channels, and ends with it where the code is 0 (nothing in any channel). Cells are kept for the bounding box
//! of the labels and one voxel around it: outside it nothing contributes.
//!
//! Pairs share buffers: pair p of a launch is row p of the grid of cubes, and record p of the [`PairLayout`]s says
//! where its members and cells begin. Nothing of a pair's arithmetic depends on the others.

mod cells;
mod motion;
mod records;
mod step;
mod sweep;

pub use cells::{copy_words, mask_cells, mask_members, mask_stats};
pub use records::{
    BETA_1, BETA_2, CONVERGED, EPSILON, NOT_FINITE, PairLayout, PairMap, STOPPED, StepConstants, StepState,
};
pub use step::affine_dice_step;
pub use sweep::affine_dice_sums;

/// The largest number of channels.
pub const CHANNELS: usize = 4;

/// Values of a record of [`mask_stats`]: voxels of each of the four channels; least x, y, z and least of
/// `u32::MAX` - x, - y, - z of all of them.
pub const STATS: usize = CHANNELS + 6;

/// Values a channel has in a record of [`affine_dice_sums`]: I, P, then 12 sums of gradient x position over all voxels,
/// then the same over the fixed mask.
pub const SUMS: usize = 26;

/// The shape (x, y, z) of a brick of the fixed grid, which a cube sweeps with one voxel per unit.
pub const BRICK: [usize; 3] = [8, 8, 4];
