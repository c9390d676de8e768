//! Preparing pairs of masks on a GPU: channel memberships of the voxels, counts and bounds, and the codes of the moving mask's cells.
//! Everything is launched for all pairs before the host waits once for the counts and bounds of all masks.

use cubecl::server::Handle;
use nephron_kernels::affine_dice::{BRICK, CHANNELS, PairLayout, PairMap, STATS};
use nephron_kernels::common::cube_sum::UNITS;

use super::geometry::Limits;
use super::launches::MAX_STATS_CUBES;
use super::{Bounds, Channels, Matrix, Parametrization, Stats, into_cells};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::grid_sample::PaddingMode;
use crate::ops::launch::WORD;
use crate::tensor::Tensor;

/// Largest number of cubes that work on a pair: two for each multiprocessor of the largest GPUs, with few records to add.
const MAX_CUBES: usize = 528;
/// Number of voxels for which a unit of those kernels works before more cubes are used.
const STATS_CHAIN: usize = 64;

/// Largest number of cells of a mask.
const MAX_CELLS: usize = (u32::MAX >> 1) as usize;

/// Number of channels of the kernel for `channels` channels: the next even number. For 26 and 78 sums NVRTC aims at one more cube per
/// multiprocessor than there are registers for, and spills.
fn swept(channels: usize) -> usize {
    channels.next_multiple_of(2)
}

/// The values as f32, padded with zeros to the length of a record's field.
pub(in crate::ops) fn narrow<const N: usize>(values: &[f64]) -> [f32; N] {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(0.0) as f32)
}

/// A pair of masks on the device whose moving mask is not empty.
#[derive(Debug)]
pub(in crate::ops) struct Prepared {
    pub(in crate::ops) device: Gpu,
    /// The number of channels of the kernel.
    pub(in crate::ops) channels: usize,
    pub(super) padding: PaddingMode,
    /// The size of the fixed grid, (x, y, z).
    pub(super) size: [usize; 3],
    pub(super) members: Handle,
    pub(super) cells: Handle,
    /// The [`PairLayout`] of the pair on its own.
    pub(super) layout: Handle,
    /// The box around the moving mask's labels.
    pub(super) bounds: Bounds,
    limits: Limits,
}

/// Counts and bounds of the masks of each pair (fixed, moving) and, where the moving mask is not empty, the pair on the device. Waits for
/// the device once, whatever the number of pairs.
pub(super) fn prepare(
    device: &Gpu,
    pairs: &[[(&Tensor, [usize; 3]); 2]],
    padding: PaddingMode,
    channels: &Channels,
) -> Result<Vec<([Stats; 2], Option<Prepared>)>> {
    let table = device.upload(channels.table())?;
    let masks = pairs
        .iter()
        .flatten()
        .map(|(mask, size)| Ok((members(device, mask, &table)?, *size)))
        .collect::<Result<Vec<(Handle, [usize; 3])>>>()?;
    let stats = stats(device, &masks)?;
    let pair = |(masks, stats): (&[(Handle, [usize; 3])], &[Stats])| {
        let ([(fixed, size), (moving, moving_size)], &[of_fixed, of_moving]) = (masks, stats) else {
            return Err(Error::argument("affine_dice: masks", "two of each pair", masks.len()));
        };
        let prepared = |bounds: Bounds| {
            let cells = cells(device, moving, *moving_size, &bounds, channels.count())?;
            Ok::<_, Error>(Prepared {
                device: device.clone(),
                channels: swept(channels.count()),
                padding,
                size: *size,
                members: fixed.clone(),
                cells,
                layout: device.upload(bytemuck::bytes_of(&layout(*size, &bounds, [0, 0])))?,
                bounds,
                limits: Limits::new(&bounds, *moving_size, padding),
            })
        };
        Ok(([of_fixed, of_moving], of_moving.bounds.map(prepared).transpose()?))
    };
    masks.chunks(2).zip(stats.chunks(2)).map(pair).collect()
}

/// The channel memberships of each voxel.
fn members(device: &Gpu, labels: &Tensor, table: &Handle) -> Result<Handle> {
    let voxels = labels.len();
    let (input, output) = (labels.gpu_handle(device)?, device.alloc(voxels.div_ceil(4) * WORD)?);
    device.run(|client| client.mask_members(&input, table, &output, voxels))?;
    Ok(output)
}

/// Counts and bounds of the channel memberships of each mask: partial records of all masks, which are added after one wait.
fn stats(device: &Gpu, masks: &[(Handle, [usize; 3])]) -> Result<Vec<Stats>> {
    let records = masks
        .iter()
        .map(|(members, size)| {
            let voxels = size.iter().product::<usize>();
            let cubes = voxels.div_ceil(UNITS as usize * STATS_CHAIN).clamp(1, MAX_STATS_CUBES);
            let records = device.alloc(cubes * STATS * 4)?;
            device.run(|client| client.mask_stats(members, &records, cubes, *size))?;
            Ok((records, cubes * STATS * 4))
        })
        .collect::<Result<Vec<_>>>()?;
    let records = device.read_all(&records)?;
    let total = |(bytes, (_, size)): (&Vec<u8>, &(Handle, [usize; 3]))| total(bytes, *size);
    Ok(records.iter().zip(masks).map(total).collect())
}

