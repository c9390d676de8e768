//! Tiles on the CPU, with one task for each row or slice.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::{AxisTaps, NO_LABEL, ResampleLogitsProblem, TileProblem};

/// Voxels of a block of means.
const MEANS: usize = 1 << 10;

/// The image index of position `p` of a tile axis; None outside the image.
fn source(p: usize, axis: usize, problem: &TileProblem) -> Option<usize> {
    let p = if problem.placement.mirrored[axis] { problem.tile[axis] - 1 - p } else { p };
    let at = usize::try_from(problem.placement.start[axis] + p as isize).ok()?;
    (at < problem.image[axis]).then_some(at)
}

pub(super) fn crop(x: &[f32], n: usize, problem: &TileProblem) -> Vec<f32> {
    let ([d, h, w], [_, image_h, image_w], c) = (problem.tile, problem.image, problem.channels);
    let image = problem.image.iter().product::<usize>() * c;
    let mut y = vec![0.0; n * d * h * w * c];
    y.par_chunks_mut(w * c).enumerate().for_each(|(row, out)| {
        let (ph, pd, batch) = (row % h, row / h % d, row / h / d);
        let (Some(z), Some(r)) = (source(pd, 0, problem), source(ph, 1, problem)) else { return };
        let line = &x[batch * image + (z * image_h + r) * image_w * c..][..image_w * c];
        for (p, out) in out.chunks_exact_mut(c).enumerate() {
            if let Some(q) = source(p, 2, problem) {
                out.copy_from_slice(&line[q * c..][..c]);
            }
        }
    });
    y
}

pub(super) fn select(x: &[f32], indices: &[u32], image: usize) -> Vec<f32> {
    let mut y = vec![0.0; indices.len() * image];
    y.par_chunks_mut(image).zip(indices).for_each(|(y, &i)| y.copy_from_slice(&x[i as usize * image..][..image]));
    y
}

/// How sums are stored. They are added in f32 and rounded once for each tile.
pub(super) trait Stored: Copy + Default + Send + Sync {
    /// Calls `f` with the values of a row, in `buffer` where they are stored otherwise.
    fn read(row: &[Self], buffer: &mut Vec<f32>, f: impl FnOnce(&[f32]));
    /// Calls `f` with the values of a row, and stores what it leaves.
    fn update(row: &mut [Self], buffer: &mut Vec<f32>, f: impl FnOnce(&mut [f32]));
}

impl Stored for f32 {
    fn read(row: &[Self], _: &mut Vec<f32>, f: impl FnOnce(&[f32])) {
        f(row);
    }

    fn update(row: &mut [Self], _: &mut Vec<f32>, f: impl FnOnce(&mut [f32])) {
        f(row);
    }
}

impl Stored for f16 {
    fn read(row: &[Self], buffer: &mut Vec<f32>, f: impl FnOnce(&[f32])) {
        buffer.resize(row.len(), 0.0);
        row.convert_to_f32_slice(buffer);
        f(buffer);
    }

    fn update(row: &mut [Self], buffer: &mut Vec<f32>, f: impl FnOnce(&mut [f32])) {
        buffer.resize(row.len(), 0.0);
        row.convert_to_f32_slice(buffer);
        f(buffer);
        row.convert_from_f32_slice(buffer);
    }
}

pub(super) fn accumulate<S: Stored>(
    tile: &[f32],
    weight: &[f32],
    sum: &mut [S],
    total: &mut [f32],
    problem: &TileProblem,
) {
    let ([d, h, w], [_, image_h, image_w], c) = (problem.tile, problem.image, problem.channels);
    let ([start_d, start_h, start_w], mirrored) = (problem.placement.start, problem.placement.mirrored);
    let flip = |p: usize, axis: usize| if mirrored[axis] { problem.tile[axis] - 1 - p } else { p };
    let inside = |at: isize, size: usize| usize::try_from(at).ok().filter(|&p| p < size);
    let slice = image_h * image_w;
    sum.par_chunks_mut(slice * c).zip(total.par_chunks_mut(slice)).enumerate().for_each(|(z, (sum, total))| {
        let Some(pd) = inside(z as isize - start_d, d) else { return };
        // The positions of a row of the tile that lie inside.
        let first = (-start_w).clamp(0, w as isize) as usize;
        let end = (image_w as isize - start_w).clamp(first as isize, w as isize) as usize;
        if first == end {
            return;
        }
        let mut buffer = Vec::new();
        for r in 0..image_h {
            let Some(ph) = inside(r as isize - start_h, h) else { continue };
            let weights = &weight[(pd * h + ph) * w..][..w];
            let line = &tile[(flip(pd, 0) * h + flip(ph, 1)) * w * c..][..w * c];
            let to = r * image_w + (start_w + first as isize) as usize;
            let stored = &mut sum[to * c..][..(end - first) * c];
            S::update(stored, &mut buffer, |sums| {
                for (i, sums) in sums.chunks_exact_mut(c).enumerate() {
                    let share = weights[first + i];
                    total[to + i] += share;
                    for (sum, &logit) in sums.iter_mut().zip(&line[flip(first + i, 2) * c..][..c]) {
                        *sum += share * logit;
                    }
                }
            });
        }
    });
}

