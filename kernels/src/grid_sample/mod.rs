//! Sampling at the points of a grid, and affine grids: one unit an element of the output.

use cubecl::prelude::*;

use crate::common::coordinates::{Extent, Padding, normalised, unnormalise};
use crate::common::interpolation::{Floats, Mode, sample};

/// y[n, point, c] = x[n, grid[n, point], c]. The grid is [n, points, 3] with the last axis (x, y, z).
#[cube(launch_unchecked)]
pub fn grid_sample<F: Float>(
    x: &Array<F>,
    grid: &Array<f32>,
    y: &mut Array<F>,
    size: Extent,
    channels: u32,
    points: u32,
    #[comptime] mode: Mode,
    #[comptime] padding: Padding,
    #[comptime] align_corners: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let channels = channels as usize;
        let point = ABSOLUTE_POS / channels;
        let voxels = size.d as usize * size.h as usize * size.w as usize;
        let first = point / points as usize * voxels * channels + ABSOLUTE_POS % channels;
        let cx = unnormalise(grid[3 * point], size.w, align_corners);
        let cy = unnormalise(grid[3 * point + 1], size.h, align_corners);
        let cz = unnormalise(grid[3 * point + 2], size.d, align_corners);
        let value = sample::<Floats<F>>(x, first, channels, size, cz, cy, cx, mode, padding);
        y[ABSOLUTE_POS] = F::cast_from(value);
    }
}

/// grid[n, z, y, x, row] = theta[n, row] . (base x, base y, base z, 1). theta is [n, 3, 4].
#[cube(launch_unchecked)]
pub fn affine_grid(theta: &Array<f32>, grid: &mut Array<f32>, size: Extent, #[comptime] align_corners: bool) {
    if ABSOLUTE_POS < grid.len() {
        let (w, h, d) = (size.w as usize, size.h as usize, size.d as usize);
        let point = ABSOLUTE_POS / 3;
        let row = point / (w * h * d) * 12 + ABSOLUTE_POS % 3 * 4;
        let x = normalised((point % w) as u32, size.w, align_corners);
        let y = normalised((point / w % h) as u32, size.h, align_corners);
        let z = normalised((point / (w * h) % d) as u32, size.d, align_corners);
        grid[ABSOLUTE_POS] = theta[row] * x + theta[row + 1] * y + theta[row + 2] * z + theta[row + 3];
    }
}
