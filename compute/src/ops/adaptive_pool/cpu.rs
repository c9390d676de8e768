//! Adaptive pooling on the CPU: rayon over rows of outputs, vectors over channels.

use rayon::prelude::*;

use super::AdaptivePoolProblem;
use crate::memory::Buffer;

/// `x` [n, d, h, w, c] -> [n, bins along z, y, x, c].
pub(super) fn adaptive_avg_pool(x: &[f32], problem: &AdaptivePoolProblem) -> Buffer {
    let ([n, c, d, h, w], [out_d, out_h, out_w]) = (problem.input, problem.size);
    let mut y = Buffer::unwritten(n * c * out_d * out_h * out_w);
    if y.is_empty() {
        return y;
    }
    y.par_chunks_mut(out_w * c).enumerate().for_each(|(row, y)| {
        let (image, planes) = (row / out_h / out_d, problem.bin(0, row / out_h % out_d));
        let lines = problem.bin(1, row % out_h);
        y.fill(0.0);
        for (ow, y) in y.chunks_exact_mut(c).enumerate() {
            let columns = problem.bin(2, ow);
            for z in planes.clone() {
                for v in lines.clone() {
                    let line = ((image * d + z) * h + v) * w;
                    let voxels = &x[(line + columns.start) * c..(line + columns.end) * c];
                    for voxel in voxels.chunks_exact(c) {
                        y.iter_mut().zip(voxel).for_each(|(sum, x)| *sum += x);
                    }
                }
            }
            let count = (planes.len() * lines.len() * columns.len()) as f32;
            y.iter_mut().for_each(|sum| *sum /= count);
        }
    });
    y
}
