//! The launches of the registration loss on a GPU: preparing masks, and passes and optimiser steps over prepared masks.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, STATS};
use nephron_kernels::common::cube_sum::UNITS;

use super::Bounds;
use super::gpu::{StepProblem, SweepProblem, launch_affine_dice_step, launch_affine_dice_sums};
use super::prepare::{cell_words, ensure_cells};
use crate::error::Result;
use crate::ops::launch::{WORD, array, elements, fits, grid, launches};

/// Largest number of cubes that compute counts and bounds of labels.
pub(super) const MAX_STATS_CUBES: usize = 256;

launches! {
    pub(crate) trait AffineDiceLaunches {
        fn mask_members = launch_members(labels: &Handle, table: &Handle, members: &Handle, voxels: usize) -> Result<()>;
        fn mask_stats = launch_stats(members: &Handle, records: &Handle, cubes: usize, size: [usize; 3]) -> Result<()>;
        fn mask_cells = launch_cells(
            members: &Handle, cells: &Handle, size: [usize; 3], bounds: &Bounds, channels: usize,
        ) -> Result<()>;
        fn copy_words = launch_copy_words(from: &Handle, words: usize, to: &Handle, at: usize) -> Result<()>;
        fn affine_dice_sweep = sweep(problem: &SweepProblem<'_>, partials: &Handle) -> Result<()>;
        fn affine_dice_iterate = iterate(problem: &StepProblem<'_>, partials: &Handle, count: usize) -> Result<()>;
    }
}

/// A pass over masks that [`super::prepare`] prepared.
fn sweep<R: Runtime>(client: &ComputeClient<R>, problem: &SweepProblem<'_>, partials: &Handle) -> Result<()> {
    // SAFETY: the layout describes the memberships and cells that were made together with it.
    unsafe { launch_affine_dice_sums(client, problem, partials) }
}

/// `count` iterations over masks that [`super::prepare`] prepared, each a pass and a step.
fn iterate<R: Runtime>(
    client: &ComputeClient<R>,
    problem: &StepProblem<'_>,
    partials: &Handle,
    count: usize,
) -> Result<()> {
    for _ in 0..count {
        sweep(client, &problem.sweep, partials)?;
        // SAFETY: as for the pass.
        unsafe { launch_affine_dice_step(client, problem, partials)? };
    }
    Ok(())
}

/// Computes the channel memberships of `voxels` labels, from a `table` of 256 bytes.
fn launch_members<R: Runtime>(
    client: &ComputeClient<R>,
    labels: &Handle,
    table: &Handle,
    members: &Handle,
    voxels: usize,
) -> Result<()> {
    let words = voxels.div_ceil(4);
    fits(
        "affine_dice",
        &[("labels", labels, words, WORD), ("table", table, 64, WORD), ("members", members, words, WORD)],
    )?;
    let (count, dim) = grid(words)?;
    // SAFETY: each unit reads and writes the word of its own position below `words`; the table has a byte for any label.
    unsafe {
        let (labels, table, members) = (array(labels, words), array(table, 64), array(members, words));
        kernels::mask_members::launch_unchecked::<R>(client, count, dim, labels, table, members);
    }
    Ok(())
}

/// Computes counts and bounds of the channel memberships of a mask of `size` (x, y, z): one record for each of `cubes` cubes.
fn launch_stats<R: Runtime>(
    client: &ComputeClient<R>,
    members: &Handle,
    records: &Handle,
    cubes: usize,
    size: [usize; 3],
) -> Result<()> {
    let voxels = elements(&size);
    let words = voxels.div_ceil(4);
    let cubes = cubes.clamp(1, MAX_STATS_CUBES);
    fits("affine_dice", &[("members", members, words, WORD), ("records", records, cubes * STATS, WORD)])?;
    // SAFETY: members are read below `voxels`; each cube writes its own record.
    unsafe {
        kernels::mask_stats::launch_unchecked::<R>(
            client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(UNITS),
            array(members, words),
            array(records, cubes * STATS),
            voxels,
            size[0],
            size[1],
        );
    }
    Ok(())
}

/// Computes the codes of the cells in `bounds` from the channel memberships of a mask of `size` (x, y, z).
fn launch_cells<R: Runtime>(
    client: &ComputeClient<R>,
    members: &Handle,
    cells: &Handle,
    [w, h, d]: [usize; 3],
    bounds: &Bounds,
    channels: usize,
) -> Result<()> {
    let counts @ [nx, ny, _] = bounds.cells();
    let (total, words, read) = (ensure_cells(counts)?, cell_words(counts, channels), elements(&[w, h, d]).div_ceil(4));
    fits("affine_dice", &[("members", members, read, WORD), ("cells", cells, words, WORD)])?;
    let (count, dim) = grid(words)?;
    let [low_x, low_y, low_z] = bounds.low;
    // SAFETY: each unit writes the word of its own position below `words`; members are read inside the moving grid.
    unsafe {
        kernels::mask_cells::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(members, read),
            array(cells, words),
            total,
            nx,
            ny,
            low_x,
            low_y,
            low_z,
            w,
            h,
            d,
            channels > 2,
        );
    }
    Ok(())
}

/// Copies `words` words to another buffer, to the words from `at` on.
fn launch_copy_words<R: Runtime>(
    client: &ComputeClient<R>,
    from: &Handle,
    words: usize,
    to: &Handle,
    at: usize,
) -> Result<()> {
    let end = at.saturating_add(words);
    fits("affine_dice", &[("words", from, words, WORD), ("words together", to, end, WORD)])?;
    let (count, dim) = grid(words)?;
    // SAFETY: each unit copies the word of its own position, below the source's count; the destination has room for all.
    unsafe {
        kernels::copy_words::launch_unchecked::<R>(client, count, dim, array(from, words), array(to, end), at);
    }
    Ok(())
}
