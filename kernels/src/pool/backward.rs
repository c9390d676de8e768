//! Gradients of pooling: one unit an element of the input. It adds over the windows that contain the element in the order of the outputs,
//! so nothing is scattered and the result has the same bits every time. For the maximum a pass before it finds the element that won each
//! window. (One kernel that searches the windows of each element again spills registers.)

use cubecl::prelude::*;

use super::{PoolSizes, Span, index, window};

/// The outputs whose windows contain input `i` of an axis: none for one that windows skip.
#[cube]
fn windows(i: usize, stride: usize, padding: usize, kernel: usize, outputs: usize) -> Span {
    let padded = i + padding;
    // The first window that ends behind the input starts at or above padded + 1 - kernel.
    let first = (max(padded + 1, kernel) - kernel).div_ceil(stride);
    let end = min(padded / stride + 1, outputs);
    Span { first, count: max(end, first) - first }
}

/// The image, the channel and the windows of an input element.
#[derive(CubeType, Clone, Copy)]
struct Element {
    image: usize,
    channel: usize,
    d: Span,
    h: Span,
    w: Span,
}

#[cube]
fn element(input: usize, s: &PoolSizes) -> Element {
    let voxel = input / s.channels;
    let row = voxel / s.input_w;
    let slice = row / s.input_h;
    Element {
        image: slice / s.input_d,
        channel: input % s.channels,
        d: windows(slice % s.input_d, s.stride_d, s.padding_d, s.kernel_d, s.output_d),
        h: windows(row % s.input_h, s.stride_h, s.padding_h, s.kernel_h, s.output_h),
        w: windows(voxel % s.input_w, s.stride_w, s.padding_w, s.kernel_w, s.output_w),
    }
}

/// The element of dy of a window.
#[cube]
fn output(at: Element, d: usize, h: usize, w: usize, s: &PoolSizes) -> usize {
    (((at.image * s.output_d + d) * s.output_h + h) * s.output_w + w) * s.channels + at.channel
}

/// The element of x that is the first maximum (or the last NaN) of the window of each output.
#[cube(launch_unchecked)]
pub fn max_pool_winners<F: Float>(x: &Array<F>, winners: &mut Array<u32>, sizes: PoolSizes) {
    if ABSOLUTE_POS < winners.len() {
        let at = window(ABSOLUTE_POS, &sizes);
        let mut winner = index(at, 0, 0, 0, &sizes);
        let mut best = f32::cast_from(x[winner]);
        for d in 0..at.d.count {
            for h in 0..at.h.count {
                for w in 0..at.w.count {
                    let candidate = index(at, d, h, w, &sizes);
                    let value = f32::cast_from(x[candidate]);
                    let wins = value > best || value.is_nan();
                    best = select(wins, value, best);
                    winner = select(wins, candidate, winner);
                }
            }
        }
        winners[ABSOLUTE_POS] = u32::cast_from(winner);
    }
}

/// dx = the sum of dy over the outputs that the element has won.
#[cube(launch_unchecked)]
pub fn max_pool_backward<F: Float>(winners: &Array<u32>, dy: &Array<F>, dx: &mut Array<F>, sizes: PoolSizes) {
    if ABSOLUTE_POS < dx.len() {
        let at = element(ABSOLUTE_POS, &sizes);
        let own = u32::cast_from(ABSOLUTE_POS);
        let mut sum = 0.0f32;
        for od in at.d.first..at.d.first + at.d.count {
            for oh in at.h.first..at.h.first + at.h.count {
                for ow in at.w.first..at.w.first + at.w.count {
                    let from = output(at, od, oh, ow, &sizes);
                    sum += select(winners[from] == own, f32::cast_from(dy[from]), 0.0);
                }
            }
        }
        dx[ABSOLUTE_POS] = F::cast_from(sum);
    }
}

/// dx = the sum of dy over the windows that contain the element, divided by `volume`.
#[cube(launch_unchecked)]
pub fn avg_pool_backward<F: Float>(dy: &Array<F>, dx: &mut Array<F>, sizes: PoolSizes, volume: f32) {
    if ABSOLUTE_POS < dx.len() {
        let at = element(ABSOLUTE_POS, &sizes);
        let mut sum = 0.0f32;
        for od in at.d.first..at.d.first + at.d.count {
            for oh in at.h.first..at.h.first + at.h.count {
                for ow in at.w.first..at.w.first + at.w.count {
                    sum += f32::cast_from(dy[output(at, od, oh, ow, &sizes)]);
                }
            }
        }
        dx[ABSOLUTE_POS] = F::cast_from(sum / volume);
    }
}
