//! Launching the sweep and what prepares it.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, BRICK, CHANNELS, LAYOUT, MAP, STATS, SUMS};
use nephron_kernels::common::cube_sum::UNITS;

use super::geometry::Limits;
use super::{Bounds, ChannelSums, Channels, Matrix, Stats};
use crate::device::Gpu;
use crate::device::gpu::with_client;
use crate::error::{Error, Result};
use crate::ops::grid_sample::PaddingMode;
use crate::ops::launch::{array, grid};
use crate::tensor::{DType, Tensor};

/// Cubes that sweep a pair at most: two for each multiprocessor of the largest GPUs, and few records to add up.
const MAX_CUBES: usize = 528;
/// Cubes that look for labels at most.
const MAX_STATS_CUBES: usize = 256;
/// Voxels a unit of those looks at before there are more cubes.
const STATS_CHAIN: usize = 64;

/// Cells of a mask at most.
const MAX_CELLS: usize = (u32::MAX >> 1) as usize;

/// Channels of the kernel that sweeps `channels`: the next even number. For 26 and 78 sums NVRTC aims at a cube more a
/// multiprocessor than there are registers for, and spills.
pub(super) fn swept(channels: usize) -> usize {
    channels.next_multiple_of(2)
}

/// The buffers of a sweep of some pairs of masks, at most 65535.
#[derive(Debug, Clone, Copy)]
pub struct SweepProblem<'a> {
    /// How many.
    pub pairs: usize,
    /// Records of the pair that makes most.
    pub records: usize,
    /// Channels, 2 or 4.
    pub channels: usize,
    /// What lies outside the moving masks.
    pub padding: PaddingMode,
    /// Which channels the fixed voxels are in, a byte a voxel.
    pub fixed: &'a Handle,
    /// Its words.
    pub fixed_words: usize,
    /// Codes of the moving masks' cells.
    pub cells: &'a Handle,
    /// Its words.
    pub cells_words: usize,
    /// A row of words a pair, as the kernels document them.
    pub layout: &'a Handle,
    /// A row of values a pair: the matrix (positions in cells from the middle of the fixed grid) and its limits.
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
            array(problem.layout, pairs * LAYOUT),
            array(problem.maps, pairs * MAP),
            array(partials, pairs * records * channels * SUMS),
            channels,
            problem.padding == PaddingMode::Border,
        );
    }
}

/// A pair of masks on the device, prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) device: Gpu,
    /// As swept.
    pub(super) channels: usize,
    pub(super) padding: PaddingMode,
    /// Of the fixed grid, (x, y, z).
    pub(super) size: [usize; 3],
    pub(super) fixed: Handle,
    pub(super) cells: Handle,
    pub(super) cell_counts: [usize; 3],
    pub(super) layout: Handle,
    pub(super) limits: Limits,
}

/// A pair's row of the layout; its members and cells begin at words `at`.
pub(super) fn layout(size: [usize; 3], cells: [usize; 3], at: [usize; 2]) -> [u32; LAYOUT] {
    let [w, h, d] = size;
    let [x, y, z] = cells;
    // Voxels are below 2^31 by `check_mask`, cells by `check_cells`, and places below 2^32 by `steps::together`.
    [w, h, d, x, y, z, at[0], at[1], records(size)].map(|v| v as u32)
}

/// Depends on the pair alone, so that its sums do not depend on what else is swept.
fn records(size: [usize; 3]) -> usize {
    (0..3).map(|k| size[k].div_ceil(BRICK[k])).product::<usize>().min(MAX_CUBES)
}

/// A pair's row of the maps, running.
pub(super) fn map(matrix: &Matrix, limits: &Limits) -> [f32; MAP] {
    let limits = [limits.reach, limits.clamp];
    let values = matrix.as_flattened().iter().chain(limits.as_flattened().as_flattened()).chain(&[1.0]);
    let mut row = [0.0; MAP];
    row.iter_mut().zip(values).for_each(|(out, v)| *out = *v as f32);
    row
}

