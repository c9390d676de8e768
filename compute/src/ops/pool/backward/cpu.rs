//! Gradients of pooling on the CPU: rayon over rows of inputs, each of which adds over the windows that contain it in their order.

use std::ops::Range;

use rayon::prelude::*;

use super::super::PoolProblem;
use super::super::cpu::window;
use crate::memory::Buffer;

/// dy of each window at the input that won it.
pub(super) fn max_pool_backward(x: &[f32], dy: &[f32], problem: &PoolProblem) -> Buffer {
    let winners = winners(x, problem);
    gather(problem, |dx, voxel, output| {
        let c = dx.len();
        for ((dx, dy), winner) in dx.iter_mut().zip(&dy[output * c..]).zip(&winners[output * c..]) {
            if *winner == voxel {
                *dx += dy;
            }
        }
    })
}

/// dy of each window, divided by its size, at all of its inputs.
pub(super) fn avg_pool_backward(dy: &[f32], problem: &PoolProblem) -> Buffer {
    let volume = problem.volume();
    let mut dx = gather(problem, |dx, _, output| {
        let c = dx.len();
        for (dx, dy) in dx.iter_mut().zip(&dy[output * c..]) {
            *dx += dy;
        }
    });
    let row = (problem.input[4] * problem.input[1]).max(1);
    dx.par_chunks_mut(row).for_each(|row| row.iter_mut().for_each(|v| *v /= volume));
    dx
}

/// The voxel, counted over all images, of the first maximum (or the last NaN) of each window and channel.
fn winners(x: &[f32], problem: &PoolProblem) -> Vec<usize> {
    let ([_, c, d, h, w], [n, _, out_d, out_h, out_w]) = (problem.input, problem.output);
    let mut winners = vec![0; n * c * out_d * out_h * out_w];
    winners.par_chunks_mut((out_w * c).max(1)).enumerate().for_each(|(row, winners)| {
        let (oh, od, image) = (row % out_h, row / out_h % out_d, row / out_h / out_d);
        let mut best = vec![f32::NEG_INFINITY; c];
        for (ow, winners) in winners.chunks_exact_mut(c.max(1)).enumerate() {
            let mut first = true;
            for z in window(problem, 0, od, d) {
                for v in window(problem, 1, oh, h) {
                    for u in window(problem, 2, ow, w) {
                        let voxel = ((image * d + z) * h + v) * w + u;
                        for ((winner, best), &x) in winners.iter_mut().zip(&mut best).zip(&x[voxel * c..]) {
                            if first || x > *best || x.is_nan() {
                                (*winner, *best) = (voxel, x);
                            }
                        }
                        first = false;
                    }
                }
            }
        }
    });
    winners
}

/// dx from 0, with `add` called for the channels of each voxel (counted over all images) and each output (likewise) whose
/// window contains it, in the order of outputs.
fn gather(problem: &PoolProblem, add: impl Fn(&mut [f32], usize, usize) + Sync) -> Buffer {
    let ([n, c, d, h, w], [_, _, out_d, out_h, out_w]) = (problem.input, problem.output);
    let mut dx = Buffer::unwritten(n * c * d * h * w);
    dx.par_chunks_mut((w * c).max(1)).enumerate().for_each(|(row, dx)| {
        dx.fill(0.0);
        let (y, z, image) = (row % h, row / h % d, row / h / d);
        for (x, dx) in dx.chunks_exact_mut(c.max(1)).enumerate() {
            for od in windows(problem, 0, z) {
                for oh in windows(problem, 1, y) {
                    for ow in windows(problem, 2, x) {
                        add(dx, row * w + x, ((image * out_d + od) * out_h + oh) * out_w + ow);
                    }
                }
            }
        }
    });
    dx
}

/// The outputs whose windows contain input `i` of an axis.
fn windows(problem: &PoolProblem, axis: usize, i: usize) -> Range<usize> {
    let (stride, kernel) = (problem.params.stride[axis], problem.params.kernel[axis]);
    let padded = i + problem.params.padding[axis];
    // The first window that ends behind the input starts at or above padded + 1 - kernel.
    let first = (padded + 1).saturating_sub(kernel).div_ceil(stride);
    first..(padded / stride + 1).min(problem.output[2 + axis])
}
