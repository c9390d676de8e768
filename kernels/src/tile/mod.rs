//! Sliding-window tiles: picking slices, cutting a patch, adding its weighted logits up, and resampling the result straight into labels
//! or probabilities.
//!
//! All of them are memory bound and touch each element once, so one unit owns an output (four labels, a voxel of logits or
//! one element) and nothing is shared between units. The resampling kernels never write the upsampled logits: a unit
//! reads its eight neighbours class by class and keeps the best.

use cubecl::prelude::*;

/// The place along one axis of a tile's source: `start` plus the position, counted from the far end if mirrored.
#[cube]
fn source(position: usize, size: u32, start: i32, mirrored: u32) -> i32 {
    let position = position as u32;
    let far = size - 1 - position;
    start + i32::cast_from(select(mirrored == 1, far, position))
}

/// y[n, p, c] = x[n, start + m(p), c], zero outside; m mirrors the axes whose flag is 1.
///
/// Shapes: x [n, `input_d`, `input_h`, `input_w`, c], y [n, d, h, w, c].
#[cube(launch_unchecked)]
pub fn crop<X: Float, F: Float>(
    x: &Array<X>,
    y: &mut Array<F>,
    input_d: u32,
    input_h: u32,
    input_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
    start_d: i32,
    start_h: i32,
    start_w: i32,
    mirror_d: u32,
    mirror_h: u32,
    mirror_w: u32,
) {
    if ABSOLUTE_POS < y.len() {
        let channel = ABSOLUTE_POS % channels as usize;
        let column = ABSOLUTE_POS / channels as usize;
        let row = column / w as usize;
        let plane = row / h as usize;
        let image = plane / d as usize;
        // Negative positions become large ones, so that one comparison an axis rejects both sides.
        let z = source(plane % d as usize, d, start_d, mirror_d) as u32;
        let r = source(row % h as usize, h, start_h, mirror_h) as u32;
        let q = source(column % w as usize, w, start_w, mirror_w) as u32;
        let mut value = f32::new(0.0);
        // Comparisons alone: `&&` evaluates both sides.
        let inside = z < input_d && r < input_h && q < input_w;
        if inside {
            let slice = image * input_d as usize + z as usize;
            let voxel = (slice * input_h as usize + r as usize) * input_w as usize + q as usize;
            value = f32::cast_from(x[voxel * channels as usize + channel]);
        }
        y[ABSOLUTE_POS] = F::cast_from(value);
    }
}

/// y[i] = x[indices[i]] over images of `image` elements each.
#[cube(launch_unchecked)]
pub fn select_images(x: &Array<f32>, indices: &Array<u32>, y: &mut Array<f32>, image: u32) {
    if ABSOLUTE_POS < y.len() {
        let image = image as usize;
        let from = indices[ABSOLUTE_POS / image] as usize;
        y[ABSOLUTE_POS] = x[from * image + ABSOLUTE_POS % image];
    }
}

/// sum[start + p, c] += weight[p] tile[m(p), c] and total[start + p] += weight[p], over the voxels p of a tile; what falls
/// outside the sum is dropped.
///
/// Shapes: tile [d, h, w, c], weight [d, h, w], sum [`sum_d`, `sum_h`, `sum_w`, c], total [`sum_d`, `sum_h`, `sum_w`].
#[cube(launch_unchecked)]
pub fn accumulate<F: Float, S: Float>(
    tile: &Array<F>,
    weight: &Array<f32>,
    sum: &mut Array<S>,
    total: &mut Array<f32>,
    sum_d: u32,
    sum_h: u32,
    sum_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
    start_d: i32,
    start_h: i32,
    start_w: i32,
    mirror_d: u32,
    mirror_h: u32,
    mirror_w: u32,
) {
    if ABSOLUTE_POS < weight.len() {
        let row = ABSOLUTE_POS / w as usize;
        let column = ABSOLUTE_POS % w as usize;
        let plane = row / h as usize;
        let line = row % h as usize;
        let z = (start_d + i32::cast_from(plane as u32)) as u32;
        let r = (start_h + i32::cast_from(line as u32)) as u32;
        let q = (start_w + i32::cast_from(column as u32)) as u32;
        let inside = z < sum_d && r < sum_h && q < sum_w;
        if inside {
            let from_d = source(plane, d, 0, mirror_d) as usize;
            let from_h = source(line, h, 0, mirror_h) as usize;
            let from_w = source(column, w, 0, mirror_w) as usize;
            let from = ((from_d * h as usize + from_h) * w as usize + from_w) * channels as usize;
            let to = (z as usize * sum_h as usize + r as usize) * sum_w as usize + q as usize;
            let share = weight[ABSOLUTE_POS];
            total[to] += share;
            for channel in 0..channels as usize {
                let at = to * channels as usize + channel;
                let added = f32::cast_from(sum[at]) + share * f32::cast_from(tile[from + channel]);
                sum[at] = S::cast_from(added);
            }
        }
    }
}

