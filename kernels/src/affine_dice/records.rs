//! The records that host and kernels share, one per pair of masks and buffer.
//!
//! The host fills arrays of these structs; a kernel sees a buffer as an array of 32-bit words and adds a constant to
//! the pair's first word. Those constants are computed here from the structs' own layout, so that a field that moves
//! moves for both sides.

use core::mem::{offset_of, size_of};

use bytemuck::{Pod, Zeroable};

use super::CHANNELS;

/// Words before the byte `bytes` of a record.
const fn words(bytes: usize) -> usize {
    assert!(bytes.is_multiple_of(4));
    bytes / 4
}

/// Where a pair's masks lie in the buffers that all pairs share.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct PairLayout {
    /// Voxels of the fixed mask along x, y and z.
    pub fixed_size: [u32; 3],
    /// Cells of the moving mask along x, y and z.
    pub cell_counts: [u32; 3],
    /// The word of the members' buffer at which the fixed mask's members begin.
    pub members_at: u32,
    /// The word of the cells' buffer at which the moving mask's cells begin.
    pub cells_at: u32,
    /// The number of records that a sweep of the pair makes.
    pub records: u32,
}

impl PairLayout {
    /// The size of the struct in words.
    pub const WORDS: usize = words(size_of::<Self>());
    /// The offset of `fixed_size` in words.
    pub const FIXED_SIZE: usize = words(offset_of!(Self, fixed_size));
    /// The offset of `cell_counts` in words.
    pub const CELL_COUNTS: usize = words(offset_of!(Self, cell_counts));
    /// The offset of `members_at` in words.
    pub const MEMBERS_AT: usize = words(offset_of!(Self, members_at));
    /// The offset of `cells_at` in words.
    pub const CELLS_AT: usize = words(offset_of!(Self, cells_at));
    /// The offset of `records` in words.
    pub const RECORDS: usize = words(offset_of!(Self, records));
}

/// The map of a pair's next sweep, and which of its positions matter.
///
/// Input positions count voxels from the middle of the fixed grid, output positions count cells of the moving mask.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct PairMap {
    /// The three rows of the affine map, 4 values each: factors of x, y and z, then the shift.
    pub matrix: [f32; 12],
    /// The least position along x, y and z that can contribute to a sum.
    pub reach_low: [f32; 3],
    /// The greatest position along x, y and z that can contribute to a sum.
    pub reach_high: [f32; 3],
    /// The least position along x, y and z inside the moving grid, to which border padding clamps.
    pub clamp_low: [f32; 3],
    /// The greatest position along x, y and z inside the moving grid, to which border padding clamps.
    pub clamp_high: [f32; 3],
    /// 1 while the pair's iterations run, else 0: the sweep skips pairs that have ended.
    pub running: f32,
}

impl PairMap {
    /// The size of the struct in words.
    pub const WORDS: usize = words(size_of::<Self>());
    /// The offset of `matrix` in words.
    pub const MATRIX: usize = words(offset_of!(Self, matrix));
    /// The offset of `reach_low` in words.
    pub const REACH_LOW: usize = words(offset_of!(Self, reach_low));
    /// The offset of `reach_high` in words.
    pub const REACH_HIGH: usize = words(offset_of!(Self, reach_high));
    /// The offset of `clamp_low` in words.
    pub const CLAMP_LOW: usize = words(offset_of!(Self, clamp_low));
    /// The offset of `clamp_high` in words.
    pub const CLAMP_HIGH: usize = words(offset_of!(Self, clamp_high));
    /// The offset of `running` in words.
    pub const RUNNING: usize = words(offset_of!(Self, running));
}

/// What of a pair's optimisation does not change between iterations.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct StepConstants {
    /// The three rows of the affine map from the fixed grid to the parameters' map.
    pub pre: [f32; 12],
    /// The three rows of the affine map from the parameters' map to the cells of the moving mask.
    pub post: [f32; 12],
    /// G of each channel: the voxels that the fixed mask has in it.
    pub fixed_counts: [f32; CHANNELS],
    /// The weight of each channel in the loss.
    pub weights: [f32; CHANNELS],
    /// The smoothing term of Dice.
    pub smooth: f32,
    /// Adam's learning rate.
    pub learning_rate: f32,
    /// The decrease of the lowest loss over `window` iterations below which the optimiser has converged.
    pub tolerance: f32,
    /// The number of iterations over which that decrease is measured.
    pub window: f32,
    /// The number of iterations after which the optimiser stops.
    pub max_iterations: f32,
    /// The number of parameters that are optimised; those after them stay as they are.
    pub parameter_count: f32,
    /// The length of a shift parameter of 1, where the parameters are those of a motion.
    pub shift_unit: f32,
}

