//! Cubic B-spline interpolation: the prefilter that turns values into coefficients, and where a sample reads them.
//!
//! The image goes on past its edges as its edge values, for ever. There the coefficients need no storage: past the
//! edge voxel 0 they are c[-k] = s[0] + pole^k (c[0] - s[0]), and the interpolation condition s[0] = (c[-1] + 4 c[0] +
//! c[1]) / 6 makes them a combination of c[0] and c[1]. SciPy pads 12 voxels instead, which differs by pole^24.

use cubecl::prelude::*;

use crate::common::coordinates::Cell;
use crate::common::interpolation::Elements;

/// sqrt(3) - 2.
pub const POLE: f32 = -0.267_949_2;
/// Voxels past the edge to which a coordinate is clamped, as in SciPy.
pub const REACH: i32 = 12;

/// y = x as f32, clipped if asked for.
#[cube(launch_unchecked)]
pub fn decode<S: Elements>(
    x: &Array<S::Stored>,
    y: &mut Array<f32>,
    clip_low: f32,
    clip_high: f32,
    #[comptime] clip: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let mut v = S::load(x, ABSOLUTE_POS);
        if comptime![clip] {
            // Comparisons keep NaN.
            v = select(v < clip_low, clip_low, select(v > clip_high, clip_high, v));
        }
        y[ABSOLUTE_POS] = v;
    }
}

/// Values to coefficients in place along one axis: one unit a line of `len` elements, `stride` apart.
///
/// c+[i] = 6 s[i] + pole c+[i-1] forwards, c[i] = pole (c[i+1] - c+[i]) backwards, both started from the closed form of
/// the constant that goes on past the edge.
#[cube(launch_unchecked)]
pub fn prefilter(c: &mut Array<f32>, lines: u32, len: u32, stride: u32) {
    if ABSOLUTE_POS < lines as usize {
        let (len, stride) = (len as usize, stride as usize);
        let first = ABSOLUTE_POS / stride * stride * len + ABSOLUTE_POS % stride;
        let last = first + (len - 1) * stride;
        let settled = c[last] * (6.0 / (1.0 - POLE));
        let mut previous = c[first] * (6.0 / (1.0 - POLE));
        c[first] = previous;
        for i in 1..len {
            let at = first + i * stride;
            previous = 6.0 * c[at] + POLE * previous;
            c[at] = previous;
        }
        let mut next = -POLE * (settled * (1.0 / (1.0 - POLE)) + (previous - settled) * (1.0 / (1.0 - POLE * POLE)));
        c[last] = next;
        for i in 1..len {
            let at = last - i * stride;
            next = POLE * (next - c[at]);
            c[at] = next;
        }
    }
}

/// Keeps a cell within [`REACH`] of the image, where nothing changes any more.
#[cube]
pub fn within_reach(at: Cell, size: u32) -> Cell {
    let high = i32::cast_from(size) + (REACH - 1);
    let inside = at.low >= -REACH && at.low < high;
    Cell { low: clamp(at.low, -REACH, high), fraction: select(inside, at.fraction, 0.0) }
}

/// Fills the weights of four consecutive coefficients for a sample [`within_reach`], and returns the first of them.
/// Those past the end of a short axis weigh 0.
#[cube]
pub fn window(at: Cell, size: u32, weights: &mut Array<f32>) -> i32 {
    let (f, g) = (at.fraction, 1.0 - at.fraction);
    let mut taps = Array::<f32>::new(4usize);
    taps[0] = g * g * g * (1.0 / 6.0);
    taps[1] = (4.0 + f * f * (3.0 * f - 6.0)) * (1.0 / 6.0);
    taps[2] = (4.0 + g * g * (3.0 * g - 6.0)) * (1.0 / 6.0);
    taps[3] = f * f * f * (1.0 / 6.0);

    let last = i32::cast_from(size) - 1;
    let start = clamp(at.low - 1, 0, max(last - 3, 0));
    // What lies past either edge, as weights of the edge voxel's coefficient (`_edge`) and its neighbour's (`_next`).
    let (mut low_edge, mut low_next) = (f32::cast_from(0), f32::cast_from(0));
    let (mut high_edge, mut high_next) = (f32::cast_from(0), f32::cast_from(0));
    #[unroll]
    for j in 0..4usize {
        let tap = at.low - 1 + j as i32;
        if tap < 0 {
            let p = power(-tap);
            low_edge += taps[j] * ((1.0 - p) * ((4.0 + POLE) / (5.0 + POLE)) + p);
            low_next += taps[j] * ((1.0 - p) * (1.0 / (5.0 + POLE)));
        }
        if tap > last {
            let p = power(tap - last);
            high_edge += taps[j] * ((1.0 - p) * ((4.0 + POLE) / (5.0 + POLE)) + p);
            high_next += taps[j] * ((1.0 - p) * (1.0 / (5.0 + POLE)));
        }
    }
    #[unroll]
    for slot in 0..4usize {
        let index = start + slot as i32;
        let mut weight = f32::cast_from(0);
        #[unroll]
        for j in 0..4usize {
            weight += select(at.low - 1 + j as i32 == index, taps[j], 0.0);
        }
        weight += select(index == 0, low_edge, 0.0) + select(index == 1, low_next, 0.0);
        weight += select(index == last, high_edge, 0.0) + select(index == last - 1, high_next, 0.0);
        // A line of one voxel is a constant, whatever the place.
        weight = select(last == 0, select(index == 0, 1.0, 0.0), weight);
        weights[slot] = select(index > last, 0.0, weight);
    }
    start
}