/// y = sum / total, zero where nothing was added.
#[cube(launch_unchecked)]
pub fn mean<S: Float>(sum: &Array<S>, total: &Array<f32>, y: &mut Array<f32>, channels: u32) {
    if ABSOLUTE_POS < y.len() {
        let weight = total[ABSOLUTE_POS / channels as usize];
        let divisor = select(weight > 0.0, weight, 1.0);
        y[ABSOLUTE_POS] = f32::cast_from(sum[ABSOLUTE_POS]) / divisor;
    }
}

/// Where an output voxel reads: the element offsets of its two neighbours along each axis, and how far it lies between.
#[derive(CubeType)]
struct Corners {
    z0: usize,
    z1: usize,
    y0: usize,
    y1: usize,
    x0: usize,
    x1: usize,
    tz: f32,
    ty: f32,
    tx: f32,
}

/// The corners of output voxel `position`. `taps` holds for z, then y, then x the low and then the high input index of
/// each output index; `fraction` the weights of the high ones.
#[cube]
fn corners(
    position: usize,
    taps: &Array<u32>,
    fraction: &Array<f32>,
    input_h: u32,
    input_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
) -> Corners {
    let (d, h, w) = (d as usize, h as usize, w as usize);
    let x = position % w;
    let y = (position / w) % h;
    let z = position / w / h;
    let along_y = 2 * d;
    let along_x = 2 * (d + h);
    let pixel = channels as usize;
    let line = input_w as usize * pixel;
    let slice = input_h as usize * line;
    Corners {
        z0: taps[z] as usize * slice,
        z1: taps[d + z] as usize * slice,
        y0: taps[along_y + y] as usize * line,
        y1: taps[along_y + h + y] as usize * line,
        x0: taps[along_x + x] as usize * pixel,
        x1: taps[along_x + w + x] as usize * pixel,
        tz: fraction[z],
        ty: fraction[d + y],
        tx: fraction[d + h + x],
    }
}

#[cube]
fn between(a: f32, b: f32, t: f32) -> f32 {
    a * (1.0 - t) + b * t
}

/// Trilinear value of one channel at the corners.
#[cube]
fn interpolated(x: &Array<f32>, at: &Corners, channel: usize) -> f32 {
    let low = between(
        between(x[at.z0 + at.y0 + at.x0 + channel], x[at.z1 + at.y0 + at.x0 + channel], at.tz),
        between(x[at.z0 + at.y1 + at.x0 + channel], x[at.z1 + at.y1 + at.x0 + channel], at.tz),
        at.ty,
    );
    let high = between(
        between(x[at.z0 + at.y0 + at.x1 + channel], x[at.z1 + at.y0 + at.x1 + channel], at.tz),
        between(x[at.z0 + at.y1 + at.x1 + channel], x[at.z1 + at.y1 + at.x1 + channel], at.tz),
        at.ty,
    );
    between(low, high, at.tx)
}

/// NaN and the infinities are not: two comparisons that NaN fails.
#[cube]
fn is_finite(value: f32) -> bool {
    let comparisons = u32::cast_from(value <= f32::MAX) + u32::cast_from(value >= f32::MIN);
    comparisons == 2
}

