//! Where a sample lies, in voxels: PyTorch's normalised coordinates, and what a coordinate outside the image becomes.

use cubecl::prelude::*;

/// What lies outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Corners outside weigh 0.
    Zeros,
    /// The coordinate is clamped.
    Border,
}

/// An image's axes (z, y, x), in voxels.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub struct Extent {
    pub d: u32,
    pub h: u32,
    pub w: u32,
}

/// A position on one axis: the voxel at or below it, and how far past that one, in [0, 1).
#[derive(CubeType, Clone, Copy)]
pub struct Cell {
    pub low: i32,
    pub fraction: f32,
}

/// From grid_sample's [-1, 1] to voxels: ends on voxel centres when corners are aligned, else on the outer faces.
#[cube]
pub fn unnormalise(g: f32, size: u32, #[comptime] align_corners: bool) -> f32 {
    let s = f32::cast_from(size);
    let mut c = (g + 1.0) * 0.5 * (s - 1.0);
    if comptime![!align_corners] {
        c = ((g + 1.0) * s - 1.0) * 0.5;
    }
    c
}

/// affine_grid's base coordinate of voxel `i`, the inverse of [`unnormalise`]; 0 on an axis of one voxel.
#[cube]
pub fn normalised(i: u32, size: u32, #[comptime] align_corners: bool) -> f32 {
    let s = f32::cast_from(size);
    let twice = 2.0 * f32::cast_from(i);
    // Numerators are whole numbers, so the division is the only rounding.
    let mut g = (twice - (s - 1.0)) / max(s - 1.0, 1.0);
    if comptime![!align_corners] {
        g = (twice - (s - 1.0)) / s;
    }
    g
}

/// Clamped into the image (border), or to where every corner is outside it (zeros), so that the voxel's number always
/// fits an i32. NaN becomes the low end: 0 for border, outside for zeros.
#[cube]
pub fn limit(c: f32, size: u32, #[comptime] padding: Padding) -> f32 {
    let s = f32::cast_from(size);
    let mut low = f32::cast_from(0);
    let mut high = s - 1.0;
    if comptime![padding == Padding::Zeros] {
        low -= 2.0;
        high += 2.0;
    }
    // Comparisons instead of min and max, which treat NaN differently on each backend.
    let c = select(c > low, c, low);
    select(c < high, c, high)
}

/// Splits a coordinate that [`limit`] has bounded.
#[cube]
pub fn cell(c: f32) -> Cell {
    let low = f32::floor(c);
    Cell { low: i32::cast_from(low), fraction: c - low }
}

/// The voxel nearest to a coordinate that [`limit`] has bounded, halves to even.
#[cube]
pub fn nearest_even(c: f32) -> i32 {
    let low = f32::floor(c);
    let fraction = c - low;
    let odd = low - 2.0 * f32::floor(low * 0.5);
    // One half goes up from odd numbers alone; `round` means something else on each backend.
    let up = select(fraction == 0.5, odd, select(fraction > 0.5, 1.0, 0.0));
    i32::cast_from(low + up)
}