pub(super) fn mean<S: Stored>(sum: &[S], total: &[f32], channels: usize) -> Vec<f32> {
    let mut y = vec![0.0; sum.len()];
    // Blocks of voxels, so that stored sums are converted many at a time.
    let block = MEANS * channels;
    let blocks = y.par_chunks_mut(block).zip(sum.par_chunks(block)).zip(total.par_chunks(MEANS));
    blocks.for_each_init(Vec::new, |buffer, ((y, sum), total)| {
        S::read(sum, buffer, |sums| {
            for ((y, sum), &total) in y.chunks_exact_mut(channels).zip(sums.chunks_exact(channels)).zip(total) {
                if total > 0.0 {
                    y.iter_mut().zip(sum).for_each(|(y, sum)| *y = sum / total);
                }
            }
        });
    });
    y
}

fn between(a: f32, b: f32, t: f32) -> f32 {
    a * (1.0 - t) + b * t
}

/// The row of input columns that output row (z, y) reads, already between its four neighbours: [`input_w`, c].
fn blended_row(x: &[f32], z: usize, y: usize, axes: [&AxisTaps; 3], problem: &ResampleLogitsProblem) -> Vec<f32> {
    let [_, h, w] = problem.input;
    let row = w * problem.channels;
    let at = |z: u32, y: u32| &x[(z as usize * h + y as usize) * row..][..row];
    let [along_z, along_y, _] = axes;
    let (z0, z1, tz) = (along_z.low()[z], along_z.high()[z], along_z.fraction()[z]);
    let (y0, y1, ty) = (along_y.low()[y], along_y.high()[y], along_y.fraction()[y]);
    let near = at(z0, y0).iter().zip(at(z1, y0));
    let far = at(z0, y1).iter().zip(at(z1, y1));
    near.zip(far).map(|((a, b), (c, d))| between(between(*a, *b, tz), between(*c, *d, tz), ty)).collect()
}

/// Calls `f(column, logits)` for each voxel of output row `row` (z, y flattened).
fn for_each_voxel(
    x: &[f32],
    row: usize,
    axes: [&AxisTaps; 3],
    problem: &ResampleLogitsProblem,
    mut f: impl FnMut(usize, &[f32]),
) {
    let ([_, h, w], c) = (problem.output, problem.channels);
    let blended = blended_row(x, row / h, row % h, axes, problem);
    let along_x = axes[2];
    let mut logits = vec![0.0; c];
    for column in 0..w {
        let low = &blended[along_x.low()[column] as usize * c..][..c];
        let high = &blended[along_x.high()[column] as usize * c..][..c];
        let t = along_x.fraction()[column];
        for (logit, (&a, &b)) in logits.iter_mut().zip(low.iter().zip(high)) {
            *logit = between(a, b, t);
        }
        f(column, &logits);
    }
}

pub(super) fn labels(x: &[f32], axes: [&AxisTaps; 3], problem: &ResampleLogitsProblem) -> Vec<u8> {
    let [d, h, w] = problem.output;
    let mut y = vec![0; d * h * w];
    y.par_chunks_mut(w).enumerate().for_each(|(row, out)| {
        for_each_voxel(x, row, axes, problem, |column, logits| {
            let (mut best, mut label) = (f32::MIN, NO_LABEL);
            for (channel, &value) in logits.iter().enumerate() {
                if value > best {
                    (best, label) = (value, channel as u8);
                }
            }
            out[column] = if logits.iter().all(|logit| logit.is_finite()) { label } else { NO_LABEL };
        });
    });
    y
}

pub(super) fn probabilities(x: &[f32], axes: [&AxisTaps; 3], problem: &ResampleLogitsProblem) -> Vec<f32> {
    let ([d, h, w], c) = (problem.output, problem.channels);
    let mut y = vec![0.0; d * h * w * c];
    y.par_chunks_mut(w * c).enumerate().for_each(|(row, out)| {
        for_each_voxel(x, row, axes, problem, |column, logits| {
            let largest = logits.iter().copied().fold(f32::MIN, f32::max);
            let out = &mut out[column * c..][..c];
            for (share, &logit) in out.iter_mut().zip(logits) {
                *share = (logit - largest).exp();
            }
            let total: f32 = out.iter().sum();
            out.iter_mut().for_each(|share| *share /= total);
        });
    });
    y
}

/// The value of the last region whose logit is above 0.
pub(super) fn regions(x: &[f32], axes: [&AxisTaps; 3], values: &[u8], problem: &ResampleLogitsProblem) -> Vec<u8> {
    let [d, h, w] = problem.output;
    let mut y = vec![0; d * h * w];
    y.par_chunks_mut(w).enumerate().for_each(|(row, out)| {
        for_each_voxel(x, row, axes, problem, |column, logits| {
            let above = logits.iter().zip(values).rfind(|(logit, _)| **logit > 0.0);
            let label = above.map_or(0, |(_, value)| *value);
            out[column] = if logits.iter().all(|logit| logit.is_finite()) { label } else { NO_LABEL };
        });
    });
    y
}

pub(super) fn sigmoids(x: &[f32], axes: [&AxisTaps; 3], problem: &ResampleLogitsProblem) -> Vec<f32> {
    let ([d, h, w], c) = (problem.output, problem.channels);
    let mut y = vec![0.0; d * h * w * c];
    y.par_chunks_mut(w * c).enumerate().for_each(|(row, out)| {
        for_each_voxel(x, row, axes, problem, |column, logits| {
            for (y, logit) in out[column * c..][..c].iter_mut().zip(logits) {
                *y = 1.0 / (1.0 + (-logit).exp());
            }
        });
    });
    y
}