/// pole^k, k at most a few more than [`REACH`].
#[cube]
fn power(k: i32) -> f32 {
    let mut p = f32::cast_from(1);
    for _ in 0..k {
        p *= POLE;
    }
    p
}

/// Units of a cube of [`range_parts`].
pub const RANGE_UNITS: u32 = 256;

/// Lowest and highest value of the parts of each image and channel, NaN left out: `parts` is [n, c, count, 2], one cube
/// an entry. Comparing is exact, so any order gives the same bits.
#[cube(launch_unchecked)]
pub fn range_parts<F: Float>(x: &Array<F>, parts: &mut Array<f32>, voxels: u32, channels: u32, count: u32) {
    let unit = UNIT_POS_X as usize;
    let (channels, count) = (channels as usize, count as usize);
    // The grid may have a few cubes too many: they reach the barriers with nothing to do.
    let exists = CUBE_POS < parts.len() / 2;
    let voxels = select(exists, voxels as usize, 0);
    let (group, part) = (CUBE_POS / count, CUBE_POS % count);
    let (image, channel) = (group / channels, group % channels);
    let mut lows = SharedMemory::<f32>::new(RANGE_UNITS as usize);
    let mut highs = SharedMemory::<f32>::new(RANGE_UNITS as usize);
    let (mut low, mut high) = (f32::MAX.runtime(), f32::MIN.runtime());
    let mut i = part * RANGE_UNITS as usize + unit;
    while i < voxels {
        let v = f32::cast_from(x[(image * voxels + i) * channels + channel]);
        low = select(v < low, v, low);
        high = select(v > high, v, high);
        i += count * RANGE_UNITS as usize;
    }
    lows[unit] = low;
    highs[unit] = high;
    sync_cube();
    let mut half = RANGE_UNITS.runtime() / 2;
    while half > 0 {
        if UNIT_POS_X < half {
            let (a, b) = (lows[unit], lows[unit + half as usize]);
            lows[unit] = select(b < a, b, a);
            let (a, b) = (highs[unit], highs[unit + half as usize]);
            highs[unit] = select(b > a, b, a);
        }
        sync_cube();
        half /= 2;
    }
    if UNIT_POS_X == 0 {
        if exists {
            parts[2 * CUBE_POS] = lows[0];
            parts[2 * CUBE_POS + 1] = highs[0];
        }
    }
}

/// [n, c, count, 2] to [n, c, 2]: one unit an image and channel.
#[cube(launch_unchecked)]
pub fn range_join(parts: &Array<f32>, range: &mut Array<f32>, count: u32) {
    if ABSOLUTE_POS < range.len() / 2 {
        let count = count as usize;
        let first = 2 * ABSOLUTE_POS * count;
        let (mut low, mut high) = (parts[first], parts[first + 1]);
        for i in 1..count {
            let (a, b) = (parts[first + 2 * i], parts[first + 2 * i + 1]);
            low = select(a < low, a, low);
            high = select(b > high, b, high);
        }
        range[2 * ABSOLUTE_POS] = low;
        range[2 * ABSOLUTE_POS + 1] = high;
    }
}