impl StepConstants {
    /// The size of the struct in words.
    pub const WORDS: usize = words(size_of::<Self>());
    /// The offset of `pre` in words.
    pub const PRE: usize = words(offset_of!(Self, pre));
    /// The offset of `post` in words.
    pub const POST: usize = words(offset_of!(Self, post));
    /// The offset of `fixed_counts` in words.
    pub const FIXED_COUNTS: usize = words(offset_of!(Self, fixed_counts));
    /// The offset of `weights` in words.
    pub const WEIGHTS: usize = words(offset_of!(Self, weights));
    /// The offset of `smooth` in words.
    pub const SMOOTH: usize = words(offset_of!(Self, smooth));
    /// The offset of `learning_rate` in words.
    pub const LEARNING_RATE: usize = words(offset_of!(Self, learning_rate));
    /// The offset of `tolerance` in words.
    pub const TOLERANCE: usize = words(offset_of!(Self, tolerance));
    /// The offset of `window` in words.
    pub const WINDOW: usize = words(offset_of!(Self, window));
    /// The offset of `max_iterations` in words.
    pub const MAX_ITERATIONS: usize = words(offset_of!(Self, max_iterations));
    /// The offset of `parameter_count` in words.
    pub const PARAMETER_COUNT: usize = words(offset_of!(Self, parameter_count));
    /// The offset of `shift_unit` in words.
    pub const SHIFT_UNIT: usize = words(offset_of!(Self, shift_unit));
}

/// The state of a pair's optimisation between two iterations.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
pub struct StepState {
    /// The parameters of the next iteration.
    pub parameters: [f32; 12],
    /// Adam's running mean of the gradient.
    pub first_moments: [f32; 12],
    /// Adam's running mean of the squared gradient.
    pub second_moments: [f32; 12],
    /// The parameters of the lowest loss so far.
    pub best_parameters: [f32; 12],
    /// The lowest loss so far.
    pub best_loss: f32,
    /// Adam's two decays to the power of the iterations done.
    pub decay_powers: [f32; 2],
    /// The number of iterations done.
    pub iterations: f32,
    /// 0 while the iterations run, then [`CONVERGED`], [`STOPPED`] or [`NOT_FINITE`].
    pub status: f32,
    /// The loss of the first iteration.
    pub first_loss: f32,
    /// The loss of the last iteration.
    pub last_loss: f32,
    /// Dice of each channel at the lowest loss.
    pub best_dice: [f32; CHANNELS],
    /// Not used: makes the record a whole number of 16 bytes.
    pub padding: f32,
}

impl StepState {
    /// The size of the struct in words.
    pub const WORDS: usize = words(size_of::<Self>());
    /// The offset of `parameters` in words.
    pub const PARAMETERS: usize = words(offset_of!(Self, parameters));
    /// The offset of `first_moments` in words.
    pub const FIRST_MOMENTS: usize = words(offset_of!(Self, first_moments));
    /// The offset of `second_moments` in words.
    pub const SECOND_MOMENTS: usize = words(offset_of!(Self, second_moments));
    /// The offset of `best_parameters` in words.
    pub const BEST_PARAMETERS: usize = words(offset_of!(Self, best_parameters));
    /// The offset of `best_loss` in words.
    pub const BEST_LOSS: usize = words(offset_of!(Self, best_loss));
    /// The offset of `decay_powers` in words.
    pub const DECAY_POWERS: usize = words(offset_of!(Self, decay_powers));
    /// The offset of `iterations` in words.
    pub const ITERATIONS: usize = words(offset_of!(Self, iterations));
    /// The offset of `status` in words.
    pub const STATUS: usize = words(offset_of!(Self, status));
    /// The offset of `first_loss` in words.
    pub const FIRST_LOSS: usize = words(offset_of!(Self, first_loss));
    /// The offset of `last_loss` in words.
    pub const LAST_LOSS: usize = words(offset_of!(Self, last_loss));
    /// The offset of `best_dice` in words.
    pub const BEST_DICE: usize = words(offset_of!(Self, best_dice));
}

