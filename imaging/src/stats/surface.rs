//! Distances between the surfaces of two masks.

use rayon::prelude::*;

use super::quantile;

/// Distances between the surfaces of two masks, in the unit of the spacing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceDistances {
    /// The Hausdorff distance at 95 %: the larger of the 95th percentiles of the two directed distances, as in MONAI.
    pub hausdorff_95: f64,
    /// The Hausdorff distance: the largest distance of a surface voxel to the other surface.
    pub hausdorff: f64,
    /// The average symmetric surface distance: the mean over the voxels of both surfaces together.
    pub average: f64,
}

/// The surface distances of two masks of `shape` [d, h, w] with voxels of `spacing` (z, y, x). A voxel of the mask is on its
/// surface when one of its six face neighbours is not in the mask; voxels outside the grid count as not in the mask. None where
/// one of the masks is empty, or has another length than the shape.
pub fn surface_distances(a: &[bool], b: &[bool], shape: [usize; 3], spacing: [f64; 3]) -> Option<SurfaceDistances> {
    let len: usize = shape.iter().product();
    if a.len() != len || b.len() != len {
        return None;
    }
    let (low, high) = bounds(a, b, shape)?;
    let size: [usize; 3] = std::array::from_fn(|k| high[k] - low[k] + 1);
    let surfaces = [a, b].map(|mask| surface(mask, shape, low, size));
    let [to_a, to_b] = [0, 1].map(|i| squared_distances(&surfaces[i], size, spacing));
    let directed = |from: &[bool], to: &[f64]| {
        let mut distances: Vec<f64> = from.iter().zip(to).filter(|(on, _)| **on).map(|(_, d)| d.sqrt()).collect();
        distances.sort_by(f64::total_cmp);
        distances
    };
    let (ab, ba) = (directed(&surfaces[0], &to_b), directed(&surfaces[1], &to_a));
    let (Some(far_ab), Some(far_ba)) = (ab.last(), ba.last()) else { return None };
    Some(SurfaceDistances {
        hausdorff_95: quantile(&ab, 0.95).max(quantile(&ba, 0.95)),
        hausdorff: far_ab.max(*far_ba),
        average: (ab.iter().sum::<f64>() + ba.iter().sum::<f64>()) / (ab.len() + ba.len()) as f64,
    })
    .filter(|d| d.hausdorff.is_finite())
}

/// The box around both masks, which contains their surfaces, as its first and last voxel.
fn bounds(a: &[bool], b: &[bool], [_, h, w]: [usize; 3]) -> Option<([usize; 3], [usize; 3])> {
    let mut bounds: Option<([usize; 3], [usize; 3])> = None;
    for (i, _) in a.iter().zip(b).enumerate().filter(|(_, (a, b))| **a || **b) {
        let at = [i / w / h, i / w % h, i % w];
        let (low, high) = bounds.get_or_insert((at, at));
        (0..3).for_each(|k| (low[k], high[k]) = (low[k].min(at[k]), high[k].max(at[k])));
    }
    bounds
}

/// The surface voxels of a mask inside the box of `size` voxels that begins at `low`.
fn surface(mask: &[bool], shape: [usize; 3], low: [usize; 3], size: [usize; 3]) -> Vec<bool> {
    let [d, h, w] = shape;
    let inside = |z: usize, y: usize, x: usize| z < d && y < h && x < w && mask[(z * h + y) * w + x];
    let mut out = vec![false; size.iter().product()];
    out.par_chunks_mut(size[2]).enumerate().for_each(|(row, out)| {
        let (z, y) = (low[0] + row / size[1], low[1] + row % size[1]);
        for (i, out) in out.iter_mut().enumerate() {
            let x = low[2] + i;
            // An index below 0 wraps around to one that is outside the grid.
            let around = [
                (z.wrapping_sub(1), y, x),
                (z + 1, y, x),
                (z, y.wrapping_sub(1), x),
                (z, y + 1, x),
                (z, y, x.wrapping_sub(1)),
                (z, y, x + 1),
            ];
            *out = inside(z, y, x) && !around.into_iter().all(|(z, y, x)| inside(z, y, x));
        }
    });
    out
}

/// The exact squared distance of every voxel to the nearest marked one, computed along one axis after the other (Felzenszwalb and
/// Huttenlocher 2012). Infinite where no voxel is marked.
fn squared_distances(marked: &[bool], [d, h, w]: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let mut field: Vec<f64> = marked.iter().map(|m| if *m { 0.0 } else { f64::INFINITY }).collect();
    field.par_chunks_mut(w).for_each(|line| envelope(line, spacing[2]));
    // Lines along y stay inside one slice; lines along z are collected into columns first.
    field.par_chunks_mut(h * w).for_each(|plane| {
        for x in 0..w {
            let mut line: Vec<f64> = (0..h).map(|y| plane[y * w + x]).collect();
            envelope(&mut line, spacing[1]);
            line.into_iter().enumerate().for_each(|(y, v)| plane[y * w + x] = v);
        }
    });
    let columns: Vec<Vec<f64>> = (0..h * w)
        .into_par_iter()
        .map(|i| {
            let mut line: Vec<f64> = (0..d).map(|z| field[z * h * w + i]).collect();
            envelope(&mut line, spacing[0]);
            line
        })
        .collect();
    for (i, column) in columns.into_iter().enumerate() {
        column.into_iter().enumerate().for_each(|(z, v)| field[z * h * w + i] = v);
    }
    field
}

/// Replaces line[i] by the minimum over j of line[j] + (step (i - j))^2, the lower envelope of parabolas.
fn envelope(line: &mut [f64], step: f64) {
    let at = |i: usize| i as f64 * step;
    // The parabolas of the envelope, each with the coordinate from which on it is the lowest.
    let mut lowest: Vec<(usize, f64)> = Vec::with_capacity(line.len());
    for (j, value) in line.iter().enumerate().filter(|(_, v)| v.is_finite()) {
        let mut from = f64::NEG_INFINITY;
        while let Some(&(k, start)) = lowest.last() {
            from = ((value + at(j) * at(j)) - (line[k] + at(k) * at(k))) / (2.0 * (at(j) - at(k)));
            if from > start {
                break;
            }
            lowest.pop();
            from = f64::NEG_INFINITY;
        }
        lowest.push((j, from));
    }
    if lowest.is_empty() {
        return;
    }
    let values = line.to_vec();
    let mut current = 0;
    for (i, out) in line.iter_mut().enumerate() {
        while current + 1 < lowest.len() && lowest[current + 1].1 < at(i) {
            current += 1;
        }
        let (j, _) = lowest[current];
        *out = values[j] + (at(i) - at(j)).powi(2);
    }
}
