//! Sums over the units of a cube in shared memory, in a fixed order: the first stage of a deterministic reduction.
//! Plane arithmetic would be shorter, but lavapipe has none.

use cubecl::prelude::*;

/// Units of a cube that sums.
pub const UNITS: u32 = 256;

/// Values summed at a time: 8 KiB of shared memory, which every adapter has.
const COLUMNS: usize = 8;
/// Units that share a column, and the values each of them adds.
const LANES: usize = UNITS as usize / COLUMNS;

/// `out[offset + k]` = sum of `values[k]` over the 256 units of a one-dimensional cube, k below `count`. Each value is
/// the end of a chain of at most 8 + 32 additions. Every unit of the cube must get here: it waits for all of them.
#[cube]
pub fn cube_sums(values: &Array<f32>, out: &mut Array<f32>, offset: usize, #[comptime] count: usize) {
    let unit = UNIT_POS_X as usize;
    let column = unit / LANES;
    let lane = unit % LANES;
    let mut tile = SharedMemory::<f32>::new(COLUMNS * UNITS as usize);
    let mut part = SharedMemory::<f32>::new(UNITS as usize);
    let rounds = comptime!(count.div_ceil(COLUMNS));
    #[unroll]
    for round in 0..rounds {
        let first = comptime!(round * COLUMNS);
        let columns = comptime!(if count - first < COLUMNS { count - first } else { COLUMNS });
        #[unroll]
        for k in 0..columns {
            tile[k * UNITS as usize + unit] = values[first + k];
        }
        sync_cube();
        if column < columns {
            let mut sum = 0.0f32;
            for i in 0..COLUMNS {
                sum += tile[column * UNITS as usize + i * LANES + lane];
            }
            part[unit] = sum;
        }
        // Past this point nobody reads `tile`, so the next round may fill it; `part` is safe behind that round's first wait.
        sync_cube();
        if unit < columns {
            let mut sum = 0.0f32;
            for i in 0..LANES {
                sum += part[unit * LANES + i];
            }
            out[offset + first + unit] = sum;
        }
    }
}
