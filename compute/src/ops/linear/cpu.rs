//! Fully connected layers on the CPU: one dot product of contiguous rows an output.

use rayon::prelude::*;

use super::LinearProblem;

/// Partial sums of a dot product: independent, so that they vectorise and their order is fixed.
const LANES: usize = 16;
/// Outputs a task.
const CHUNK: usize = 16;

pub(super) fn linear(x: &[f32], w: &[f32], bias: Option<&[f32]>, problem: LinearProblem) -> Vec<f32> {
    let LinearProblem { rows, inputs, outputs } = problem;
    let mut y = vec![0.0; rows * outputs];
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, y)| {
        for (i, y) in y.iter_mut().enumerate() {
            let (row, output) = ((chunk * CHUNK + i) / outputs, (chunk * CHUNK + i) % outputs);
            let sum = dot(&x[row * inputs..][..inputs], &w[output * inputs..][..inputs]);
            *y = bias.map_or(sum, |b| sum + b[output]);
        }
    });
    y
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_blocks, b_blocks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_blocks.remainder().iter().zip(b_blocks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_blocks.zip(b_blocks) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}
