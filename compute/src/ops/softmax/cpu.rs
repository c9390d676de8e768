//! Softmax and argmax on the CPU: rayon over voxels, whose channels are contiguous.

use rayon::prelude::*;

/// Number of voxels of a task.
const CHUNK: usize = 1 << 12;

pub(super) fn softmax(x: &[f32], channels: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(CHUNK * channels).zip(x.par_chunks(CHUNK * channels)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            // `f32::max` ignores a NaN, but its exponential makes the sum NaN.
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for (y, x) in y.iter_mut().zip(x) {
                *y = (x - largest).exp();
                sum += *y;
            }
            for y in y {
                *y /= sum;
            }
        }
    });
    y
}

pub(super) fn argmax(x: &[f32], channels: usize) -> Vec<u8> {
    let largest = |x: &[f32]| {
        let (mut best, mut label) = (x[0], 0);
        for (c, &value) in x.iter().enumerate().skip(1) {
            // No value is greater than a NaN, so that the first NaN stays.
            if value > best || (value.is_nan() && !best.is_nan()) {
                (best, label) = (value, c);
            }
        }
        label as u8
    };
    x.par_chunks_exact(channels).with_min_len(CHUNK).map(largest).collect()
}
