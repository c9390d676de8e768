//! The loss of many pairs of masks on a GPU: the buffers that the pairs share, and the sums of one pass over all masks.

use cubecl::server::Handle;
use nephron_kernels::affine_dice::{PairLayout, SUMS};

use super::gpu::SweepProblem;
use super::prepare::{Prepared, from_middle, layout, middle, records};
use super::{ChannelSums, Matrix, into_cells};
use crate::error::{Error, Result};

/// Members and cells of some pairs in one buffer each, with their lengths in words, and the layout.
#[derive(Debug)]
pub(in crate::ops) struct Gathered {
    pub(in crate::ops) members: (Handle, usize),
    pub(in crate::ops) cells: (Handle, usize),
    pub(in crate::ops) layout: Handle,
    /// The largest number of records of a pair.
    pub(in crate::ops) records: usize,
}

impl Gathered {
    /// Copies memberships and cells of all pairs into one buffer each; all are on one device. A single pair keeps its own buffers.
    pub(in crate::ops) fn new(pairs: &[&Prepared]) -> Result<Self> {
        let Some(first) = pairs.first() else {
            return Err(Error::argument("affine_dice: pairs together", "one or more", "none"));
        };
        let device = &first.device;
        let records = pairs.iter().map(|pair| records(pair.size)).max().unwrap_or(1);
        if pairs.len() == 1 {
            let [members, cells] = first.words();
            return Ok(Self {
                members: (first.members.clone(), members),
                cells: (first.cells.clone(), cells),
                layout: first.layout.clone(),
                records,
            });
        }
        let total: [usize; 2] = pairs.iter().fold([0; 2], |sum, p| std::array::from_fn(|i| sum[i] + p.words()[i]));
        // Kernels index memberships by bytes and codes by words, with 32 bits.
        if total[0] > (u32::MAX / 4) as usize || total[1] > u32::MAX as usize {
            let expected = format!("{} and {} words of members and cells at most", u32::MAX / 4, u32::MAX);
            let found = format!("{} and {}", total[0], total[1]);
            return Err(Error::argument("affine_dice: pairs together", expected, found));
        }
        let (members, cells) = (device.alloc(total[0] * 4)?, device.alloc(total[1] * 4)?);
        let mut at = [0usize; 2];
        let mut rows: Vec<PairLayout> = Vec::new();
        for pair in pairs {
            let words = pair.words();
            for (i, (from, to)) in [(&pair.members, &members), (&pair.cells, &cells)].into_iter().enumerate() {
                device.run(|client| client.copy_words(from, words[i], to, at[i]))?;
            }
            rows.push(layout(pair.size, &pair.bounds, at));
            at = std::array::from_fn(|i| at[i] + words[i]);
        }
        Ok(Self {
            members: (members, total[0]),
            cells: (cells, total[1]),
            layout: device.upload(bytemuck::cast_slice(&rows))?,
            records,
        })
    }
}

/// One pass over each pair at its map from fixed voxels to moving voxels. The records are added here in f64, after one wait for the device
/// for all pairs.
pub(super) fn sums(pairs: &[(&Prepared, Matrix)]) -> Result<Vec<Vec<ChannelSums>>> {
    let Some((first, _)) = pairs.first() else { return Ok(Vec::new()) };
    let device = &first.device;
    if let Some((other, _)) = pairs.iter().find(|(pair, _)| pair.device != *device) {
        return Err(Error::argument("affine_dice: device of pairs", device.name(), other.device.name()));
    }
    let launch = |(pair, matrix): &(&Prepared, Matrix)| {
        let Gathered { members, cells, layout, records } = Gathered::new(&[pair])?;
        let matrix = from_middle(&into_cells(matrix, &pair.bounds), pair.size);
        let maps = device.upload(bytemuck::bytes_of(&pair.map(&matrix)))?;
        let bytes = records * pair.channels * SUMS * 4;
        let partials = device.alloc(bytes)?;
        let problem = SweepProblem {
            pairs: 1,
            records,
            channels: pair.channels,
            padding: pair.padding,
            fixed: &members.0,
            fixed_words: members.1,
            cells: &cells.0,
            cells_words: cells.1,
            layout: &layout,
            maps: &maps,
        };
        device.run(|client| client.affine_dice_sweep(&problem, &partials))?;
        Ok((partials, bytes))
    };
    let partials = device.read_all(&pairs.iter().map(launch).collect::<Result<Vec<_>>>()?)?;
    Ok(partials.iter().zip(pairs).map(|(bytes, (pair, _))| channel_sums(bytes, pair.channels, pair.size)).collect())
}

/// The sum of a pair's records.
fn channel_sums(records: &[u8], channels: usize, size: [usize; 3]) -> Vec<ChannelSums> {
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(records);
    let mut total = vec![0.0f64; channels * SUMS];
    for record in values.chunks_exact(channels * SUMS) {
        for (total, value) in total.iter_mut().zip(record) {
            *total += f64::from(*value);
        }
    }
    let channel = |values: &[f64]| {
        let matrix = |at: usize| -> Matrix {
            std::array::from_fn(|r| {
                let row = &values[at + 4 * r..][..4];
                // Positions relative to the middle of the grid are converted to positions relative to its first voxel.
                std::array::from_fn(|k| row[k] + if k < 3 { row[3] * middle(size[k]) } else { 0.0 })
            })
        };
        ChannelSums { intersection: values[0], p: values[1], g: 0.0, all: matrix(2), within: matrix(14) }
    };
    total.chunks_exact(SUMS).map(channel).collect()
}