/// The channel of the largest interpolated logit as u8, four voxels a word; the lowest of equals, 255 where a logit is NaN
/// or infinite.
///
/// Shapes: x [.., `input_h`, `input_w`, c], labels [d, h, w] of `len` voxels.
#[cube(launch_unchecked)]
pub fn labels(
    x: &Array<f32>,
    taps: &Array<u32>,
    fraction: &Array<f32>,
    words: &mut Array<u32>,
    len: u32,
    input_h: u32,
    input_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
) {
    if ABSOLUTE_POS < words.len() {
        let mut word = u32::new(0);
        #[unroll]
        for lane in 0..4usize {
            let position = ABSOLUTE_POS * 4 + lane;
            // Past the end the last word repeats its last voxel.
            let last = len as usize - 1;
            let position = select(position < last, position, last);
            let at = corners(position, taps, fraction, input_h, input_w, d, h, w, channels);
            let mut best = f32::new(f32::MIN);
            let mut label = u32::new(255);
            let mut broken = u32::new(0);
            for channel in 0..channels as usize {
                let value = interpolated(x, &at, channel);
                broken = select(is_finite(value), broken, 1);
                if value > best {
                    best = value;
                    label = channel as u32;
                }
            }
            label = select(broken == 1, 255, label);
            word |= label << (8 * lane as u32);
        }
        words[ABSOLUTE_POS] = word;
    }
}

/// The value of the last channel whose interpolated logit is above 0, that is, whose sigmoid is above a half: u8, four voxels
/// a word; 0 where there is none, 255 where a logit is NaN or infinite.
///
/// Shapes: as [`labels`], values [c].
#[cube(launch_unchecked)]
pub fn regions(
    x: &Array<f32>,
    taps: &Array<u32>,
    fraction: &Array<f32>,
    values: &Array<u32>,
    words: &mut Array<u32>,
    len: u32,
    input_h: u32,
    input_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
) {
    if ABSOLUTE_POS < words.len() {
        let mut word = u32::new(0);
        #[unroll]
        for lane in 0..4usize {
            let position = ABSOLUTE_POS * 4 + lane;
            // Past the end the last word repeats its last voxel.
            let last = len as usize - 1;
            let position = select(position < last, position, last);
            let at = corners(position, taps, fraction, input_h, input_w, d, h, w, channels);
            let mut label = u32::new(0);
            let mut broken = u32::new(0);
            for channel in 0..channels as usize {
                let value = interpolated(x, &at, channel);
                broken = select(is_finite(value), broken, 1);
                label = select(value > 0.0, values[channel], label);
            }
            label = select(broken == 1, 255, label);
            word |= label << (8 * lane as u32);
        }
        words[ABSOLUTE_POS] = word;
    }
}

/// The sigmoid of each interpolated logit.
///
/// Shapes: as [`probabilities`].
#[cube(launch_unchecked)]
pub fn sigmoids(
    x: &Array<f32>,
    taps: &Array<u32>,
    fraction: &Array<f32>,
    y: &mut Array<f32>,
    len: u32,
    input_h: u32,
    input_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
) {
    if ABSOLUTE_POS < len as usize {
        let at = corners(ABSOLUTE_POS, taps, fraction, input_h, input_w, d, h, w, channels);
        let classes = channels as usize;
        for channel in 0..classes {
            let value = interpolated(x, &at, channel);
            y[ABSOLUTE_POS * classes + channel] = 1.0f32 / (1.0f32 + f32::exp(-value));
        }
    }
}

/// The softmax over channels of the interpolated logits.
///
/// Shapes: x [.., `input_h`, `input_w`, c], y [d, h, w, c] of `len` voxels.
#[cube(launch_unchecked)]
pub fn probabilities(
    x: &Array<f32>,
    taps: &Array<u32>,
    fraction: &Array<f32>,
    y: &mut Array<f32>,
    len: u32,
    input_h: u32,
    input_w: u32,
    d: u32,
    h: u32,
    w: u32,
    channels: u32,
) {
    if ABSOLUTE_POS < len as usize {
        let at = corners(ABSOLUTE_POS, taps, fraction, input_h, input_w, d, h, w, channels);
        let classes = channels as usize;
        let first = ABSOLUTE_POS * classes;
        let mut largest = interpolated(x, &at, 0);
        for channel in 0..classes {
            let value = interpolated(x, &at, channel);
            y[first + channel] = value;
            largest = max(largest, value);
        }
        let mut total = f32::new(0.0);
        for channel in 0..classes {
            let share = f32::exp(y[first + channel] - largest);
            y[first + channel] = share;
            total += share;
        }
        for channel in 0..classes {
            y[first + channel] /= total;
        }
    }
}
