//! Element-wise functions that several operations share.

use super::vector::{F32Vector, Simd};

/// The leaky ReLU of every operation on the CPU: x where x > 0, slope * x otherwise, and NaN stays. A slope of 0 is the
/// ReLU: 0 below 0, also for minus infinity, whose product with 0 would be NaN.
#[derive(Clone, Copy)]
pub(in crate::ops) struct LeakyRelu<V> {
    slope: V,
    is_relu: bool,
}

impl<V: F32Vector> LeakyRelu<V> {
    #[inline(always)]
    pub fn new(simd: impl Simd<F32 = V>, slope: f32) -> Self {
        Self { slope: simd.splat(slope), is_relu: slope == 0.0 }
    }

    /// The activation of each lane.
    #[inline(always)]
    pub fn of(&self, x: V) -> V {
        // The choice is the same for all vectors of an array, so the compiler moves it out of the loop.
        if self.is_relu { x.not_below_zero() } else { x.if_positive_or(self.slope.mul(x)) }
    }
}

/// Longest row that [`repeat_to_fill_vectors`] returns: it fits into L1, and the loop over rows has few iterations.
const MAX_REPEATED: usize = 256;
/// Number of lanes of the widest vector.
const WIDEST: usize = 16;

/// One value for each channel, repeated to a row of whole vectors where such a row has at most [`MAX_REPEATED`] values. Neighbouring voxels
/// of a channels-last array then share vectors, whatever the number of channels.
pub(in crate::ops) fn repeat_to_fill_vectors(values: &[f32]) -> Vec<f32> {
    let fills = |n: &usize| (n * values.len()).is_multiple_of(WIDEST);
    let repeats = (1..=MAX_REPEATED / values.len().max(1)).rev().find(fills).unwrap_or(1);
    values.repeat(repeats)
}
