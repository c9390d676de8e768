//! Max and average pooling: one unit an output element, channels fastest, so loads coalesce over c. The overlap of
//! neighbouring windows is left to the caches.

mod backward;

pub use backward::{avg_pool_backward, max_pool_backward};

use cubecl::prelude::*;

/// Sizes of a pooling, each axis by (z, y, x).
#[derive(CubeType, CubeLaunch)]
pub struct PoolSizes {
    pub channels: usize,
    pub input_d: usize,
    pub input_h: usize,
    pub input_w: usize,
    pub output_d: usize,
    pub output_h: usize,
    pub output_w: usize,
    pub kernel_d: usize,
    pub kernel_h: usize,
    pub kernel_w: usize,
    pub stride_d: usize,
    pub stride_h: usize,
    pub stride_w: usize,
    pub padding_d: usize,
    pub padding_h: usize,
    pub padding_w: usize,
}

/// What a window covers of one axis of the input: `count` indices from `first`.
#[derive(CubeType, Clone, Copy)]
struct Span {
    first: usize,
    count: usize,
}

/// The window of output `o` without its padding. Never empty, as padding is at most half the window.
#[cube]
fn span(o: usize, stride: usize, padding: usize, kernel: usize, size: usize) -> Span {
    let start = o * stride;
    let first = max(start, padding) - padding;
    let cut = padding - min(start, padding);
    Span { first, count: min(kernel - cut, size - first) }
}

/// The image, the window and the channel of an output element.
#[derive(CubeType, Clone, Copy)]
struct Window {
    image: usize,
    channel: usize,
    d: Span,
    h: Span,
    w: Span,
}

#[cube]
fn window(output: usize, s: &PoolSizes) -> Window {
    let voxel = output / s.channels;
    let row = voxel / s.output_w;
    let slice = row / s.output_h;
    Window {
        image: slice / s.output_d,
        channel: output % s.channels,
        d: span(slice % s.output_d, s.stride_d, s.padding_d, s.kernel_d, s.input_d),
        h: span(row % s.output_h, s.stride_h, s.padding_h, s.kernel_h, s.input_h),
        w: span(voxel % s.output_w, s.stride_w, s.padding_w, s.kernel_w, s.input_w),
    }
}

/// The element of the input at a distance of (d, h, w) from the first one of the window.
#[cube]
fn index(at: Window, d: usize, h: usize, w: usize, s: &PoolSizes) -> usize {
    let slice = at.image * s.input_d + at.d.first + d;
    let row = slice * s.input_h + at.h.first + h;
    (row * s.input_w + at.w.first + w) * s.channels + at.channel
}

/// y = the largest input of the window: padding never wins, NaN always does.
#[cube(launch_unchecked)]
pub fn max_pool<F: Float>(x: &Array<F>, y: &mut Array<F>, sizes: PoolSizes) {
    if ABSOLUTE_POS < y.len() {
        let at = window(ABSOLUTE_POS, &sizes);
        let mut best = f32::cast_from(x[index(at, 0, 0, 0, &sizes)]);
        for d in 0..at.d.count {
            for h in 0..at.h.count {
                for w in 0..at.w.count {
                    let value = f32::cast_from(x[index(at, d, h, w, &sizes)]);
                    // Once NaN, nothing compares above it.
                    best = select(value > best || value.is_nan(), value, best);
                }
            }
        }
        y[ABSOLUTE_POS] = F::cast_from(best);
    }
}

/// y = the sum over the window divided by `volume`, its size with the padding, which thus counts as zeros.
#[cube(launch_unchecked)]
pub fn avg_pool<F: Float>(x: &Array<F>, y: &mut Array<F>, sizes: PoolSizes, volume: f32) {
    if ABSOLUTE_POS < y.len() {
        let at = window(ABSOLUTE_POS, &sizes);
        let mut sum = 0.0f32;
        for d in 0..at.d.count {
            for h in 0..at.h.count {
                for w in 0..at.w.count {
                    sum += f32::cast_from(x[index(at, d, h, w, &sizes)]);
                }
            }
        }
        y[ABSOLUTE_POS] = F::cast_from(sum / volume);
    }
}