/// Counts and bounds of both masks, and, where there is something to sweep, the pair on the device.
pub(super) fn prepare(
    device: &Gpu,
    [(fixed, size), (moving, moving_size)]: [(&Tensor, [usize; 3]); 2],
    padding: PaddingMode,
    channels: &Channels,
) -> Result<([Stats; 2], Option<Prepared>)> {
    let table = device.upload(channels.table())?;
    let fixed = members(device, fixed, &table)?;
    let moving = members(device, moving, &table)?;
    let stats = [stats(device, &fixed, size)?, stats(device, &moving, moving_size)?];
    let Some(bounds) = stats[1].bounds else { return Ok((stats, None)) };
    let (cells, cell_counts) = cells(device, &moving, moving_size, &bounds, channels.count())?;
    let prepared = Prepared {
        device: device.clone(),
        channels: swept(channels.count()),
        padding,
        size,
        fixed,
        cells,
        cell_counts,
        layout: device.upload(bytemuck::cast_slice(&layout(size, cell_counts, [0, 0])))?,
        limits: Limits::new(&bounds, moving_size, padding),
    };
    Ok((stats, Some(prepared)))
}

/// Which channels each voxel is in.
fn members(device: &Gpu, labels: &Tensor, table: &Handle) -> Result<Handle> {
    let words = labels.len().div_ceil(4);
    let (input, output) = (labels.gpu_handle(device)?, device.alloc(words * 4)?);
    let (cubes, dim) = grid(words);
    // SAFETY: each unit reads and writes the word of its own position below `words`; the table has a byte for any
    // label.
    with_client!(device, client => unsafe {
        kernels::mask_members::launch_unchecked(
            client, cubes, dim, array(&input, words), array(table, 64), array(&output, words),
        )
    });
    Ok(output)
}

/// Counts and bounds of members: partial records, finished here.
fn stats(device: &Gpu, members: &Handle, [w, h, d]: [usize; 3]) -> Result<Stats> {
    let voxels = w * h * d;
    let cubes = voxels.div_ceil(UNITS as usize * STATS_CHAIN).clamp(1, MAX_STATS_CUBES);
    let records = device.alloc(cubes * STATS * 4)?;
    // SAFETY: members are read below `voxels`; each cube writes its own record.
    with_client!(device, client => unsafe {
        kernels::mask_stats::launch_unchecked(
            client, CubeCount::Static(cubes as u32, 1, 1), CubeDim::new_1d(UNITS),
            array(members, voxels.div_ceil(4)), array(&records, cubes * STATS), voxels, w, h,
        )
    });
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&device.read(&records, cubes * STATS * 4)?);
    let mut stats = Stats::default();
    for record in words.chunks_exact(STATS) {
        let (counts, bounds) = record.split_at(CHANNELS);
        stats.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += f64::from(*count));
        // On a device that only compiles the words mean nothing; a box that is none is left out.
        let low: [usize; 3] = std::array::from_fn(|k| bounds[k] as usize);
        let high: [usize; 3] = std::array::from_fn(|k| (u32::MAX - bounds[3 + k]) as usize);
        if counts.iter().any(|c| *c > 0) && (0..3).all(|k| low[k] <= high[k] && high[k] < [w, h, d][k]) {
            let bounds = Bounds { low, high };
            stats.bounds = Some(stats.bounds.map_or(bounds, |other| other.union(bounds)));
        }
    }
    if device.compiles_only() {
        stats.bounds = Some(Bounds { low: [0; 3], high: [w - 1, h - 1, d - 1] });
    }
    Ok(stats)
}

/// Codes of the cells in a box of members, and how many there are along each axis.
fn cells(
    device: &Gpu,
    members: &Handle,
    [w, h, d]: [usize; 3],
    bounds: &Bounds,
    channels: usize,
) -> Result<(Handle, [usize; 3])> {
    let counts @ [nx, ny, _] = bounds.cells();
    let total = check_cells(counts)?;
    let words = cell_words(counts, channels);
    let cells = device.alloc(words * 4)?;
    let (cubes, dim) = grid(words);
    let [low_x, low_y, low_z] = bounds.low;
    // SAFETY: each unit writes the word of its own position below `words`; members are read inside the moving grid.
    with_client!(device, client => unsafe {
        kernels::mask_cells::launch_unchecked(
            client, cubes, dim, array(members, (w * h * d).div_ceil(4)), array(&cells, words),
            total, nx, ny, low_x, low_y, low_z, w, h, d, channels > 2,
        )
    });
    Ok((cells, counts))
}

