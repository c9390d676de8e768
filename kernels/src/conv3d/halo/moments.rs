//! The moments of a brick's outputs.

use cubecl::prelude::*;

use super::multiply::place_in_brick;
use super::{Brick, Bricks, OutputMoments};
use crate::conv3d::Geometry;
use crate::gemm::fragments::Sums;
use crate::gemm::{BLOCK, PLANE, Planes};
use crate::norm::{Moments, merge};

/// The moments of what `store_sums` left in the sums, over the voxels of the brick that exist. All units of the cube must
/// call this.
///
/// Each lane computes the mean and the squared deviations of its own voxels, column by column; the records of all lanes are
/// then merged in a fixed order, in two rounds.
#[cube]
pub(super) fn store_moments(
    moments: &mut OutputMoments,
    g: &Geometry,
    sums: &Sums,
    brick: &Brick,
    #[comptime] t: Bricks,
    #[comptime] planes: Planes,
) {
    let (records, columns) = comptime!((planes.m * 8, t.n));
    let mut counts = SharedMemory::<f32>::new(records);
    let mut means = SharedMemory::<f32>::new(comptime!(records * columns));
    let mut m2s = SharedMemory::<f32>::new(comptime!(records * columns));
    sync_cube();

    let lane = UNIT_POS as usize % PLANE;
    let plane = UNIT_POS as usize / PLANE;
    let m0 = plane / planes.n * comptime!(t.m() / planes.m) + lane / 4;
    let n0 = plane % planes.n * comptime!(t.n / planes.n) + lane % 4 * 2;
    let record = plane / planes.n * 8 + lane / 4;
    let (mi, ni) = comptime!((t.m() / planes.m / BLOCK[0], t.n / planes.n / BLOCK[1]));
    let mut there = Array::<u32>::new(comptime!(2 * mi));
    let mut count = 0.0f32;
    #[unroll]
    for i in 0..comptime!(2 * mi) {
        let (z, y, x) = place_in_brick(m0 + i * 8, t);
        let inside = brick.z + z < g.z.output && brick.y + y < g.y.output && brick.x + x < g.x.output;
        there[i] = u32::cast_from(inside);
        count += f32::cast_from(inside);
    }
    counts[record] = count;
    #[unroll]
    for j in 0..ni {
        #[unroll]
        for v in 0..2usize {
            let mut sum = 0.0f32;
            #[unroll]
            for i in 0..comptime!(2 * mi) {
                let value = sums.index(comptime!(i / 2 * ni + j))[comptime!(i % 2)][v];
                sum += select(there[i] != 0, value, 0.0);
            }
            let mean = sum / max(count, 1.0);
            let mut m2 = 0.0f32;
            #[unroll]
            for i in 0..comptime!(2 * mi) {
                let deviation = sums.index(comptime!(i / 2 * ni + j))[comptime!(i % 2)][v] - mean;
                m2 += select(there[i] != 0, deviation * deviation, 0.0);
            }
            let at = record * columns + n0 + comptime!(j * BLOCK[1] + v);
            means[at] = mean;
            m2s[at] = m2;
        }
    }
    sync_cube();

    // Each unit merges a share of a column's records into the first of them.
    let shares = comptime!(t.units / t.n);
    let each = comptime!(records / shares);
    let column = UNIT_POS as usize % columns;
    let start = UNIT_POS as usize / columns * each;
    let merged = merge_records(&counts, &means, &m2s, start, column, 1usize, each, columns);
    means[start * columns + column] = merged.mean;
    m2s[start * columns + column] = merged.m2;
    let share_count = merged.count;
    sync_cube();
    if column == 0 {
        counts[start] = share_count;
    }
    sync_cube();
    if UNIT_POS < columns as u32 {
        let total = merge_records(&counts, &means, &m2s, 0usize, column, each, shares, columns);
        let co = brick.co + column;
        if co < g.co {
            let at = brick.index * g.co + co;
            moments.means[at] = total.mean;
            moments.m2s[at] = total.m2;
            if co == 0 {
                moments.counts[brick.index] = total.count;
            }
        }
    }
}

/// The merged moments of `number` records of a column that are `apart` records from each other.
#[cube]
fn merge_records(
    counts: &SharedMemory<f32>,
    means: &SharedMemory<f32>,
    m2s: &SharedMemory<f32>,
    start: usize,
    column: usize,
    #[comptime] apart: usize,
    #[comptime] number: usize,
    #[comptime] columns: usize,
) -> Moments {
    let at = start * columns + column;
    let mut count = counts[start];
    let mut mean = means[at];
    let mut m2 = m2s[at];
    #[unroll]
    for i in 1..number {
        let next = at + comptime!(i * apart * columns);
        let other = Moments { count: counts[start + comptime!(i * apart)], mean: means[next], m2: m2s[next] };
        let merged = merge(Moments { count, mean, m2 }, other);
        count = merged.count;
        mean = merged.mean;
        m2 = merged.m2;
    }
    Moments { count, mean, m2 }
}
