//! Dice of the softmax plus cross-entropy.

use cubecl::prelude::*;

use crate::common::cube_sum::{UNITS, cube_sums};
use crate::common::packed::load_u8;

/// With p the softmax over channels and g the one-hot labels: sums of p g, p and g over a block of voxels for each
/// channel of a tile, then of the cross-entropy, then the count of labels that are no channel. Record `CUBE_POS` of
/// `partials` holds 3 * `tile` + 2 values; cubes count blocks first, then tiles, then samples.
#[cube(launch_unchecked)]
pub fn dice_ce_sums<F: Float>(
    logits: &Array<F>,
    labels: &Array<u32>,
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
        let mut sums = Array::<f32>::new(3 * tile + 2);
        #[unroll]
        for k in 0..3 * tile + 2 {
            sums[k] = 0.0;
        }
        let mut v = block * UNITS as usize + UNIT_POS_X as usize;
        while v < voxels {
            let voxel = sample * voxels + v;
            let base = voxel * channels;
            let label = load_u8(labels, voxel) as usize;
            let highest = highest(logits, base, channels);
            let mut total = 0.0f32;
            for k in 0..channels {
                total += f32::exp(f32::cast_from(logits[base + k]) - highest);
            }
            #[unroll]
            for k in 0..tile {
                let channel = first + k;
                if channel < channels {
                    let p = f32::exp(f32::cast_from(logits[base + channel]) - highest) / total;
                    sums[3 * k + 1] += p;
                    if channel == label {
                        sums[3 * k] += p;
                        sums[3 * k + 2] += 1.0;
                    }
                }
            }
            if label < channels {
                sums[3 * tile] += f32::ln(total) + (highest - f32::cast_from(logits[base + label]));
            } else {
                sums[3 * tile + 1] += 1.0;
            }
            v += blocks * UNITS as usize;
        }
        cube_sums(&sums, partials, CUBE_POS * (3 * tile + 2), 3 * tile + 2);
    }
}

/// d loss / d logit_k = p_k (q_k - sum_j q_j p_j) + (p_k - g_k) * `ce_scale`, with q_j = a_j g_j + b_j the gradient of
/// the Dice loss by p_j and (a, b) of each (sample, channel) in `coefficients`. A unit takes one voxel.
#[cube(launch_unchecked)]
pub fn dice_ce_gradient<F: Float>(
    logits: &Array<F>,
    labels: &Array<u32>,
    coefficients: &Array<f32>,
    dlogits: &mut Array<F>,
    voxels: usize,
    channels: usize,
    ce_scale: f32,
) {
    let base = ABSOLUTE_POS * channels;
    if base < dlogits.len() {
        let label = load_u8(labels, ABSOLUTE_POS) as usize;
        let row = ABSOLUTE_POS / voxels * channels;
        let highest = highest(logits, base, channels);
        let mut total = 0.0f32;
        let mut weighted = 0.0f32;
        for k in 0..channels {
            let e = f32::exp(f32::cast_from(logits[base + k]) - highest);
            let q = select(k == label, coefficients[2 * (row + k)], 0.0) + coefficients[2 * (row + k) + 1];
            total += e;
            weighted += e * q;
        }
        let mean = weighted / total;
        for k in 0..channels {
            let p = f32::exp(f32::cast_from(logits[base + k]) - highest) / total;
            let q = select(k == label, coefficients[2 * (row + k)], 0.0) + coefficients[2 * (row + k) + 1];
            let g = select(k == label, 1.0f32, 0.0);
            dlogits[base + k] = F::cast_from(p * (q - mean) + (p - g) * ce_scale);
        }
    }
}

/// The largest logit of a voxel: the softmax is taken relative to it, so that no exponential overflows.
#[cube]
fn highest<F: Float>(logits: &Array<F>, base: usize, channels: usize) -> f32 {
    let mut highest = f32::cast_from(logits[base]);
    for k in 1..channels {
        highest = max(highest, f32::cast_from(logits[base + k]));
    }
    highest
}
