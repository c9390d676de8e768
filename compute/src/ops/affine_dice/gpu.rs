//! Launching the sweep and the step on raw handles, for crates that hold a CubeCL client.
//!
//! What host and kernels share per pair is a struct each: [`PairLayout`], [`PairMap`], [`StepConstants`] and
//! [`StepState`]. A buffer of them is their bytes (`bytemuck::cast_slice`), one per pair.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, SUMS};
pub use nephron_kernels::affine_dice::{PairLayout, PairMap, StepConstants, StepState};
use nephron_kernels::common::cube_sum::UNITS;

use crate::ops::grid_sample::PaddingMode;
use crate::ops::launch::array;

/// The buffers of a sweep of some pairs of masks.
#[derive(Debug, Clone, Copy)]
pub struct SweepProblem<'a> {
    /// The number of pairs, at most 65,535.
    pub pairs: usize,
    /// The row stride of the partial sums in records: at least as many as the pair that makes most has.
    pub records: usize,
    /// The number of channels that are swept, 2 or 4.
    pub channels: usize,
    /// What lies outside the moving masks.
    pub padding: PaddingMode,
    /// The members of all fixed masks: bit c of a byte per voxel says whether channel c has it.
    pub fixed: &'a Handle,
    /// The length of `fixed` in 32-bit words.
    pub fixed_words: usize,
    /// The codes of the cells of all moving masks.
    pub cells: &'a Handle,
    /// The length of `cells` in 32-bit words.
    pub cells_words: usize,
    /// A [`PairLayout`] per pair.
    pub layout: &'a Handle,
    /// A [`PairMap`] per pair.
    pub maps: &'a Handle,
}

/// One sweep to `partials`: `pairs` x `records` records of `channels` x 26 values.
pub fn launch_affine_dice_sums<R: Runtime>(client: &ComputeClient<R>, problem: &SweepProblem<'_>, partials: &Handle) {
    let SweepProblem { pairs, records, channels, .. } = *problem;
    // SAFETY: members are read at voxels inside a pair's fixed grid, codes at positions checked against its cells'
    // counts; each cube writes its own record.
    unsafe {
        kernels::affine_dice_sums::launch_unchecked::<R>(
            client,
            CubeCount::Static(records as u32, pairs as u32, 1),
            CubeDim::new_1d(UNITS),
            array(problem.fixed, problem.fixed_words),
            array(problem.cells, problem.cells_words),
            array(problem.layout, pairs * PairLayout::WORDS),
            array(problem.maps, pairs * PairMap::WORDS),
            array(partials, pairs * records * channels * SUMS),
            channels,
            problem.padding == PaddingMode::Border,
        );
    }
}

/// The buffers of the end of an iteration for some pairs.
#[derive(Debug)]
pub struct StepProblem<'a> {
    /// The sweep whose records are added up.
    pub sweep: SweepProblem<'a>,
    /// A [`StepConstants`] per pair.
    pub constants: &'a Handle,
    /// A [`StepState`] per pair.
    pub state: &'a Handle,
    /// The lowest losses of the last iterations: f32, `ring` per pair, undefined before the first iteration.
    pub lowest: &'a Handle,
    /// The number of losses kept per pair, above the window of every pair.
    pub ring: usize,
    /// The number of iterations between two tests for convergence.
    pub check_every: usize,
    /// Whether the parameters of all pairs are those of motions, else those of matrices.
    pub motion: bool,
}

/// The end of an iteration: from the records in `partials` the loss, its gradient and a step of Adam, written to the
/// state and the maps of the sweep.
pub fn launch_affine_dice_step<R: Runtime>(client: &ComputeClient<R>, problem: &StepProblem<'_>, partials: &Handle) {
    let SweepProblem { pairs, records, channels, .. } = problem.sweep;
    // SAFETY: one cube per pair, which reads its records below `records` and writes its own record of the state, of the
    // maps and of the ring.
    unsafe {
        kernels::affine_dice_step::launch_unchecked::<R>(
            client,
            CubeCount::Static(pairs as u32, 1, 1),
            CubeDim::new_1d(UNITS),
            array(partials, pairs * records * channels * SUMS),
            array(problem.sweep.layout, pairs * PairLayout::WORDS),
            array(problem.constants, pairs * StepConstants::WORDS),
            array(problem.state, pairs * StepState::WORDS),
            array(problem.sweep.maps, pairs * PairMap::WORDS),
            array(problem.lowest, pairs * problem.ring),
            records,
            problem.ring,
            problem.check_every,
            channels,
            problem.motion,
        );
    }
}
