//! Resizing on the voxel grid, one axis' taps beside the other's: linear, nearest and, from its coefficients, the cubic
//! B-spline differ in the number of taps alone.

use cubecl::prelude::*;

use crate::common::coordinates::Extent;

/// The index of a tap on an axis; past the end of a short axis, where the weight is 0, the last voxel.
#[cube]
fn tap(first: &Array<u32>, entry: usize, i: usize, size: u32) -> usize {
    min(first[entry] + i as u32, size - 1) as usize
}

/// One unit an element: the sum over `count`^3 voxels of [n, d, h, w, c], weighted axis by axis.
///
/// `first` [D + H + W] and `weights` [D + H + W, count] hold the entries of the result's z, then y, then x. `range`
/// [n, c, 2] bounds the result of each image and channel where `clip` is asked for.
#[cube(launch_unchecked)]
pub fn separable<I: Float, O: Float>(
    x: &Array<I>,
    first: &Array<u32>,
    weights: &Array<f32>,
    range: &Array<f32>,
    y: &mut Array<O>,
    input: Extent,
    output: Extent,
    channels: u32,
    #[comptime] count: usize,
    #[comptime] clip: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let channels = channels as usize;
        let (d, h, w) = (output.d as usize, output.h as usize, output.w as usize);
        let (channel, point) = (ABSOLUTE_POS % channels, ABSOLUTE_POS / channels);
        let n = point / (d * h * w);
        let (ez, ey, ex) = (point / (w * h) % d, d + point / w % h, d + h + point % w);
        let mut sum = f32::cast_from(0);
        #[unroll]
        for dz in 0..count {
            let plane = (n * input.d as usize + tap(first, ez, dz, input.d)) * input.h as usize;
            #[unroll]
            for dy in 0..count {
                let row = (plane + tap(first, ey, dy, input.h)) * input.w as usize;
                let mut along = f32::cast_from(0);
                #[unroll]
                for dx in 0..count {
                    let voxel = (row + tap(first, ex, dx, input.w)) * channels + channel;
                    along += weights[ex * count + dx] * f32::cast_from(x[voxel]);
                }
                sum += weights[ez * count + dz] * weights[ey * count + dy] * along;
            }
        }
        if comptime![clip] {
            let bounds = 2 * (n * channels + channel);
            // Comparisons keep NaN.
            let (low, high) = (range[bounds], range[bounds + 1]);
            sum = select(sum < low, low, select(sum > high, high, sum));
        }
        y[ABSOLUTE_POS] = O::cast_from(sum);
    }
}
