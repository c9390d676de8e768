//! Interpolation of images on the CPU, parallel over the rows of the output.

use rayon::prelude::*;

use super::{PaddingMode, SampleMode, spatial};
use crate::tensor::Shape;

/// One image [d, h, w, c] of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a, T> {
    pub data: &'a [T],
    pub size: [usize; 3],
    pub channels: usize,
}

/// A position on one axis: the voxel at or below it, and the distance from that voxel, in [0, 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub low: isize,
    pub fraction: f32,
}

impl<T: Copy> Image<'_, T> {
    /// The channels of a voxel; None outside the image.
    pub(crate) fn voxel(&self, at: [isize; 3]) -> Option<&[T]> {
        let [d, h, w] = self.size;
        // A negative number is larger than every size once it is unsigned.
        let [z, y, x] = at.map(|i| i as usize);
        if z >= d || y >= h || x >= w {
            return None;
        }
        let first = ((z * h + y) * w + x) * self.channels;
        self.data.get(first..first + self.channels)
    }

    /// Blends the eight corners of a cell by their weights; corners outside the image have weight 0.
    pub(crate) fn trilinear(&self, cell: [Cell; 3], out: &mut [f32])
    where
        T: Into<f32>,
    {
        let (channels, [z, y, x]) = (self.channels, cell);
        let weights = |cell: Cell| [1.0 - cell.fraction, cell.fraction];
        let (wz, wy, wx) = (weights(z), weights(y), weights(x));
        if (0..3).all(|axis| cell[axis].low >= 0 && cell[axis].low + 1 < self.size[axis] as isize) {
            let (row, plane) = (self.size[2] * channels, self.size[1] * self.size[2] * channels);
            let first = z.low as usize * plane + y.low as usize * row + x.low as usize * channels;
            let sides = [wz[0] * wy[0], wz[0] * wy[1], wz[1] * wy[0], wz[1] * wy[1]];
            for (channel, out) in out.iter_mut().enumerate() {
                let corners = &self.data[first + channel..first + channel + plane + row + channels + 1];
                let pair = |i: usize| wx[0] * corners[i].into() + wx[1] * corners[i + channels].into();
                *out =
                    sides[0] * pair(0) + sides[1] * pair(row) + sides[2] * pair(plane) + sides[3] * pair(plane + row);
            }
            return;
        }
        out.fill(0.0);
        for (dz, wz) in (0..).zip(wz) {
            for (dy, wy) in (0..).zip(wy) {
                for (dx, wx) in (0..).zip(wx) {
                    if let Some(corner) = self.voxel([z.low + dz, y.low + dy, x.low + dx]) {
                        let weight = wz * wy * wx;
                        out.iter_mut().zip(corner).for_each(|(out, &v)| *out += weight * v.into());
                    }
                }
            }
        }
    }
}

/// Clamped into the image (border), or to where every corner is outside it (zeros). NaN becomes the low end: voxel 0
/// for border, outside for zeros.
fn limit(c: f32, size: usize, padding: PaddingMode) -> f32 {
    let (low, high) = match padding {
        PaddingMode::Zeros => (-2.0, size as f32 + 1.0),
        PaddingMode::Border => (0.0, size as f32 - 1.0),
    };
    // Not `clamp`, which keeps NaN.
    let c = if c > low { c } else { low };
    if c < high { c } else { high }
}

/// Splits a bounded coordinate. `floor` is a call where the target lacks SSE 4.1; casts are instructions everywhere.
fn cell(c: f32) -> Cell {
    let whole = c as i32;
    let low = whole - i32::from(whole as f32 > c);
    Cell { low: low as isize, fraction: c - low as f32 }
}

/// Converts a coordinate of grid_sample, in [-1, 1], to voxels.
pub(crate) fn unnormalise(g: f32, size: usize, align_corners: bool) -> f32 {
    let s = size as f32;
    if align_corners { (g + 1.0) / 2.0 * (s - 1.0) } else { ((g + 1.0) * s - 1.0) / 2.0 }
}

/// affine_grid's base coordinate of voxel `i`, the inverse of [`unnormalise`]; 0 on an axis of one voxel.
pub(crate) fn normalised(i: usize, size: usize, align_corners: bool) -> f32 {
    // Both are whole numbers, so the division is the only rounding.
    let (numerator, s) = ((2 * i) as f32 - (size as f32 - 1.0), size as f32);
    numerator / if align_corners { (s - 1.0).max(1.0) } else { s }
}

/// The output [n, size, c] whose voxel (z, y, x) of image n is the input at `locate(n, [z, y, x])`, in voxels.
pub(crate) fn sample_floats(
    x: &[f32],
    input: Shape,
    output: Shape,
    mode: SampleMode,
    padding: PaddingMode,
    locate: impl Fn(usize, [usize; 3]) -> [f32; 3] + Sync,
) -> Vec<f32> {
    for_each_voxel(x, input, output, |image, n, at, out| {
        let point = locate(n, at);
        let c: [f32; 3] = std::array::from_fn(|axis| limit(point[axis], image.size[axis], padding));
        match mode {
            SampleMode::Linear => image.trilinear(c.map(cell), out),
            SampleMode::Nearest => copy_nearest(image, c, out),
        }
    })
}

/// As [`sample_floats`] for labels: the nearest voxel.
pub(crate) fn sample_labels(
    x: &[u8],
    input: Shape,
    output: Shape,
    padding: PaddingMode,
    locate: impl Fn(usize, [usize; 3]) -> [f32; 3] + Sync,
) -> Vec<u8> {
    for_each_voxel(x, input, output, |image, n, at, out| {
        let point = locate(n, at);
        copy_nearest(image, std::array::from_fn(|axis| limit(point[axis], image.size[axis], padding)), out);
    })
}

/// The nearest voxel, halves to even, or zeros outside.
fn copy_nearest<T: Copy + Default>(image: &Image<'_, T>, c: [f32; 3], out: &mut [T]) {
    match image.voxel(c.map(|c| c.round_ties_even() as isize)) {
        Some(voxel) => out.copy_from_slice(voxel),
        None => out.fill(T::default()),
    }
}

/// Fills the output [n, d, h, w, c] voxel by voxel: `fill(image n, n, [z, y, x], channels)`.
pub(crate) fn for_each_voxel<T: Copy + Sync, U: Copy + Default + Send>(
    x: &[T],
    input: Shape,
    output: Shape,
    fill: impl Fn(&Image<'_, T>, usize, [usize; 3], &mut [U]) + Sync,
) -> Vec<U> {
    let (channels, size) = (input[1], spatial(input));
    let [d, h, w] = spatial(output);
    let mut y = vec![U::default(); output.iter().product()];
    let image_len = size.iter().product::<usize>() * channels;
    if y.is_empty() {
        return y;
    }
    y.par_chunks_mut(w * channels).enumerate().for_each(|(row, out)| {
        let (n, z, y) = (row / (d * h), row / h % d, row % h);
        let image = Image { data: &x[n * image_len..(n + 1) * image_len], size, channels };
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            fill(&image, n, [z, y, x], out);
        }
    });
    y
}
