//! Warping by a displacement field, or by an affine matrix without a grid in memory.

use cubecl::prelude::*;

use crate::common::coordinates::{Extent, Padding, normalised, unnormalise};
use crate::common::interpolation::{Elements, Floats, Mode, PackedU8, sample};

/// y[n, p, c] = x[n, p + flow[n, p], c], trilinear; the flow is [n, d, h, w, 3] voxels, (z, y, x). One unit an element.
#[cube(launch_unchecked)]
pub fn warp<F: Float>(
    x: &Array<F>,
    flow: &Array<f32>,
    y: &mut Array<F>,
    size: Extent,
    channels: u32,
    #[comptime] padding: Padding,
) {
    if ABSOLUTE_POS < y.len() {
        let channels = channels as usize;
        let (w, h, d) = (size.w as usize, size.h as usize, size.d as usize);
        let point = ABSOLUTE_POS / channels;
        let first = point / (d * h * w) * (d * h * w) * channels + ABSOLUTE_POS % channels;
        let cz = f32::cast_from(point / (w * h) % d) + flow[3 * point];
        let cy = f32::cast_from(point / w % h) + flow[3 * point + 1];
        let cx = f32::cast_from(point % w) + flow[3 * point + 2];
        let value = sample::<Floats<F>>(x, first, channels, size, cz, cy, cx, Mode::Linear, padding);
        y[ABSOLUTE_POS] = F::cast_from(value);
    }
}

/// Element `i` of the output of an affine warp: grid_sample at theta's image of the output's normalised voxels.
#[cube]
fn affine_element<S: Elements>(
    x: &Array<S::Stored>,
    theta: &Array<f32>,
    i: usize,
    input: Extent,
    output: Extent,
    channels: usize,
    #[comptime] mode: Mode,
    #[comptime] padding: Padding,
    #[comptime] align_corners: bool,
) -> f32 {
    let (w, h, d) = (output.w as usize, output.h as usize, output.d as usize);
    let point = i / channels;
    let n = point / (w * h * d);
    let first = n * (input.d as usize * input.h as usize * input.w as usize) * channels + i % channels;
    let gx = normalised((point % w) as u32, output.w, align_corners);
    let gy = normalised((point / w % h) as u32, output.h, align_corners);
    let gz = normalised((point / (w * h) % d) as u32, output.d, align_corners);
    let t = 12 * n;
    let tx = theta[t] * gx + theta[t + 1] * gy + theta[t + 2] * gz + theta[t + 3];
    let ty = theta[t + 4] * gx + theta[t + 5] * gy + theta[t + 6] * gz + theta[t + 7];
    let tz = theta[t + 8] * gx + theta[t + 9] * gy + theta[t + 10] * gz + theta[t + 11];
    let cx = unnormalise(tx, input.w, align_corners);
    let cy = unnormalise(ty, input.h, align_corners);
    let cz = unnormalise(tz, input.d, align_corners);
    sample::<S>(x, first, channels, input, cz, cy, cx, mode, padding)
}

/// Floats: one unit an element.
#[cube(launch_unchecked)]
pub fn affine_warp<F: Float>(
    x: &Array<F>,
    theta: &Array<f32>,
    y: &mut Array<F>,
    input: Extent,
    output: Extent,
    channels: u32,
    #[comptime] mode: Mode,
    #[comptime] padding: Padding,
    #[comptime] align_corners: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let value = affine_element::<Floats<F>>(
            x,
            theta,
            ABSOLUTE_POS,
            input,
            output,
            channels as usize,
            mode,
            padding,
            align_corners,
        );
        y[ABSOLUTE_POS] = F::cast_from(value);
    }
}

/// u8 labels, nearest: one unit a word of four elements, of which `len` exist.
#[cube(launch_unchecked)]
pub fn affine_warp_labels(
    x: &Array<u32>,
    theta: &Array<f32>,
    y: &mut Array<u32>,
    input: Extent,
    output: Extent,
    channels: u32,
    len: u32,
    #[comptime] padding: Padding,
    #[comptime] align_corners: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let mut word = u32::cast_from(0);
        #[unroll]
        for k in 0..4u32 {
            let i = 4 * ABSOLUTE_POS + k as usize;
            if i < len as usize {
                let label = affine_element::<PackedU8>(
                    x,
                    theta,
                    i,
                    input,
                    output,
                    channels as usize,
                    Mode::Nearest,
                    padding,
                    align_corners,
                );
                word |= u32::cast_from(label) << (8 * k);
            }
        }
        y[ABSOLUTE_POS] = word;
    }
}
