//! Pooling on the CPU: rayon over rows of outputs, vectors over channels.

use std::ops::Range;

use rayon::prelude::*;

use super::PoolProblem;
use crate::memory::Buffer;

pub(super) fn max_pool(x: &[f32], problem: &PoolProblem) -> Buffer {
    // A NaN is not less than or equal to the maximum so far, so it replaces it, and nothing replaces a NaN.
    let larger = |best: f32, value: f32| if best >= value || best.is_nan() { best } else { value };
    pool(x, problem, f32::NEG_INFINITY, larger, |best| best)
}

pub(super) fn avg_pool(x: &[f32], problem: &PoolProblem) -> Buffer {
    let volume = problem.volume();
    pool(x, problem, 0.0, |sum, value| sum + value, |sum| sum / volume)
}

/// Folds each window with `step` from `start` and passes the result to `finish`.
fn pool(
    x: &[f32],
    problem: &PoolProblem,
    start: f32,
    step: impl Fn(f32, f32) -> f32 + Sync,
    finish: impl Fn(f32) -> f32 + Sync,
) -> Buffer {
    let ([_, c, d, h, w], [n, _, out_d, out_h, out_w]) = (problem.input, problem.output);
    let mut y = Buffer::unwritten(n * c * out_d * out_h * out_w);
    y.par_chunks_mut((out_w * c).max(1)).enumerate().for_each(|(row, y)| {
        let (oh, od, image) = (row % out_h, row / out_h % out_d, row / out_h / out_d);
        y.fill(start);
        for (ow, y) in y.chunks_exact_mut(c).enumerate() {
            for z in window(problem, 0, od, d) {
                for v in window(problem, 1, oh, h) {
                    for u in window(problem, 2, ow, w) {
                        let voxel = ((image * d + z) * h + v) * w + u;
                        for (y, &x) in y.iter_mut().zip(&x[voxel * c..(voxel + 1) * c]) {
                            *y = step(*y, x);
                        }
                    }
                }
            }
            for y in y {
                *y = finish(*y);
            }
        }
    });
    y
}

/// The inputs of output `o` along an axis, without padding.
pub(super) fn window(problem: &PoolProblem, axis: usize, o: usize, size: usize) -> Range<usize> {
    let padding = problem.params.padding[axis];
    let start = o * problem.params.stride[axis];
    start.saturating_sub(padding)..(start + problem.params.kernel[axis] - padding).min(size)
}
