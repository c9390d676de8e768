//! Warping on the CPU.

use super::AffineWarpProblem;
use crate::ops::grid_sample::PaddingMode;
use crate::ops::grid_sample::SampleMode::Linear;
use crate::ops::grid_sample::cpu::apply;
use crate::ops::sampling::cpu::{sample_floats, sample_labels, unnormalise};
use crate::ops::sampling::spatial;
use crate::tensor::Shape;

/// `flow` is [n, d, h, w, 3] voxels, (z, y, x).
pub(super) fn warp(x: &[f32], flow: &[f32], shape: Shape, padding: PaddingMode) -> Vec<f32> {
    let [d, h, w] = spatial(shape);
    sample_floats(x, shape, shape, Linear, padding, |n, at| {
        let [z, y, x] = at;
        let u = &flow[3 * (((n * d + z) * h + y) * w + x)..][..3];
        std::array::from_fn(|axis| at[axis] as f32 + u[axis])
    })
}

/// `theta` is [n, 3, 4].
pub(super) fn affine_warp(x: &[f32], theta: &[f32], problem: &AffineWarpProblem) -> Vec<f32> {
    let AffineWarpProblem { input, mode, padding, .. } = *problem;
    sample_floats(x, input, problem.output_shape(), mode, padding, |n, at| source_of(theta, n, at, problem))
}

/// As [`affine_warp`], for labels: the nearest voxel.
pub(super) fn affine_warp_labels(x: &[u8], theta: &[f32], problem: &AffineWarpProblem) -> Vec<u8> {
    let AffineWarpProblem { input, padding, .. } = *problem;
    sample_labels(x, input, problem.output_shape(), padding, |n, at| source_of(theta, n, at, problem))
}

/// The position in the image, in voxels (z, y, x), that a voxel of the result reads.
fn source_of(theta: &[f32], n: usize, at: [usize; 3], problem: &AffineWarpProblem) -> [f32; 3] {
    let AffineWarpProblem { input, size, align_corners, .. } = *problem;
    let [d, h, w] = spatial(input);
    let [x, y, z] = apply(&theta[12 * n..], at, size, align_corners);
    [(z, d), (y, h), (x, w)].map(|(g, s)| unnormalise(g, s, align_corners))
}
