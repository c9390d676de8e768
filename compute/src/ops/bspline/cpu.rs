//! Cubic B-splines on the CPU: the prefilter in f64 lines, and the weights of a sample.

use rayon::prelude::*;

use super::{POLE, REACH};
use crate::ops::sampling::cpu::Cell;
use crate::tensor::Shape;

/// Number of lines that are filtered together: a few cache lines of each row.
const LINES: usize = 64;

/// Values [n, d, h, w, c] to B-spline coefficients, axis by axis. The recursion runs in f64; f32 is stored between axes.
pub(crate) fn coefficients(shape: Shape, mut values: Vec<f32>) -> Vec<f32> {
    let [_, c, d, h, w] = shape;
    for (len, stride) in [(d, h * w * c), (h, w * c), (w, c)] {
        if values.is_empty() || len == 1 {
            continue; // one voxel is a constant, which is its own spline
        }
        values.par_chunks_mut(len * stride).for_each(|chunk| filter_columns(chunk, len, stride));
    }
    values
}

/// All lines of a block [len, stride] along its first axis.
fn filter_columns(block: &mut [f32], len: usize, stride: usize) {
    if stride == 1 {
        let mut line: Vec<f64> = block.iter().map(|&v| v.into()).collect();
        filter_lines(&mut line, 1);
        block.iter_mut().zip(line).for_each(|(out, v)| *out = v as f32);
        return;
    }
    // Blocks are gathered, filtered and returned as a whole, so that threads share the input and never the output.
    let strip = |first: usize| first..(first + LINES).min(stride);
    let filtered: Vec<Vec<f32>> = (0..stride.div_ceil(LINES))
        .into_par_iter()
        .map(|s| {
            let columns = strip(s * LINES);
            let width = columns.len();
            let mut lines: Vec<f64> = Vec::with_capacity(len * width);
            for row in block.chunks_exact(stride) {
                lines.extend(row[columns.clone()].iter().map(|&v| f64::from(v)));
            }
            filter_lines(&mut lines, width);
            lines.into_iter().map(|v| v as f32).collect()
        })
        .collect();
    block.par_chunks_mut(stride).enumerate().for_each(|(i, row)| {
        for (s, lines) in filtered.iter().enumerate() {
            let columns = strip(s * LINES);
            let width = columns.len();
            row[columns].copy_from_slice(&lines[i * width..(i + 1) * width]);
        }
    });
}

/// `width` lines side by side, [len, width]: c+[i] = 6 s[i] + pole c+[i-1] forwards, c[i] = pole (c[i+1] - c+[i])
/// backwards, both started from the closed form for edge values that continue beyond the edge.
fn filter_lines(lines: &mut [f64], width: usize) {
    let rows = lines.len() / width;
    let settled: Vec<f64> = lines[(rows - 1) * width..].iter().map(|s| 6.0 * s / (1.0 - POLE)).collect();
    for c in &mut lines[..width] {
        *c *= 6.0 / (1.0 - POLE);
    }
    for i in 1..rows {
        let (before, rest) = lines.split_at_mut(i * width);
        for (c, previous) in rest[..width].iter_mut().zip(&before[(i - 1) * width..]) {
            *c = 6.0 * *c + POLE * previous;
        }
    }
    for (c, settled) in lines[(rows - 1) * width..].iter_mut().zip(settled) {
        *c = -POLE * (settled / (1.0 - POLE) + (*c - settled) / (1.0 - POLE * POLE));
    }
    for i in (0..rows - 1).rev() {
        let (rest, after) = lines.split_at_mut((i + 1) * width);
        for (c, next) in rest[i * width..].iter_mut().zip(&after[..width]) {
            *c = POLE * (next - *c);
        }
    }
}

/// Lowest and highest value of each image and channel of `x` [n, d, h, w, c], NaN left out: [n, c].
pub(super) fn ranges(x: &[f32], shape: Shape) -> Vec<(f32, f32)> {
    let [n, c, d, h, w] = shape;
    if x.is_empty() {
        return vec![(0.0, 0.0); n * c];
    }
    let none = || vec![(f32::MAX, f32::MIN); c];
    let join = |mut a: Vec<(f32, f32)>, b: &[(f32, f32)]| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = (a.0.min(b.0), a.1.max(b.1)));
        a
    };
    x.chunks_exact(d * h * w * c)
        .flat_map(|image| {
            image
                .par_chunks(w * c)
                .fold(none, |mut range, row| {
                    for voxel in row.chunks_exact(c) {
                        range.iter_mut().zip(voxel).for_each(|(r, &v)| *r = (r.0.min(v), r.1.max(v)));
                    }
                    range
                })
                .reduce(none, |a, b| join(a, &b))
        })
        .collect()
}

/// Clamps a cell to [`REACH`] voxels around the image, beyond which values are constant.
pub(crate) fn within_reach(at: Cell, size: usize) -> Cell {
    let high = size as isize + REACH - 1;
    if at.low < -REACH {
        Cell { low: -REACH, fraction: 0.0 }
    } else if at.low >= high {
        Cell { low: high, fraction: 0.0 }
    } else {
        at
    }
}

/// The first of four consecutive coefficients and their weights, for a sample [`within_reach`]. Those past the end of
/// a short axis weigh 0.
///
/// Past the edge voxel 0 the coefficients are c[-k] = s[0] + pole^k (c[0] - s[0]), where the interpolation condition
/// s[0] = (c[-1] + 4 c[0] + c[1]) / 6 makes s[0] a combination of c[0] and c[1]; so they weigh on those two.
pub(crate) fn window(at: Cell, size: usize) -> (usize, [f32; 4]) {
    let (f, g) = (at.fraction, 1.0 - at.fraction);
    let taps = [
        g * g * g / 6.0,
        (4.0 + f * f * (3.0 * f - 6.0)) / 6.0,
        (4.0 + g * g * (3.0 * g - 6.0)) / 6.0,
        f * f * f / 6.0,
    ];
    let last = size as isize - 1;
    if last == 0 {
        return (0, [1.0, 0.0, 0.0, 0.0]);
    }
    let first = at.low - 1;
    if first >= 0 && first + 3 <= last {
        return (first as usize, taps);
    }
    let start = first.clamp(0, (last - 3).max(0));
    let mut weights = [0.0; 4];
    let mut add = |index: isize, weight: f32| weights[(index - start) as usize] += weight;
    for (tap, weight) in (first..).zip(taps) {
        let (edge, inwards, past) = if tap < 0 { (0, 1, -tap) } else { (last, -1, tap - last) };
        if past <= 0 {
            add(tap, weight);
        } else {
            let p = POLE.powi(past as i32);
            add(edge, weight * ((1.0 - p) * (4.0 + POLE) / (5.0 + POLE) + p) as f32);
            add(edge + inwards, weight * ((1.0 - p) / (5.0 + POLE)) as f32);
        }
    }
    (start as usize, weights)
}
