//! A mask onto the network's grid, by nnU-Net's resampling of segmentations.
//!
//! Each label's indicator is resampled linearly, and a voxel gets the label of the largest value; the nearest voxel's label where
//! it shares the largest value, else the lowest of those that do. All of it is f64 in SciPy's order of operations, because halves
//! are common and decide. Source: batchgenerators 0.25.5, `resize_segmentation` (versions before compare with 0.5 instead,
//! which differs where labels tie or three of them meet), and SciPy's `zoom` with grid_mode.

use rayon::prelude::*;

use super::strided_view::StridedView;
use crate::ensure_room;
use crate::error::Result;
use crate::models::{Order, Resampling};

/// Labels of `shape` on a grid of `size`; `separate` is the axis that is resampled by the nearest slice, after its slices were
/// resampled in their plane.
///
/// # Errors
/// A size for which there is no memory.
pub(super) fn resample_labels(
    labels: Vec<i16>,
    shape: [usize; 3],
    size: [usize; 3],
    how: &Resampling,
    separate: Option<usize>,
) -> Result<Vec<i16>> {
    if shape == size {
        return Ok(labels);
    }
    ensure_room::<i16>("the resampled mask of the previous stage", size.iter().product())?;
    let axes: [Axis; 3] = std::array::from_fn(|a| {
        // The nearest slice, on its own, is what the two taps of the axis would be with all of the weight on it.
        let nearest = how.order == Order::Nearest || separate == Some(a);
        Axis::new(shape[a], size[a], nearest)
    });
    let source = StridedView::whole(shape);
    let row = |z: usize, y: usize| (z * source.shape[1] + y) * source.shape[2];
    let mut out = vec![0; size.iter().product()];
    let [along_z, along_y, along_x] = &axes;
    out.par_chunks_mut(size[2].max(1)).enumerate().for_each(|(line, out)| {
        let (z, y) = (&along_z.taps[line / size[1]], &along_y.taps[line % size[1]]);
        let rows = z.at.map(|z| y.at.map(|y| row(z, y)));
        let nearest_row = row(z.nearest, y.nearest);
        for (x, out) in along_x.taps.iter().zip(out) {
            let mut votes = Votes::default();
            for (rows, wz) in rows.iter().zip(z.weights) {
                for (row, wy) in rows.iter().zip(y.weights) {
                    for (x, wx) in x.at.iter().zip(x.weights) {
                        votes.add(labels[row + x], wz * wy * wx);
                    }
                }
            }
            *out = votes.winner(labels[nearest_row + x.nearest]);
        }
    });
    Ok(out)
}

/// Where an axis is sampled.
struct Axis {
    taps: Vec<Tap>,
}

/// Two neighbours with their weights, and the nearer one.
struct Tap {
    at: [usize; 2],
    weights: [f64; 2],
    nearest: usize,
}

impl Axis {
    /// Output i lies at (i + 0.5) * input / output - 0.5, clamped to the input.
    fn new(input: usize, output: usize, nearest: bool) -> Self {
        let zoom = input as f64 / output as f64;
        let last = input.saturating_sub(1);
        let tap = |i: usize| {
            let place = ((i as f64 + 0.5) * zoom - 0.5).clamp(0.0, last as f64);
            let low = place.floor();
            let (first, closest) = (low as usize, ((place + 0.5).floor() as usize).min(last));
            let share = place - low;
            if nearest {
                Tap { at: [closest; 2], weights: [1.0, 0.0], nearest: closest }
            } else {
                Tap { at: [first, (first + 1).min(last)], weights: [1.0 - share, share], nearest: closest }
            }
        };
        Self { taps: (0..output).map(tap).collect() }
    }
}

/// The sum of each label's weights, of at most eight labels.
#[derive(Default)]
struct Votes {
    labels: [i16; 8],
    sums: [f64; 8],
    count: usize,
}

impl Votes {
    fn add(&mut self, label: i16, weight: f64) {
        match self.labels[..self.count].iter().position(|known| *known == label) {
            Some(at) => self.sums[at] += weight,
            None => {
                (self.labels[self.count], self.sums[self.count]) = (label, weight);
                self.count += 1;
            }
        }
    }

    fn winner(&self, nearest: i16) -> i16 {
        if self.count == 1 {
            return self.labels[0];
        }
        let found = || self.labels[..self.count].iter().zip(&self.sums);
        let most = found().map(|(_, sum)| *sum).fold(0.0, f64::max);
        let tied = || found().filter(|(_, sum)| **sum == most).map(|(label, _)| *label);
        if tied().any(|label| label == nearest) { nearest } else { tied().min().unwrap_or(nearest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cube(labels: &[i16], size: [usize; 3], separate: Option<usize>) -> Vec<i16> {
        let how = Resampling::of_order(Order::Linear);
        resample_labels(labels.to_vec(), [2; 3], size, &how, separate).expect("labels")
    }

    fn along_x(labels: &[i16], size: usize, order: Order) -> Vec<i16> {
        let how = Resampling::of_order(order);
        resample_labels(labels.to_vec(), [1, 1, labels.len()], [1, 1, size], &how, None).expect("labels")
    }

    #[test]
    fn a_tie_goes_to_the_nearest_voxel() {
        // Halfway between voxels 0 and 1, and 2 and 3; a half rounds up to the later one.
        assert_eq!(along_x(&[0, 1, 2, 0], 2, Order::Linear), [1, 0]);
        assert_eq!(along_x(&[0, 1, 2, 0], 2, Order::Nearest), [1, 0]);
        assert_eq!(along_x(&[0, 2, 2], 6, Order::Linear), [0, 0, 2, 2, 2, 2]);
        assert_eq!(along_x(&[1, 3], 5, Order::Linear), [1, 1, 3, 3, 3]);
    }

    /// A 2x2x2 block sampled at its centre: 1 and 2 have 3/8 each, and the nearest voxel's 3 has lost, so the lowest stands.
    #[test]
    fn the_lowest_label_stands_where_the_nearest_has_lost() {
        let block = [3, 1, 1, 1, 2, 2, 2, 3];
        assert_eq!(cube(&block, [1; 3], None), [1]);
        assert_eq!(cube(&block, [2; 3], None), block);
        // Slice 1 is the nearer one of two; 2 has three quarters of it.
        assert_eq!(cube(&block, [1; 3], Some(0)), [2]);
    }
}
