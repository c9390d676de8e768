//! Launching the sweep and the step on raw handles, for crates that hold a CubeCL client.
//!
//! What host and kernels share per pair is a struct each: [`PairLayout`], [`PairMap`], [`StepConstants`] and
//! [`StepState`]. A buffer of them is their bytes (`bytemuck::cast_slice`), one per pair.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, SUMS};
pub use nephron_kernels::affine_dice::{PairLayout, PairMap, StepConstants, StepState};
use nephron_kernels::common::cube_sum::UNITS;

use crate::error::{Error, Result};
use crate::ops::grid_sample::PaddingMode;
use crate::ops::launch::{MAX_CUBES_PER_AXIS, WORD, array, elements, fits};

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

impl SweepProblem<'_> {
    /// Refuses buffers that are too short, and more pairs or records than a grid has rows or columns.
    fn fit(&self, partials: &Handle) -> Result<()> {
        let Self { pairs, records, channels, .. } = *self;
        for (what, found) in [("pairs", pairs), ("records of a pair", records)] {
            if !(1..=MAX_CUBES_PER_AXIS).contains(&found) {
                let expected = format!("1 to {MAX_CUBES_PER_AXIS}");
                return Err(Error::argument(format!("affine_dice: {what}"), expected, found));
            }
        }
        if channels != 2 && channels != 4 {
            return Err(Error::argument("affine_dice: channels of a sweep", "2 or 4", channels));
        }
        let (layout, maps) = (pairs * PairLayout::WORDS, pairs * PairMap::WORDS);
        fits(
            "affine_dice",
            &[
                ("fixed", self.fixed, self.fixed_words, WORD),
                ("cells", self.cells, self.cells_words, WORD),
                ("layout", self.layout, layout, WORD),
                ("maps", self.maps, maps, WORD),
                ("partials", partials, elements(&[pairs, records, channels, SUMS]), WORD),
            ],
        )
    }
}

/// One sweep to `partials`: `pairs` x `records` records of `channels` x 26 values.
///
/// # Errors
/// Pairs, records or channels past their limits; a buffer that is too short.
///
/// # Safety
/// The records of `layout` describe members and cells that lie inside `fixed` and `cells`; the kernel follows them unchecked.
pub unsafe fn launch_affine_dice_sums<R: Runtime>(
    client: &ComputeClient<R>,
    problem: &SweepProblem<'_>,
    partials: &Handle,
) -> Result<()> {
    problem.fit(partials)?;
    let SweepProblem { pairs, records, channels, .. } = *problem;
    // SAFETY: members are read at voxels inside a pair's fixed grid, codes at positions checked against its cells'
    // counts, which the layout says as the caller promises; each cube writes its own record.
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
    Ok(())
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
///
/// # Errors
/// As [`launch_affine_dice_sums`].
///
/// # Safety
/// The records of `layout` have at most `records` records of partial sums each; the kernel follows them unchecked.
pub unsafe fn launch_affine_dice_step<R: Runtime>(
    client: &ComputeClient<R>,
    problem: &StepProblem<'_>,
    partials: &Handle,
) -> Result<()> {
    problem.sweep.fit(partials)?;
    let SweepProblem { pairs, records, channels, .. } = problem.sweep;
    fits(
        "affine_dice",
        &[
            ("constants", problem.constants, pairs * StepConstants::WORDS, WORD),
            ("state", problem.state, pairs * StepState::WORDS, WORD),
            ("lowest", problem.lowest, elements(&[pairs, problem.ring]), WORD),
        ],
    )?;
    // SAFETY: one cube per pair, which reads its records below `records`, as the caller promises, and writes its own record of the state, of the
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
    Ok(())
}
