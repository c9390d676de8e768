//! Softmax and argmax over channels: a unit per voxel (softmax) or per four voxels (argmax, which writes a word). A
//! voxel's channels are contiguous and few, so a second and third look at them come from the cache.

use cubecl::prelude::*;

/// y = exp(x - max) / sum exp(x - max) over the channels of each voxel.
#[cube(launch_unchecked)]
pub fn softmax<F: Float>(x: &Array<F>, y: &mut Array<F>, channels: usize) {
    let first = ABSOLUTE_POS * channels;
    // Not first < len, which could wrap past the last voxel.
    if ABSOLUTE_POS < y.len() / channels {
        let mut largest = f32::cast_from(x[first]);
        for c in 1..channels {
            largest = max(largest, f32::cast_from(x[first + c]));
        }
        let mut sum = 0.0f32;
        for c in 0..channels {
            sum += (f32::cast_from(x[first + c]) - largest).exp();
        }
        for c in 0..channels {
            y[first + c] = F::cast_from((f32::cast_from(x[first + c]) - largest).exp() / sum);
        }
    }
}

/// The channel of the largest value of a voxel: the lowest of equals, and the first NaN if there is one.
#[cube]
fn largest_channel<F: Float>(x: &Array<F>, voxel: usize, channels: usize) -> u32 {
    let first = voxel * channels;
    let mut best = f32::cast_from(x[first]);
    let mut label = 0u32;
    for c in 1..channels {
        let value = f32::cast_from(x[first + c]);
        // Nothing compares above a NaN, so only the first one replaces a number.
        let better = value > best || (value.is_nan() && !best.is_nan());
        best = select(better, value, best);
        label = select(better, c as u32, label);
    }
    label
}

/// The largest channel of each voxel as u8, four to a word; `voxels` may end inside the last word.
#[cube(launch_unchecked)]
pub fn argmax<F: Float>(x: &Array<F>, words: &mut Array<u32>, voxels: usize, channels: usize) {
    if ABSOLUTE_POS < words.len() {
        let mut word = 0u32;
        for i in 0..4usize {
            let voxel = ABSOLUTE_POS * 4 + i;
            if voxel < voxels {
                word |= largest_channel::<F>(x, voxel, channels) << (i as u32 * 8);
            }
        }
        words[ABSOLUTE_POS] = word;
    }
}
