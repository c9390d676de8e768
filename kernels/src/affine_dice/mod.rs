//! The registration loss and its gradient in one sweep over the fixed grid.
//!
//! Two channels: the tumour (label 2) and everything (labels 1 and 2). A *cell* is the cube between eight neighbouring
//! voxels of the moving mask; its code has a bit a corner, the tumour's in the low byte, everything's in the high one.
//! Corner k lies at (x, y, z) + (k & 1, k >> 1 & 1, k >> 2). With the codes made once, a sample costs one load instead
//! of eight, and codes 0 (nothing) and all ones (no gradient) are told apart from the surface, where the work is.
//! Cells are kept for the bounding box of the labels and one voxel around it: outside it nothing contributes.

mod cells;
mod step;
mod sweep;

pub use cells::{mask_cells, mask_stats};
pub use step::{AT_BEST, AT_BEST_LOSS, AT_DECAY, AT_HISTORY, affine_dice_step};
pub use sweep::affine_dice_sums;

/// Values of a record of [`mask_stats`]: voxels of label 2, of labels 1 and 2; least x, y, z and least of
/// `u32::MAX` - x, - y, - z of labels 1 and 2.
pub const STATS: usize = 8;

/// Values a channel has in a record of [`affine_dice_sums`]: I, P, then 12 sums of gradient x position over all voxels,
/// then the same over the fixed mask.
pub const SUMS: usize = 26;

/// A brick of the fixed grid: a voxel a unit.
pub const BRICK: [usize; 3] = [8, 8, 4];
