//! Launching the pass over the masks and the optimiser step on raw handles, for applications with a CubeCL client of their own.
//!
//! The data that host and kernels share for each pair are the structs [`PairLayout`], [`PairMap`], [`StepConstants`] and [`StepState`]. A
//! buffer holds their bytes (`bytemuck::cast_slice`), one struct for each pair.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, SUMS};
pub use nephron_kernels::affine_dice::{PairLayout, PairMap, StepConstants, StepState};
use nephron_kernels::common::cube_sum::UNITS;

use crate::error::{Error, Result};
use crate::ops::grid_sample::PaddingMode;
use crate::ops::launch::{MAX_CUBES_PER_AXIS, WORD, array, elements, fits};

/// The buffers of a pass over pairs of masks.
#[derive(Debug, Clone, Copy)]
pub struct SweepProblem<'a> {
    /// The number of pairs, at most 65,535.
    pub pairs: usize,
    /// The row stride of the partial sums in records: at least the largest number of records of a pair.
    pub records: usize,
    /// The number of channels of the kernel, 2 or 4.
    pub channels: usize,
    /// The value of the moving masks outside their grids.
    pub padding: PaddingMode,
    /// The channel memberships of all fixed masks: one byte for each voxel, with bit c set where channel c contains it.
    pub fixed: &'a Handle,
    /// The length of `fixed` in 32-bit words.
    pub fixed_words: usize,
    /// The codes of the cells of all moving masks.
    pub cells: &'a Handle,
    /// The length of `cells` in 32-bit words.
    pub cells_words: usize,
    /// One [`PairLayout`] for each pair.
    pub layout: &'a Handle,
    /// One [`PairMap`] for each pair.
    pub maps: &'a Handle,
}

impl SweepProblem<'_> {
    /// Checks that buffers are long enough, and that a grid has enough rows and columns for pairs and records.
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

/// One pass over the masks. Writes partial sums to `partials`: `pairs` x `records` records of `channels` x 26 values.
///
/// # Errors
/// Pairs, records or channels above their limits; a buffer that is too short.
///
/// # Safety
/// Memberships and cells that the records of `layout` describe are inside `fixed` and `cells`; the kernel does not check them.
pub unsafe fn launch_affine_dice_sums<R: Runtime>(
    client: &ComputeClient<R>,
    problem: &SweepProblem<'_>,
    partials: &Handle,
) -> Result<()> {
    problem.fit(partials)?;
    let SweepProblem { pairs, records, channels, .. } = *problem;
    // SAFETY: members are read at voxels inside a pair's fixed grid, codes at positions checked against its cells'
    // counts, which the layout contains as the caller guarantees; each cube writes its own record.
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

/// The buffers of the end of an iteration for pairs of masks.
#[derive(Debug)]
pub struct StepProblem<'a> {
    /// The buffers of the pass whose records are added.
    pub sweep: SweepProblem<'a>,
    /// One [`StepConstants`] for each pair.
    pub constants: &'a Handle,
    /// One [`StepState`] for each pair.
    pub state: &'a Handle,
    /// The lowest losses of the last iterations: f32, `ring` per pair, undefined before the first iteration.
    pub lowest: &'a Handle,
    /// The number of losses kept per pair, above the window of every pair.
    pub ring: usize,
    /// The number of iterations between two tests for convergence.
    pub check_every: usize,
    /// Whether the parameters of all pairs are those of motions, rather than those of matrices.
    pub motion: bool,
}

/// The end of an iteration: from the records in `partials` the loss, its gradient and a step of Adam, written to the
/// state and the maps of the pass.
///
/// # Errors
/// As [`launch_affine_dice_sums`].
///
/// # Safety
/// No pair of `layout` has more than `records` records of partial sums; the kernel does not check it.
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
    // SAFETY: one cube per pair, which reads its records below `records`, as the caller guarantees, and writes its own record of the state, of the
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