/// [`StepState::status`]: the loss has stopped falling.
pub const CONVERGED: f32 = 1.0;
/// [`StepState::status`]: as many iterations as were allowed have been done.
pub const STOPPED: f32 = 2.0;
/// [`StepState::status`]: the loss is not a finite number.
pub const NOT_FINITE: f32 = 3.0;

/// Adam's decay of the mean of the gradient, as PyTorch's default.
pub const BETA_1: f32 = 0.9;
/// Adam's decay of the mean of the squared gradient, as PyTorch's default.
pub const BETA_2: f32 = 0.999;
/// The term that keeps Adam's division finite, as PyTorch's default.
pub const EPSILON: f32 = 1e-8;

#[cfg(test)]
mod tests {
    use super::*;

    /// A record whose word i holds i, so that a field holds its own place.
    fn counting<T: Pod>() -> T {
        let words: Vec<f32> = (0..size_of::<T>() / 4).map(|i| i as f32).collect();
        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words))
    }

    #[test]
    fn kernels_find_every_field_where_the_host_put_it() {
        let map: PairMap = counting();
        assert_eq!(PairMap::WORDS, 25);
        for (at, field) in [
            (PairMap::MATRIX, &map.matrix[..]),
            (PairMap::REACH_LOW, &map.reach_low),
            (PairMap::REACH_HIGH, &map.reach_high),
            (PairMap::CLAMP_LOW, &map.clamp_low),
            (PairMap::CLAMP_HIGH, &map.clamp_high),
            (PairMap::RUNNING, &[map.running]),
        ] {
            assert_eq!(field[0], at as f32);
        }
        // The sweep reads the four limits as rows of three values.
        let rows = [PairMap::REACH_LOW, PairMap::REACH_HIGH, PairMap::CLAMP_LOW, PairMap::CLAMP_HIGH];
        assert!(rows.windows(2).all(|pair| pair[1] >= pair[0] + 3), "{rows:?}");

        let constants: StepConstants = counting();
        for (at, field) in [
            (StepConstants::PRE, &constants.pre[..]),
            (StepConstants::POST, &constants.post),
            (StepConstants::FIXED_COUNTS, &constants.fixed_counts),
            (StepConstants::WEIGHTS, &constants.weights),
            (StepConstants::SMOOTH, &[constants.smooth]),
            (StepConstants::LEARNING_RATE, &[constants.learning_rate]),
            (StepConstants::TOLERANCE, &[constants.tolerance]),
            (StepConstants::WINDOW, &[constants.window]),
            (StepConstants::MAX_ITERATIONS, &[constants.max_iterations]),
            (StepConstants::PARAMETER_COUNT, &[constants.parameter_count]),
            (StepConstants::SHIFT_UNIT, &[constants.shift_unit]),
        ] {
            assert_eq!(field[0], at as f32);
        }

        let state: StepState = counting();
        for (at, field) in [
            (StepState::PARAMETERS, &state.parameters[..]),
            (StepState::FIRST_MOMENTS, &state.first_moments),
            (StepState::SECOND_MOMENTS, &state.second_moments),
            (StepState::BEST_PARAMETERS, &state.best_parameters),
            (StepState::BEST_LOSS, &[state.best_loss]),
            (StepState::DECAY_POWERS, &state.decay_powers),
            (StepState::ITERATIONS, &[state.iterations]),
            (StepState::STATUS, &[state.status]),
            (StepState::FIRST_LOSS, &[state.first_loss]),
            (StepState::LAST_LOSS, &[state.last_loss]),
            (StepState::BEST_DICE, &state.best_dice),
        ] {
            assert_eq!(field[0], at as f32);
        }

        let words: Vec<u32> = (0..PairLayout::WORDS as u32).collect();
        let layout: PairLayout = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words));
        for (at, field) in [
            (PairLayout::FIXED_SIZE, layout.fixed_size[0]),
            (PairLayout::CELL_COUNTS, layout.cell_counts[0]),
            (PairLayout::MEMBERS_AT, layout.members_at),
            (PairLayout::CELLS_AT, layout.cells_at),
            (PairLayout::RECORDS, layout.records),
        ] {
            assert_eq!(field, at as u32);
        }
    }
}
