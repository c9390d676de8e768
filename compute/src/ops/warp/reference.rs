//! Warps in f64, point by point, on PyTorch-ordered data.

use crate::ops::grid_sample::reference::{Sampled, affine_grid, sample};
use crate::ops::grid_sample::{PaddingMode, SampleMode};

/// `x` [n, c, d, h, w], `flow` [n, 3, d, h, w] voxels, (z, y, x).
pub fn warp(x: &[f64], shape: [usize; 5], flow: &[f64], padding: PaddingMode) -> Sampled {
    let [_, _, d, h, w] = shape;
    let points = d * h * w;
    sample(x, shape, points, SampleMode::Linear, padding, |n, point| {
        let at = [point / (h * w), point / w % h, point % w];
        std::array::from_fn(|axis| {
            let u = flow[(n * 3 + axis) * points + point];
            (at[axis] as f64 + u, at[axis] as f64 + u.abs())
        })
    })
}

/// `x` [n, c, D, H, W], `theta` [n, 3, 4], `size` [d, h, w].
pub fn affine_warp(
    x: &[f64],
    input: [usize; 5],
    theta: &[f64],
    size: [usize; 3],
    mode: SampleMode,
    padding: PaddingMode,
    align_corners: bool,
) -> Sampled {
    let points: usize = size.iter().product();
    let (grid, terms) = affine_grid(theta, size, align_corners);
    sample(x, input, points, mode, padding, |n, point| {
        std::array::from_fn(|axis| {
            let (i, s) = ((n * points + point) * 3 + 2 - axis, input[2 + axis] as f64);
            let c = if align_corners { (grid[i] + 1.0) / 2.0 * (s - 1.0) } else { ((grid[i] + 1.0) * s - 1.0) / 2.0 };
            (c, (terms[i] + 1.0) * s)
        })
    })
}
