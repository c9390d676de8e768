//! What the sweep knows of the masks beforehand: counts, bounding boxes, cell codes.

use cubecl::prelude::*;

use super::STATS;
use crate::common::cube_sum::UNITS;
use crate::common::packed::load_u8;

const LANES: usize = UNITS as usize / STATS;

/// Counts and bounds of a label map [depth, height, width] of `voxels` labels, a record of [`STATS`] words a cube.
#[cube(launch_unchecked)]
pub fn mask_stats(labels: &Array<u32>, records: &mut Array<u32>, voxels: usize, width: usize, height: usize) {
    let unit = UNIT_POS_X as usize;
    let none = u32::MAX.runtime();
    let mut tumour = 0u32;
    let mut both = 0u32;
    let mut least = Array::<u32>::new(6usize);
    #[unroll]
    for k in 0..6usize {
        least[k] = none;
    }
    let mut v = ABSOLUTE_POS;
    while v < voxels {
        let label = load_u8(labels, v);
        if label == 1 || label == 2 {
            both += 1;
            tumour += label - 1;
            let x = (v % width) as u32;
            let y = (v / width % height) as u32;
            let z = (v / width / height) as u32;
            least[0] = min(least[0], x);
            least[1] = min(least[1], y);
            least[2] = min(least[2], z);
            least[3] = min(least[3], none - x);
            least[4] = min(least[4], none - y);
            least[5] = min(least[5], none - z);
        }
        v += CUBE_COUNT * UNITS as usize;
    }
    let mut tile = SharedMemory::<u32>::new(STATS * UNITS as usize);
    let mut part = SharedMemory::<u32>::new(UNITS as usize);
    tile[unit] = tumour;
    tile[UNITS as usize + unit] = both;
    #[unroll]
    for k in 0..6usize {
        tile[(2 + k) * UNITS as usize + unit] = least[k];
    }
    sync_cube();
    let column = unit / LANES;
    let mut sum = 0u32;
    let mut low = none;
    for i in 0..UNITS as usize / LANES {
        let value = tile[column * UNITS as usize + i * LANES + unit % LANES];
        sum += value;
        low = min(low, value);
    }
    part[unit] = select(column < 2, sum, low);
    sync_cube();
    if unit < STATS {
        let mut sum = 0u32;
        let mut low = none;
        for i in 0..LANES {
            sum += part[unit * LANES + i];
            low = min(low, part[unit * LANES + i]);
        }
        records[CUBE_POS * STATS + unit] = select(unit < 2, sum, low);
    }
}

/// Codes of `count` cells, `nx` and `ny` of them along x and y, two codes a word. Cell 0 has its first corner one voxel
/// before (`low_x`, `low_y`, `low_z`); corners outside the mask [depth, height, width] are empty. A unit makes a word.
#[cube(launch_unchecked)]
pub fn mask_cells(
    labels: &Array<u32>,
    cells: &mut Array<u32>,
    count: usize,
    nx: usize,
    ny: usize,
    low_x: usize,
    low_y: usize,
    low_z: usize,
    width: usize,
    height: usize,
    depth: usize,
) {
    if ABSOLUTE_POS < cells.len() {
        let mut word = 0u32;
        for half in 0..2usize {
            let cell = ABSOLUTE_POS * 2 + half;
            if cell < count {
                for corner in 0..8usize {
                    // Counted from 1, so that the voxel before the first needs no sign.
                    let x = cell % nx + low_x + corner % 2;
                    let y = cell / nx % ny + low_y + corner / 2 % 2;
                    let z = cell / nx / ny + low_z + corner / 4;
                    let mut label = 0u32;
                    if x >= 1 && y >= 1 && z >= 1 && x <= width && y <= height && z <= depth {
                        label = load_u8(labels, ((z - 1) * height + y - 1) * width + x - 1);
                    }
                    let bit = 1u32 << ((half * 16 + corner) as u32);
                    if label == 2 {
                        word |= bit;
                    }
                    if label == 1 || label == 2 {
                        word |= bit << 8;
                    }
                }
            }
        }
        cells[ABSOLUTE_POS] = word;
    }
}
