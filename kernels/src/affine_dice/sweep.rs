//! The sweep: bricks of 8 x 8 x 4 voxels of the fixed grid, one voxel a unit. A cube strides over the bricks, passes
//! over those that land outside the moving mask's box after 3 dot products, keeps 26 sums a channel and unit in
//! registers and adds them up in shared memory once, at its end. Per voxel in the box: 9 multiply-adds, one load of a
//! cell code; in cells that hold something (about one in ten) one load of the fixed voxel's members and 60 more
//! operations for each channel that is there. No float atomics.

use cubecl::prelude::*;

use super::records::{PairLayout, PairMap};
use super::{BRICK, SUMS};
use crate::common::cube_sum::cube_sums;
use crate::common::packed::load_u8;

/// Sums of p g, p, and d p / d position (x) [x, y, z, 1], for p each of `channels` channels of the moving mask at
/// `matrix` [x, y, z, 1] (in cells) and g of the fixed mask; x, y, z count from the middle of the fixed grid, where
/// they are exact in f32. Row y of the grid of cubes sweeps pair y of `layout` and `maps`; cube (x, y) writes
/// `channels` times [`SUMS`] values to record y `CUBE_COUNT_X` + x of `partials`: 0 where the pair has fewer records,
/// or does not run.
#[cube(launch_unchecked)]
pub fn affine_dice_sums(
    fixed: &Array<u32>,
    cells: &Array<u32>,
    layout: &Array<u32>,
    maps: &Array<f32>,
    partials: &mut Array<f32>,
    #[comptime] channels: usize,
    #[comptime] border: bool,
) {
    let unit = UNIT_POS_X as usize;
    let pair = CUBE_POS_Y as usize;
    let cube = CUBE_POS_X as usize;
    let row = pair * PairLayout::WORDS;
    let width = layout[row + PairLayout::FIXED_SIZE] as usize;
    let height = layout[row + PairLayout::FIXED_SIZE + 1] as usize;
    let depth = layout[row + PairLayout::FIXED_SIZE + 2] as usize;
    let cells_x = layout[row + PairLayout::CELL_COUNTS] as usize;
    let cells_y = layout[row + PairLayout::CELL_COUNTS + 1] as usize;
    let cells_z = layout[row + PairLayout::CELL_COUNTS + 2] as usize;
    let fixed_at = layout[row + PairLayout::MEMBERS_AT] as usize;
    let cells_at = layout[row + PairLayout::CELLS_AT] as usize;
    let records = layout[row + PairLayout::RECORDS] as usize;
    let map = pair * PairMap::WORDS;
    let matrix = map + PairMap::MATRIX;
    let mut sums = Array::<f32>::new(channels * SUMS);
    #[unroll]
    for k in 0..channels * SUMS {
        sums[k] = 0.0;
    }
    let bricks_x = width.div_ceil(BRICK[0]);
    let bricks_y = height.div_ceil(BRICK[1]);
    let bricks = bricks_x * bricks_y * depth.div_ceil(BRICK[2]);
    let middle_x = (width as f32 - 1.0) * 0.5;
    let middle_y = (height as f32 - 1.0) * 0.5;
    let middle_z = (depth as f32 - 1.0) * 0.5;
    let mut last = bricks;
    if cube >= records || maps[map + PairMap::RUNNING] == 0.0 {
        last = 0;
    }
    let mut brick = cube;
    while brick < last {
        let first_x = brick % bricks_x * BRICK[0];
        let first_y = brick / bricks_x % bricks_y * BRICK[1];
        let first_z = brick / bricks_x / bricks_y * BRICK[2];
        let x = first_x + unit % BRICK[0];
        let y = first_y + unit / BRICK[0] % BRICK[1];
        let z = first_z + unit / (BRICK[0] * BRICK[1]);
        let centre_x = first_x as f32 + (BRICK[0] as f32 - 1.0) * 0.5 - middle_x;
        let centre_y = first_y as f32 + (BRICK[1] as f32 - 1.0) * 0.5 - middle_y;
        let centre_z = first_z as f32 + (BRICK[2] as f32 - 1.0) * 0.5 - middle_z;
        let mut hit = true;
        #[unroll]
        for r in 0..3usize {
            let centre = position(maps, matrix + 4 * r, centre_x, centre_y, centre_z);
            // Half a cell more than the brick's reach: rounding must not lose a voxel.
            let reach = (BRICK[0] as f32 - 1.0) * 0.5 * f32::abs(maps[matrix + 4 * r])
                + (BRICK[1] as f32 - 1.0) * 0.5 * f32::abs(maps[matrix + 4 * r + 1])
                + (BRICK[2] as f32 - 1.0) * 0.5 * f32::abs(maps[matrix + 4 * r + 2])
                + 0.5;
            if centre + reach < maps[map + PairMap::REACH_LOW + r] {
                hit = false;
            }
            if centre - reach > maps[map + PairMap::REACH_HIGH + r] {
                hit = false;
            }
        }
        if hit && x < width && y < height && z < depth {
            let px = x as f32 - middle_x;
            let py = y as f32 - middle_y;
            let pz = z as f32 - middle_z;
            let mut ux = position(maps, matrix, px, py, pz);
            let mut uy = position(maps, matrix + 4, px, py, pz);
            let mut uz = position(maps, matrix + 8, px, py, pz);
            let mut free_x = 1.0f32;
            let mut free_y = 1.0f32;
            let mut free_z = 1.0f32;
            if border {
                free_x = free(ux, maps[map + PairMap::CLAMP_LOW], maps[map + PairMap::CLAMP_HIGH]);
                free_y = free(uy, maps[map + PairMap::CLAMP_LOW + 1], maps[map + PairMap::CLAMP_HIGH + 1]);
                free_z = free(uz, maps[map + PairMap::CLAMP_LOW + 2], maps[map + PairMap::CLAMP_HIGH + 2]);
                ux = clamp(ux, maps[map + PairMap::CLAMP_LOW], maps[map + PairMap::CLAMP_HIGH]);
                uy = clamp(uy, maps[map + PairMap::CLAMP_LOW + 1], maps[map + PairMap::CLAMP_HIGH + 1]);
                uz = clamp(uz, maps[map + PairMap::CLAMP_LOW + 2], maps[map + PairMap::CLAMP_HIGH + 2]);
            }
            let in_x = ux >= 0.0 && ux < cells_x as f32;
            let in_y = uy >= 0.0 && uy < cells_y as f32;
            let in_z = uz >= 0.0 && uz < cells_z as f32;
            if in_x && in_y && in_z {
                let ix = ux as u32;
                let iy = uy as u32;
                let iz = uz as u32;
                let cell = (iz as usize * cells_y + iy as usize) * cells_x + ix as usize;
                let mut code = cells[cells_at + cell / comptime!(if channels > 2 { 1usize } else { 2usize })];
                if comptime!(channels <= 2) {
                    code = (code >> ((cell % 2) as u32 * 16)) & 65535;
                }
                if code != 0 {
                    let fx = ux - ix as f32;
                    let fy = uy - iy as f32;
                    let fz = uz - iz as f32;
                    let member = load_u8(fixed, 4 * fixed_at + (z * height + y) * width + x);
                    #[unroll]
                    for channel in 0..channels {
                        let g = corner(member, comptime!(channel as u32));
                        let bits = (code >> comptime!(channel as u32 * 8)) & 255;
                        if bits != 0 {
                            let a00 = corner(bits, 0u32);
                            let a10 = corner(bits, 2u32);
                            let a01 = corner(bits, 4u32);
                            let a11 = corner(bits, 6u32);
                            let d00 = corner(bits, 1u32) - a00;
                            let d10 = corner(bits, 3u32) - a10;
                            let d01 = corner(bits, 5u32) - a01;
                            let d11 = corner(bits, 7u32) - a11;
                            let b00 = a00 + fx * d00;
                            let b10 = a10 + fx * d10;
                            let b01 = a01 + fx * d01;
                            let b11 = a11 + fx * d11;
                            let c0 = mix(b00, b10, fy);
                            let c1 = mix(b01, b11, fy);
                            let p = mix(c0, c1, fz);
                            let dx = free_x * mix(mix(d00, d10, fy), mix(d01, d11, fy), fz);
                            let dy = free_y * mix(b10 - b00, b11 - b01, fz);
                            let dz = free_z * (c1 - c0);
                            let at = comptime!(channel * SUMS);
                            sums[at] += p * g;
                            sums[at + 1] += p;
                            add(&mut sums, comptime!(at + 2), dx, px, py, pz);
                            add(&mut sums, comptime!(at + 6), dy, px, py, pz);
                            add(&mut sums, comptime!(at + 10), dz, px, py, pz);
                            add(&mut sums, comptime!(at + 14), g * dx, px, py, pz);
                            add(&mut sums, comptime!(at + 18), g * dy, px, py, pz);
                            add(&mut sums, comptime!(at + 22), g * dz, px, py, pz);
                        }
                    }
                }
            }
        }
        brick += records;
    }
    let record = pair * CUBE_COUNT_X as usize + cube;
    cube_sums(&sums, partials, record * comptime!(channels * SUMS), comptime!(channels * SUMS));
}

/// The row of a matrix that begins at `row`, applied to (x, y, z, 1).
#[cube]
fn position(maps: &Array<f32>, row: usize, x: f32, y: f32, z: f32) -> f32 {
    maps[row] * x + maps[row + 1] * y + maps[row + 2] * z + maps[row + 3]
}

/// 1 where border padding leaves a position alone, 0 where it clamps it, and at the limits, as PyTorch.
#[cube]
fn free(u: f32, low: f32, high: f32) -> f32 {
    let mut out = 1.0f32;
    if u <= low {
        out = 0.0f32;
    }
    if u >= high {
        out = 0.0f32;
    }
    out
}

/// Bit k of a code as 0 or 1.
#[cube]
fn corner(bits: u32, #[comptime] k: u32) -> f32 {
    ((bits >> k) & 1) as f32
}

#[cube]
fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + t * (b - a)
}

/// Four sums of d (x) [x, y, z, 1].
#[cube]
fn add(sums: &mut Array<f32>, #[comptime] at: usize, d: f32, x: f32, y: f32, z: f32) {
    sums[at] += d * x;
    sums[at + 1] += d * y;
    sums[at + 2] += d * z;
    sums[at + 3] += d;
}
