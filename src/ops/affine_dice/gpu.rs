//! Launching the sweep and what prepares it.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::affine_dice::{self as kernels, BRICK, STATS, SUMS};
use nephron_kernels::common::cube_sum::UNITS;

use super::geometry::Limits;
use super::{AffineDiceSums, Bounds, ChannelSums, Matrix, Stats};
use crate::device::Gpu;
use crate::device::gpu::with_client;
use crate::error::Result;
use crate::ops::grid_sample::PaddingMode;
use crate::ops::launch::{array, grid};
use crate::tensor::{DType, Tensor};

/// Cubes of a sweep at most: two for each multiprocessor of the largest GPUs, and few records to add up.
const MAX_CUBES: usize = 528;
/// Cubes that look for labels at most.
const MAX_STATS_CUBES: usize = 256;
/// Voxels a unit of those looks at before there are more cubes.
const STATS_CHAIN: usize = 64;

/// The buffers of a sweep and their sizes, (x, y, z).
#[derive(Debug, Clone, Copy)]
pub struct SweepProblem<'a> {
    /// Labels of the fixed mask, u8 in words.
    pub fixed: &'a Handle,
    /// Its size.
    pub size: [usize; 3],
    /// Codes of the moving mask's cells, two a word.
    pub cells: &'a Handle,
    /// Cells along each axis.
    pub cell_counts: [usize; 3],
    /// 12 values: reach and clamp limits.
    pub limits: &'a Handle,
    /// What lies outside the moving mask.
    pub padding: PaddingMode,
}

impl SweepProblem<'_> {
    /// Records of 2 x 26 values that [`launch_affine_dice_sums`] writes. Depends on the problem alone.
    pub fn records(&self) -> usize {
        (0..3).map(|k| self.size[k].div_ceil(BRICK[k])).product::<usize>().min(MAX_CUBES)
    }
}

/// One sweep: `matrix` (12 values, positions in cells from the middle of the fixed grid) to `partials`.
pub fn launch_affine_dice_sums<R: Runtime>(
    client: &ComputeClient<R>,
    problem: &SweepProblem<'_>,
    matrix: &Handle,
    partials: &Handle,
) {
    let [w, h, d] = problem.size;
    let [nx, ny, nz] = problem.cell_counts;
    let records = problem.records();
    let cells = (nx * ny * nz).div_ceil(2);
    // SAFETY: labels are read at voxels inside the fixed grid, codes at positions checked against the cells' counts;
    // each cube writes its own record.
    unsafe {
        kernels::affine_dice_sums::launch_unchecked::<R>(
            client,
            CubeCount::Static(records as u32, 1, 1),
            CubeDim::new_1d(UNITS),
            array(problem.fixed, (w * h * d).div_ceil(4)),
            array(problem.cells, cells),
            array(matrix, 12),
            array(problem.limits, 12),
            array(partials, records * 2 * SUMS),
            w,
            h,
            d,
            nx,
            ny,
            nz,
            problem.padding == PaddingMode::Border,
        );
    }
}

/// A mask on the device, prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) device: Gpu,
    fixed: Handle,
    cells: Handle,
    cell_counts: [usize; 3],
    limits: Handle,
}

/// Counts and bounds of a label map: partial records, finished here.
pub(super) fn stats(device: &Gpu, labels: &Tensor, [w, h, d]: [usize; 3]) -> Result<Stats> {
    let voxels = w * h * d;
    let cubes = voxels.div_ceil(UNITS as usize * STATS_CHAIN).clamp(1, MAX_STATS_CUBES);
    let (input, records) = (labels.gpu_handle(device)?, device.alloc(cubes * STATS * 4)?);
    // SAFETY: labels are read below `voxels`; each cube writes its own record.
    with_client!(device, client => unsafe {
        kernels::mask_stats::launch_unchecked(
            client, CubeCount::Static(cubes as u32, 1, 1), CubeDim::new_1d(UNITS),
            array(&input, voxels.div_ceil(4)), array(&records, cubes * STATS), voxels, w, h,
        )
    });
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&device.read(&records, cubes * STATS * 4)?);
    let mut stats = Stats::default();
    for record in words.chunks_exact(STATS) {
        stats.counts[0] += f64::from(record[0]);
        stats.counts[1] += f64::from(record[1]);
        // On a device that only compiles the words mean nothing; a box that is none is left out.
        let low: [usize; 3] = std::array::from_fn(|k| record[2 + k] as usize);
        let high: [usize; 3] = std::array::from_fn(|k| (u32::MAX - record[5 + k]) as usize);
        if record[1] > 0 && (0..3).all(|k| low[k] <= high[k] && high[k] < [w, h, d][k]) {
            let bounds = Bounds { low, high };
            stats.bounds = Some(stats.bounds.map_or(bounds, |other| other.union(bounds)));
        }
    }
    if device.compiles_only() {
        stats.bounds = Some(Bounds { low: [0; 3], high: [w - 1, h - 1, d - 1] });
    }
    Ok(stats)
}

