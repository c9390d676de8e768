//! Adaptive average pooling: one thread per output element, channels fastest, so that loads coalesce over c. Few bins of large images
//! are few threads with long sums; behind a network's last stage the images are small.

use cubecl::prelude::*;

/// Sizes of an adaptive pooling. No axis is longer than 65535, so that a product of two of them fits in 32 bits.
#[derive(CubeType, CubeLaunch)]
pub struct AdaptivePoolSizes {
    pub channels: usize,
    pub input_d: usize,
    pub input_h: usize,
    pub input_w: usize,
    pub output_d: usize,
    pub output_h: usize,
    pub output_w: usize,
}

/// What a bin covers of one axis of the input: the indices from `first` up to, and not including, `end`.
#[derive(CubeType, Clone, Copy)]
struct Bin {
    first: usize,
    end: usize,
}

/// Bin `o` of `bins` on an axis of `size` voxels: from floor(o size / bins) to ceil((o + 1) size / bins), which is never empty.
#[cube]
fn bin(o: usize, bins: usize, size: usize) -> Bin {
    Bin { first: o * size / bins, end: ((o + 1) * size).div_ceil(bins) }
}

/// y = the mean of the bin's voxels.
#[cube(launch_unchecked)]
pub fn adaptive_avg_pool<F: Float>(x: &Array<F>, y: &mut Array<F>, s: AdaptivePoolSizes) {
    if ABSOLUTE_POS < y.len() {
        let channel = ABSOLUTE_POS % s.channels;
        let voxel = ABSOLUTE_POS / s.channels;
        let row = voxel / s.output_w;
        let slice = row / s.output_h;
        let image = slice / s.output_d;
        let d = bin(slice % s.output_d, s.output_d, s.input_d);
        let h = bin(row % s.output_h, s.output_h, s.input_h);
        let w = bin(voxel % s.output_w, s.output_w, s.input_w);
        let mut sum = 0.0f32;
        for z in d.first..d.end {
            for v in h.first..h.end {
                let line = ((image * s.input_d + z) * s.input_h + v) * s.input_w;
                for u in w.first..w.end {
                    sum += f32::cast_from(x[(line + u) * s.channels + channel]);
                }
            }
        }
        let count = (d.end - d.first) * (h.end - h.first) * (w.end - w.first);
        y[ABSOLUTE_POS] = F::cast_from(sum / f32::cast_from(count));
    }
}