/// The sum of a mask's records.
fn total(records: &[u8], [w, h, d]: [usize; 3]) -> Stats {
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(records);
    let mut stats = Stats::default();
    for record in words.chunks_exact(STATS) {
        let (counts, bounds) = record.split_at(CHANNELS);
        stats.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += f64::from(*count));
        let low: [usize; 3] = std::array::from_fn(|k| bounds[k] as usize);
        let high: [usize; 3] = std::array::from_fn(|k| (u32::MAX - bounds[3 + k]) as usize);
        if counts.iter().any(|c| *c > 0) {
            // An invalid box is replaced by that of the whole mask, which is correct for any labels, if slower.
            let sound = (0..3).all(|k| low[k] <= high[k] && high[k] < [w, h, d][k]);
            let whole = Bounds { low: [0; 3], high: [w - 1, h - 1, d - 1] };
            let bounds = if sound { Bounds { low, high } } else { whole };
            stats.bounds = Some(stats.bounds.map_or(bounds, |other| other.union(bounds)));
        }
    }
    stats
}

/// The codes of the cells in a box of channel memberships.
fn cells(device: &Gpu, members: &Handle, size: [usize; 3], bounds: &Bounds, channels: usize) -> Result<Handle> {
    ensure_cells(bounds.cells())?;
    let cells = device.alloc(cell_words(bounds.cells(), channels) * WORD)?;
    device.run(|client| client.mask_cells(members, &cells, size, bounds, channels))?;
    Ok(cells)
}

/// The number of cells. Kernels index them with 32 bits, and the last step of a unit goes beyond the end. There is one more cell than
/// voxels along each axis, so that there may be too many cells where there are not too many voxels.
pub(super) fn ensure_cells(counts: [usize; 3]) -> Result<usize> {
    let total = counts.iter().fold(1, |product: usize, n| product.saturating_mul(*n));
    if total > MAX_CELLS {
        let found = format!("{total} ({} x {} x {})", counts[0], counts[1], counts[2]);
        return Err(Error::shape("affine_dice: moving", format!("{MAX_CELLS} cells around its labels at most"), found));
    }
    Ok(total)
}

pub(super) fn cell_words(counts: [usize; 3], channels: usize) -> usize {
    counts.iter().product::<usize>().div_ceil(if channels > 2 { 1 } else { 2 })
}

/// The number of records of a pass over a pair. It depends on the pair only, so that its sums do not depend on other pairs in the launch.
pub(super) fn records(size: [usize; 3]) -> usize {
    (0..3).map(|k| size[k].div_ceil(BRICK[k])).product::<usize>().min(MAX_CUBES)
}

/// The layout of a pair whose memberships and cells begin at words `at` of their buffers.
pub(super) fn layout(size: [usize; 3], bounds: &Bounds, at: [usize; 2]) -> PairLayout {
    // Voxels are below 2^31 by `ensure_mask`, cells by `ensure_cells`, and offsets below 2^32 by `Gathered::new`.
    PairLayout {
        fixed_size: size.map(|n| n as u32),
        cell_counts: bounds.cells().map(|n| n as u32),
        members_at: at[0] as u32,
        cells_at: at[1] as u32,
        records: records(size) as u32,
    }
}

impl Prepared {
    /// The number of words of the fixed mask's memberships and of the moving mask's cells.
    pub(super) fn words(&self) -> [usize; 2] {
        [self.size.iter().product::<usize>().div_ceil(4), cell_words(self.bounds.cells(), self.channels)]
    }

    /// The record of a running pair at `matrix`, from the middle of the fixed grid to the moving mask's cells.
    pub(in crate::ops) fn map(&self, matrix: &Matrix) -> PairMap {
        let Limits { reach: [reach_low, reach_high], clamp: [clamp_low, clamp_high] } = &self.limits;
        PairMap {
            matrix: narrow(matrix.as_flattened()),
            reach_low: narrow(reach_low),
            reach_high: narrow(reach_high),
            clamp_low: narrow(clamp_low),
            clamp_high: narrow(clamp_high),
            running: 1.0,
        }
    }

    /// The parametrisation with fixed indices relative to the middle of their grid, and moving indices in cells, as the kernels use them.
    pub(in crate::ops) fn parametrization(&self, own: &Parametrization) -> Parametrization {
        Parametrization {
            pre: from_middle(&own.pre, self.size),
            post: into_cells(&own.post, &self.bounds),
            parameters: own.parameters,
        }
    }
}

/// The map with its input relative to the middle of the grid, where voxels have exact coordinates.
pub(super) fn from_middle(matrix: &Matrix, size: [usize; 3]) -> Matrix {
    matrix.map(|m| [m[0], m[1], m[2], m[3] + (0..3).map(|k| m[k] * middle(size[k])).sum::<f64>()])
}

pub(super) fn middle(size: usize) -> f64 {
    (size as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 x 1 x (2^31 - 1) voxels pass as a mask, and have 2 x 2 x 2^31 cells.
    #[test]
    fn cells_beyond_31_bits_are_refused() {
        let cells = |size: [usize; 3]| ensure_cells(Bounds { low: [0; 3], high: size.map(|n| n - 1) }.cells());
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
