//! The voxels of an axis from which each voxel of a resized axis is computed.

use std::ops::Range;

/// For each index of a resized axis, `COUNT` consecutive voxels and their weights, computed in f64 once for the axis, so that
/// positions are not rounded separately. Taps past the end of a short axis weigh 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Taps<const COUNT: usize> {
    pub first: Vec<u32>,
    pub weights: Vec<[f32; COUNT]>,
}

impl<const COUNT: usize> Taps<COUNT> {
    /// From the first voxel and the weights of each index.
    pub(crate) fn new(entries: impl Iterator<Item = (usize, [f32; COUNT])>) -> Self {
        let (first, weights) = entries.map(|(first, weights)| (first as u32, weights)).unzip();
        Self { first, weights }
    }

    /// Those of some voxels of the resized axis, which must lie on it.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        Self { first: self.first[range.clone()].to_vec(), weights: self.weights[range].to_vec() }
    }

    /// Voxels of the resized axis.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }
}

/// Nearest as PyTorch's: floor(i * input / output), in f32 as there, which decides where the quotient is whole.
pub(crate) fn nearest(input: usize, output: usize) -> Taps<1> {
    let scale = input as f32 / output as f32;
    let last = input.saturating_sub(1);
    Taps::new((0..output).map(|i| (((i as f32 * scale) as usize).min(last), [1.0])))
}

/// Linear: (i + .5) * input / output - .5, not below 0; i * (input - 1) / (output - 1) with aligned corners.
pub(crate) fn linear(input: usize, output: usize, align_corners: bool) -> Taps<2> {
    let last = input as f64 - 1.0;
    Taps::new((0..output).map(|i| {
        let source = match (align_corners, output) {
            (true, 1) => 0.0,
            (true, _) => i as f64 * last / (output as f64 - 1.0),
            (false, _) => centre(i, input, output).max(0.0),
        };
        let source = source.min(last);
        // The last voxel is the end of the last pair, not the start of one that does not exist.
        let low = source.floor().min((last - 1.0).max(0.0));
        let t = source - low;
        (low as usize, [(1.0 - t) as f32, t as f32])
    }))
}

/// The position on the original axis of the centre of voxel `i` of a resized axis, with outer faces aligned.
pub(crate) fn centre(i: usize, input: usize, output: usize) -> f64 {
    (i as f64 + 0.5) * input as f64 / output as f64 - 0.5
}