/// How many there are. Kernels index them with 32 bits, and a unit's last step goes past the end; with one more along
/// each axis than voxels they may be too many where the voxels are not.
fn check_cells(counts: [usize; 3]) -> Result<usize> {
    let total = counts.iter().fold(1, |product: usize, n| product.saturating_mul(*n));
    if total > MAX_CELLS {
        let found = format!("{total} ({} x {} x {})", counts[0], counts[1], counts[2]);
        return Err(Error::shape("affine_dice: moving", format!("{MAX_CELLS} cells around its labels at most"), found));
    }
    Ok(total)
}

fn cell_words(counts: [usize; 3], channels: usize) -> usize {
    counts.iter().product::<usize>().div_ceil(if channels > 2 { 1 } else { 2 })
}

impl Prepared {
    /// Words of members and of cells.
    pub(super) fn words(&self) -> [usize; 2] {
        [self.size.iter().product::<usize>().div_ceil(4), cell_words(self.cell_counts, self.channels)]
    }

    /// Records that a sweep makes.
    pub(super) fn records(&self) -> usize {
        records(self.size)
    }
}

/// One sweep; its records are added up here, in f64.
pub(super) fn sums(prepared: &Prepared, matrix: &Matrix) -> Result<Vec<ChannelSums>> {
    let Prepared { device, channels, size, padding, fixed, cells, layout, limits, .. } = prepared;
    let (channels, size, [fixed_words, cells_words]) = (*channels, *size, prepared.words());
    let records = prepared.records();
    let maps = device.upload(bytemuck::cast_slice(&map(&from_middle(matrix, size), limits)))?;
    let partials = Tensor::gpu_alloc(device, [1, 1, 1, records, channels * SUMS], DType::F32)?;
    let out = partials.gpu_handle(device)?;
    let padding = *padding;
    let problem = SweepProblem {
        pairs: 1,
        records,
        channels,
        padding,
        fixed,
        fixed_words,
        cells,
        cells_words,
        layout,
        maps: &maps,
    };
    with_client!(device, client => launch_affine_dice_sums(client, &problem, &out));
    let mut total = vec![0.0f64; channels * SUMS];
    for record in partials.to_ndhwc()?.chunks_exact(channels * SUMS) {
        for (total, value) in total.iter_mut().zip(record) {
            *total += f64::from(*value);
        }
    }
    let channel = |values: &[f64]| {
        let matrix = |at: usize| -> Matrix {
            std::array::from_fn(|r| {
                let row = &values[at + 4 * r..][..4];
                // Positions counted from the middle of the grid, moved to count from its first voxel.
                std::array::from_fn(|k| row[k] + if k < 3 { row[3] * middle(size[k]) } else { 0.0 })
            })
        };
        ChannelSums { intersection: values[0], p: values[1], g: 0.0, all: matrix(2), within: matrix(14) }
    };
    Ok(total.chunks_exact(SUMS).map(channel).collect())
}

/// The map with its input counted from the middle of the grid, where voxels have exact coordinates.
pub(super) fn from_middle(matrix: &Matrix, size: [usize; 3]) -> Matrix {
    matrix.map(|m| [m[0], m[1], m[2], m[3] + (0..3).map(|k| m[k] * middle(size[k])).sum::<f64>()])
}

fn middle(size: usize) -> f64 {
    (size as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 x 1 x (2^31 - 1) voxels pass as a mask, and have 2 x 2 x 2^31 cells.
    #[test]
    fn cells_beyond_31_bits_are_refused() {
        let cells = |size: [usize; 3]| check_cells(Bounds { low: [0; 3], high: size.map(|n| n - 1) }.cells());
        assert_eq!(cells([1; 3]).expect("eight corners' worth"), 8);
        assert_eq!(cells([1023, 1023, 2046]).expect("just few enough"), (1 << 31) - (1 << 20));
        for (size, found) in
            [([1023, 1023, 2047], "2147483648 (1024 x 1024 x 2048)"), ([MAX_CELLS, 1, 1], "8589934592")]
        {
            let message = cells(size).expect_err("refused").to_string();
            assert!(message.contains("2147483647 cells") && message.contains(found), "{message}");
        }
    }
}
