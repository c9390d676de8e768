//! Gradients of pooling: one unit an element of the input. It adds over the windows that contain the element in the order of the outputs,
//! so nothing is scattered and the result has the same bits every time. That of the maximum searches each of those windows again.

use cubecl::prelude::*;

use super::{PoolSizes, Span, span};

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

/// dx = the sum of dy over the windows whose first maximum (or last NaN) is the element.
#[cube(launch_unchecked)]
pub fn max_pool_backward<F: Float>(x: &Array<F>, dy: &Array<F>, dx: &mut Array<F>, sizes: PoolSizes) {
    if ABSOLUTE_POS < dx.len() {
        let at = element(ABSOLUTE_POS, &sizes);
        let mut sum = 0.0f32;
        for od in at.d.first..at.d.first + at.d.count {
            for oh in at.h.first..at.h.first + at.h.count {
                for ow in at.w.first..at.w.first + at.w.count {
                    let d = span(od, sizes.stride_d, sizes.padding_d, sizes.kernel_d, sizes.input_d);
                    let h = span(oh, sizes.stride_h, sizes.padding_h, sizes.kernel_h, sizes.input_h);
                    let w = span(ow, sizes.stride_w, sizes.padding_w, sizes.kernel_w, sizes.input_w);
                    let slice = at.image * sizes.input_d;
                    let mut winner = (((slice + d.first) * sizes.input_h + h.first) * sizes.input_w + w.first)
                        * sizes.channels
                        + at.channel;
                    let mut best = f32::cast_from(x[winner]);
                    for z in d.first..d.first + d.count {
                        for y in h.first..h.first + h.count {
                            for u in w.first..w.first + w.count {
                                let candidate = (((slice + z) * sizes.input_h + y) * sizes.input_w + u)
                                    * sizes.channels
                                    + at.channel;
                                let value = f32::cast_from(x[candidate]);
                                let wins = value > best || value.is_nan();
                                best = select(wins, value, best);
                                winner = select(wins, candidate, winner);
                            }
                        }
                    }
                    let gradient = f32::cast_from(dy[output(at, od, oh, ow, &sizes)]);
                    sum += select(winner == ABSOLUTE_POS, gradient, 0.0);
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
