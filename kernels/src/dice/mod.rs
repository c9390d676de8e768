//! Soft Dice and Dice with cross-entropy, each in two passes: sums per (sample, channel), then the gradient.
//!
//! The sums: a cube takes one block of a sample's voxels and one tile of its channels; its units stride over the block,
//! keep the tile's sums in registers and add them up in shared memory. A cube writes its own record and the host adds
//! the records in f64, so the result has the same bits every time. Channels are innermost, so the loads of a unit's
//! neighbours fill whole cache lines between them.

mod cross_entropy;

pub use cross_entropy::{dice_ce_gradient, dice_ce_sums};

use cubecl::prelude::*;

use crate::common::cube_sum::{UNITS, cube_sums};

/// Sums of p g, p and g over a block of voxels for each channel of a tile: record `CUBE_POS` of `partials` holds
/// 3 * `tile` values. Cubes count blocks first, then tiles, then samples.
#[cube(launch_unchecked)]
pub fn dice_sums<F: Float>(
    p: &Array<F>,
    g: &Array<F>,
    partials: &mut Array<f32>,
    samples: usize,
    voxels: usize,
    channels: usize,
    blocks: usize,
    #[comptime] tile: usize,
) {
    let tiles = channels.div_ceil(tile);
    // Uniform over the cube, as the barriers inside need.
    if CUBE_POS < blocks * tiles * samples {
        let block = CUBE_POS % blocks;
        let first = CUBE_POS / blocks % tiles * tile;
        let sample = CUBE_POS / blocks / tiles;
        let mut sums = Array::<f32>::new(3 * tile);
        #[unroll]
        for k in 0..3 * tile {
            sums[k] = 0.0;
        }
        let mut v = block * UNITS as usize + UNIT_POS_X as usize;
        while v < voxels {
            let base = (sample * voxels + v) * channels + first;
            #[unroll]
            for k in 0..tile {
                if first + k < channels {
                    let p = f32::cast_from(p[base + k]);
                    let g = f32::cast_from(g[base + k]);
                    sums[3 * k] += p * g;
                    sums[3 * k + 1] += p;
                    sums[3 * k + 2] += g;
                }
            }
            v += blocks * UNITS as usize;
        }
        cube_sums(&sums, partials, CUBE_POS * 3 * tile, 3 * tile);
    }
}

/// dp = a g + b, with (a, b) of each (sample, channel) in `coefficients`.
#[cube(launch_unchecked)]
pub fn dice_gradient<F: Float>(
    g: &Array<F>,
    coefficients: &Array<f32>,
    dp: &mut Array<F>,
    voxels: usize,
    channels: usize,
) {
    if ABSOLUTE_POS < dp.len() {
        let row = ABSOLUTE_POS / (voxels * channels) * channels + ABSOLUTE_POS % channels;
        let g = f32::cast_from(g[ABSOLUTE_POS]);
        dp[ABSOLUTE_POS] = F::cast_from(coefficients[2 * row] * g + coefficients[2 * row + 1]);
    }
}
