//! What the sweep knows of the masks beforehand: members, counts, bounding boxes, cell codes.

use cubecl::prelude::*;

use super::{CHANNELS, STATS};
use crate::common::cube_sum::UNITS;
use crate::common::packed::load_u8;

/// Units that share a column of the records, a power of two.
const LANES: usize = UNITS as usize / 16;

/// Of four labels a word which channels they are in, by `table`: a byte a label. A unit makes a word.
#[cube(launch_unchecked)]
pub fn mask_members(labels: &Array<u32>, table: &Array<u32>, members: &mut Array<u32>) {
    if ABSOLUTE_POS < members.len() {
        let four = labels[ABSOLUTE_POS];
        let mut out = 0u32;
        for k in 0..4u32 {
            out |= load_u8(table, ((four >> (8 * k)) & 255) as usize) << (8 * k);
        }
        members[ABSOLUTE_POS] = out;
    }
}

/// `to[at + i]` = `from[i]`, a word a unit.
#[cube(launch_unchecked)]
pub fn copy_words(from: &Array<u32>, to: &mut Array<u32>, at: usize) {
    if ABSOLUTE_POS < from.len() {
        to[at + ABSOLUTE_POS] = from[ABSOLUTE_POS];
    }
}

/// Counts and bounds of members [depth, height, width], `voxels` of them, a record of [`STATS`] words a cube.
#[cube(launch_unchecked)]
pub fn mask_stats(members: &Array<u32>, records: &mut Array<u32>, voxels: usize, width: usize, height: usize) {
    let unit = UNIT_POS_X as usize;
    let none = u32::MAX.runtime();
    // Counts first, then the least of each coordinate.
    let mut own = Array::<u32>::new(STATS);
    #[unroll]
    for k in 0..STATS {
        own[k] = select(k < CHANNELS, 0u32, none);
    }
    let mut v = ABSOLUTE_POS;
    while v < voxels {
        let member = load_u8(members, v);
        if member != 0 {
            #[unroll]
            for channel in 0..CHANNELS {
                own[channel] += (member >> comptime!(channel as u32)) & 1;
            }
            let x = (v % width) as u32;
            let y = (v / width % height) as u32;
            let z = (v / width / height) as u32;
            own[CHANNELS] = min(own[CHANNELS], x);
            own[CHANNELS + 1] = min(own[CHANNELS + 1], y);
            own[CHANNELS + 2] = min(own[CHANNELS + 2], z);
            own[CHANNELS + 3] = min(own[CHANNELS + 3], none - x);
            own[CHANNELS + 4] = min(own[CHANNELS + 4], none - y);
            own[CHANNELS + 5] = min(own[CHANNELS + 5], none - z);
        }
        v += CUBE_COUNT * UNITS as usize;
    }
    let mut tile = SharedMemory::<u32>::new(STATS * UNITS as usize);
    let mut part = SharedMemory::<u32>::new(UNITS as usize);
    #[unroll]
    for k in 0..STATS {
        tile[k * UNITS as usize + unit] = own[k];
    }
    sync_cube();
    let column = unit / LANES;
    let mut sum = 0u32;
    let mut low = none;
    if column < STATS {
        for i in 0..UNITS as usize / LANES {
            let value = tile[column * UNITS as usize + i * LANES + unit % LANES];
            sum += value;
            low = min(low, value);
        }
    }
    part[unit] = select(column < CHANNELS, sum, low);
    sync_cube();
    if unit < STATS {
        let mut sum = 0u32;
        let mut low = none;
        for i in 0..LANES {
            sum += part[unit * LANES + i];
            low = min(low, part[unit * LANES + i]);
        }
        records[CUBE_POS * STATS + unit] = select(unit < CHANNELS, sum, low);
    }
}

/// Codes of `count` cells, `nx` and `ny` of them along x and y, two codes a word, or one where `wide`. Cell 0 has its
/// first corner one voxel before (`low_x`, `low_y`, `low_z`); corners outside the members [depth, height, width] are
/// empty. A unit makes a word.
#[cube(launch_unchecked)]
pub fn mask_cells(
    members: &Array<u32>,
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
    #[comptime] wide: bool,
) {
    if ABSOLUTE_POS < cells.len() {
        let mut word = 0u32;
        let codes = comptime!(if wide { 1usize } else { 2usize });
        for half in 0..codes {
            let cell = ABSOLUTE_POS * codes + half;
            if cell < count {
                for corner in 0..8usize {
                    // Counted from 1, so that the voxel before the first needs no sign.
                    let x = cell % nx + low_x + corner % 2;
                    let y = cell / nx % ny + low_y + corner / 2 % 2;
                    let z = cell / nx / ny + low_z + corner / 4;
                    let mut member = 0u32;
                    if x >= 1 && y >= 1 && z >= 1 && x <= width && y <= height && z <= depth {
                        member = load_u8(members, ((z - 1) * height + y - 1) * width + x - 1);
                    }
                    let mut bits = (member & 1) | ((member & 2) << 7);
                    if wide {
                        bits |= ((member & 4) << 14) | ((member & 8) << 21);
                    }
                    word |= bits << ((half * 16 + corner) as u32);
                }
            }
        }
        cells[ABSOLUTE_POS] = word;
    }
}
