//! Grid sampling on the CPU.

use rayon::prelude::*;

use super::GridSampleProblem;
use crate::ops::sampling::cpu::{normalised, sample_floats, unnormalise};

pub(super) fn grid_sample(x: &[f32], grid: &[f32], problem: &GridSampleProblem) -> Vec<f32> {
    let GridSampleProblem { input, size: [d, h, w], mode, padding, align_corners } = *problem;
    let [_, _, sd, sh, sw] = input;
    sample_floats(x, input, problem.output_shape(), mode, padding, |n, [z, y, x]| {
        let point = 3 * (((n * d + z) * h + y) * w + x);
        [
            unnormalise(grid[point + 2], sd, align_corners),
            unnormalise(grid[point + 1], sh, align_corners),
            unnormalise(grid[point], sw, align_corners),
        ]
    })
}

/// theta [n, 3, 4] to a grid [n, d, h, w, 3].
pub(super) fn affine_grid(theta: &[f32], size: [usize; 3], align_corners: bool) -> Vec<f32> {
    let [d, h, w] = size;
    let mut grid = vec![0.0; theta.len() / 12 * d * h * w * 3];
    if grid.is_empty() {
        return grid;
    }
    grid.par_chunks_mut(3 * w).enumerate().for_each(|(row, out)| {
        let (theta, z, y) = (&theta[row / (d * h) * 12..], row / h % d, row % h);
        for (x, point) in out.chunks_exact_mut(3).enumerate() {
            point.copy_from_slice(&apply(theta, [z, y, x], size, align_corners));
        }
    });
    grid
}

/// The normalised coordinates (x, y, z) of a voxel under theta (12 values).
pub(crate) fn apply(theta: &[f32], at: [usize; 3], size: [usize; 3], align_corners: bool) -> [f32; 3] {
    let [z, y, x]: [f32; 3] = std::array::from_fn(|axis| normalised(at[axis], size[axis], align_corners));
    std::array::from_fn(|r| theta[4 * r] * x + theta[4 * r + 1] * y + theta[4 * r + 2] * z + theta[4 * r + 3])
}
