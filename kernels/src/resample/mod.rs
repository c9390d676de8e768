//! Resampling between two grids: one unit an element of the output (a word of four for labels).
//!
//! Where an element comes from is a sum of three table entries, one for each of its indices, that the host has made in
//! f64 and split into a whole number and a part in [0, 1]. The whole numbers add up exactly, so the position is right
//! to 4e-7 voxels however large the image is, where a matrix in f32 is off by 2e-4 at 512^3.

use cubecl::prelude::*;

use crate::bspline::{window, within_reach};
use crate::common::coordinates::{Cell, Extent};
use crate::common::interpolation::{Elements, PackedU8, corner, corner_weight, voxel};

/// What is made of the corners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The nearest voxel, halves up.
    Nearest,
    /// Trilinear.
    Linear,
}

/// What lies outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outside {
    /// The edge goes on.
    Border,
    /// A constant from half a voxel past the outermost centres on.
    Constant,
}

/// Clip, then subtract the mean and divide by the standard deviation.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Scale {
    pub clip_low: f32,
    pub clip_high: f32,
    pub mean: f32,
    pub sd: f32,
}

#[cube]
fn clip(v: f32, scale: Scale, #[comptime] scaled: bool) -> f32 {
    let mut v = v;
    if comptime![scaled] {
        // Comparisons keep NaN.
        v = select(v < scale.clip_low, scale.clip_low, select(v > scale.clip_high, scale.clip_high, v));
    }
    v
}

#[cube]
fn normalise(v: f32, scale: Scale, #[comptime] scaled: bool) -> f32 {
    let mut v = v;
    if comptime![scaled] {
        v = (v - scale.mean) / scale.sd;
    }
    v
}

/// The position of output element `i` on input axis `axis`. The table is [d + h + w][3 input axes][whole, part].
#[cube]
fn place(table: &Array<f32>, i: usize, output: Extent, #[comptime] axis: usize) -> Cell {
    let (w, h) = (output.w as usize, output.h as usize);
    let z = i / (w * h) * 6 + 2 * axis;
    let y = (output.d as usize + i / w % h) * 6 + 2 * axis;
    let x = (output.d as usize + h + i % w) * 6 + 2 * axis;
    let whole = table[z] + table[y] + table[x];
    let part = table[z + 1] + table[y + 1] + table[x + 1];
    let carry = f32::floor(part);
    Cell { low: i32::cast_from(whole + carry), fraction: part - carry }
}

/// More than half a voxel past the outermost centres?
#[cube]
fn beyond(at: Cell, size: u32) -> bool {
    let last = i32::cast_from(size) - 1;
    let before = at.low < -1 || (at.low == -1 && at.fraction < 0.5);
    before || at.low > last || (at.low == last && at.fraction > 0.5)
}

#[cube]
fn beyond_any(z: Cell, y: Cell, x: Cell, size: Extent) -> bool {
    beyond(z, size.d) || beyond(y, size.h) || beyond(x, size.w)
}

/// Clamps to the outermost centres.
#[cube]
fn onto(at: Cell, size: u32) -> Cell {
    let last = i32::cast_from(size) - 1;
    let between = at.low >= 0 && at.low < last;
    Cell { low: clamp(at.low, 0, last), fraction: select(between, at.fraction, 0.0) }
}

/// The nearer of the two voxels around a cell inside the image.
#[cube]
fn nearest(at: Cell) -> i32 {
    at.low + select(at.fraction >= 0.5, 1, 0)
}