/// Cell codes and limits on the device.
pub(super) fn prepare(
    device: &Gpu,
    fixed: &Tensor,
    moving: &Tensor,
    [w, h, d]: [usize; 3],
    bounds: &Bounds,
    limits: &Limits,
) -> Result<Prepared> {
    let cell_counts @ [nx, ny, nz] = bounds.cells();
    let count = nx * ny * nz;
    let words = count.div_ceil(2);
    let (labels, cells) = (moving.gpu_handle(device)?, device.alloc(words * 4)?);
    let (cubes, dim) = grid(words);
    let [low_x, low_y, low_z] = bounds.low;
    // SAFETY: each unit writes the word of its own position below `words`; labels are read inside the moving grid.
    with_client!(device, client => unsafe {
        kernels::mask_cells::launch_unchecked(
            client, cubes, dim, array(&labels, (w * h * d).div_ceil(4)), array(&cells, words),
            count, nx, ny, low_x, low_y, low_z, w, h, d,
        )
    });
    let flat: Vec<f32> = [limits.reach, limits.clamp].as_flattened().as_flattened().iter().map(|v| *v as f32).collect();
    let limits = device.upload(bytemuck::cast_slice(&flat))?;
    Ok(Prepared { device: device.clone(), fixed: fixed.gpu_handle(device)?, cells, cell_counts, limits })
}

impl Prepared {
    pub(super) fn problem(&self, size: [usize; 3], padding: PaddingMode) -> SweepProblem<'_> {
        let Self { fixed, cells, cell_counts, limits, .. } = self;
        SweepProblem { fixed, size, cells, cell_counts: *cell_counts, limits, padding }
    }
}

/// One sweep; its records are added up here, in f64.
pub(super) fn sums(
    prepared: &Prepared,
    size: [usize; 3],
    padding: PaddingMode,
    matrix: &Matrix,
) -> Result<AffineDiceSums> {
    let device = &prepared.device;
    let problem = prepared.problem(size, padding);
    let records = problem.records();
    let matrix = device.upload(bytemuck::cast_slice(&to_f32(&from_middle(matrix, size))))?;
    let partials = Tensor::gpu_alloc(device, [1, 1, 1, records, 2 * SUMS], DType::F32)?;
    let out = partials.gpu_handle(device)?;
    with_client!(device, client => launch_affine_dice_sums(client, &problem, &matrix, &out));
    let mut total = [0.0f64; 2 * SUMS];
    for record in partials.to_ndhwc()?.chunks_exact(2 * SUMS) {
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
    Ok(AffineDiceSums([channel(&total[..SUMS]), channel(&total[SUMS..])]))
}

/// The map with its input counted from the middle of the grid, where voxels have exact coordinates.
pub(super) fn from_middle(matrix: &Matrix, size: [usize; 3]) -> Matrix {
    matrix.map(|m| [m[0], m[1], m[2], m[3] + (0..3).map(|k| m[k] * middle(size[k])).sum::<f64>()])
}

pub(super) fn middle(size: usize) -> f64 {
    (size as f64 - 1.0) / 2.0
}

pub(super) fn to_f32(matrix: &Matrix) -> [f32; 12] {
    std::array::from_fn(|i| matrix[i / 4][i % 4] as f32)
}