/// Nearest or trilinear, clipped before it is interpolated and normalised after. `constant` is scaled already.
#[cube(launch_unchecked)]
pub fn resample<S: Elements>(
    image: &Array<S::Stored>,
    table: &Array<f32>,
    out: &mut Array<f32>,
    input: Extent,
    output: Extent,
    scale: Scale,
    constant: f32,
    #[comptime] interpolation: Interpolation,
    #[comptime] outside: Outside,
    #[comptime] scaled: bool,
) {
    if ABSOLUTE_POS < out.len() {
        let z = place(table, ABSOLUTE_POS, output, 0usize);
        let y = place(table, ABSOLUTE_POS, output, 1usize);
        let x = place(table, ABSOLUTE_POS, output, 2usize);
        let (cz, cy, cx) = (onto(z, input.d), onto(y, input.h), onto(x, input.w));
        let mut value = f32::cast_from(0);
        if comptime![interpolation == Interpolation::Linear] {
            #[unroll]
            for i in 0..8u32 {
                let weight = corner_weight(cz, cy, cx, i);
                let v = clip(corner::<S>(image, 0usize, 1usize, input, cz, cy, cx, i), scale, scaled);
                // A corner that weighs nothing must not spread its NaN.
                value += select(weight > 0.0, weight * v, 0.0);
            }
        } else {
            value +=
                clip(voxel::<S>(image, 0usize, 1usize, input, nearest(cz), nearest(cy), nearest(cx)), scale, scaled);
        }
        value = normalise(value, scale, scaled);
        if comptime![outside == Outside::Constant] {
            value = select(beyond_any(z, y, x, input), constant, value);
        }
        out[ABSOLUTE_POS] = value;
    }
}

/// u8 labels, nearest: one unit a word of four elements, of which `len` exist.
#[cube(launch_unchecked)]
pub fn resample_labels(
    image: &Array<u32>,
    table: &Array<f32>,
    out: &mut Array<u32>,
    input: Extent,
    output: Extent,
    constant: u32,
    len: u32,
    #[comptime] outside: Outside,
) {
    if ABSOLUTE_POS < out.len() {
        let mut word = u32::cast_from(0);
        #[unroll]
        for k in 0..4u32 {
            let i = 4 * ABSOLUTE_POS + k as usize;
            if i < len as usize {
                let z = place(table, i, output, 0usize);
                let y = place(table, i, output, 1usize);
                let x = place(table, i, output, 2usize);
                let (cz, cy, cx) = (onto(z, input.d), onto(y, input.h), onto(x, input.w));
                let value = voxel::<PackedU8>(image, 0usize, 1usize, input, nearest(cz), nearest(cy), nearest(cx));
                let mut label = u32::cast_from(value);
                if comptime![outside == Outside::Constant] {
                    label = select(beyond_any(z, y, x, input), constant, label);
                }
                word |= label << (8 * k);
            }
        }
        out[ABSOLUTE_POS] = word;
    }
}

/// The index of a tap of a spline's window; past the end of a short axis, where the weight is 0, the last voxel.
#[cube]
fn tap(start: i32, i: usize, size: u32) -> usize {
    min(u32::cast_from(start) + i as u32, size - 1) as usize
}

/// Cubic B-spline, from the coefficients of the clipped image: 64 of them an element. `constant` is scaled already.
#[cube(launch_unchecked)]
pub fn resample_cubic(
    coefficients: &Array<f32>,
    table: &Array<f32>,
    out: &mut Array<f32>,
    input: Extent,
    output: Extent,
    scale: Scale,
    constant: f32,
    #[comptime] outside: Outside,
    #[comptime] scaled: bool,
) {
    if ABSOLUTE_POS < out.len() {
        let z = place(table, ABSOLUTE_POS, output, 0usize);
        let y = place(table, ABSOLUTE_POS, output, 1usize);
        let x = place(table, ABSOLUTE_POS, output, 2usize);
        let mut wz = Array::<f32>::new(4usize);
        let mut wy = Array::<f32>::new(4usize);
        let mut wx = Array::<f32>::new(4usize);
        let z0 = window(within_reach(z, input.d), input.d, &mut wz);
        let y0 = window(within_reach(y, input.h), input.h, &mut wy);
        let x0 = window(within_reach(x, input.w), input.w, &mut wx);
        let mut value = f32::cast_from(0);
        #[unroll]
        for dz in 0..4usize {
            let plane = tap(z0, dz, input.d) * input.h as usize;
            #[unroll]
            for dy in 0..4usize {
                let row = (plane + tap(y0, dy, input.h)) * input.w as usize;
                let mut along = f32::cast_from(0);
                #[unroll]
                for dx in 0..4usize {
                    along += wx[dx] * coefficients[row + tap(x0, dx, input.w)];
                }
                value += wz[dz] * wy[dy] * along;
            }
        }
        value = normalise(value, scale, scaled);
        if comptime![outside == Outside::Constant] {
            value = select(beyond_any(z, y, x, input), constant, value);
        }
        out[ABSOLUTE_POS] = value;
    }
}
