//! What several operations do to each value.

use super::vector::{F32Vector, Simd};

/// The leaky ReLU of every operation on the CPU: x where x > 0, slope * x otherwise, and NaN stays. A slope of 0 is the
/// ReLU: 0 below 0, also for minus infinity, of which a product with 0 would make NaN.
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
        // The same way for all vectors of an array, so the compiler takes the choice out of the loop.
        if self.is_relu { x.not_below_zero() } else { x.if_positive_or(self.slope.mul(x)) }
    }
}

/// The longest row that [`repeat_to_fill_vectors`] makes of a shorter one: it stays in L1, and few rows start.
const MAX_REPEATED: usize = 256;
/// Lanes of the widest vector.
const WIDEST: usize = 16;

/// A value per channel, repeated to a row of whole vectors if one of [`MAX_REPEATED`] values or fewer is that: neighbouring
/// voxels of a channels-last array then share vectors, whatever the number of channels.
pub(in crate::ops) fn repeat_to_fill_vectors(values: &[f32]) -> Vec<f32> {
    let fills = |n: &usize| (n * values.len()).is_multiple_of(WIDEST);
    let repeats = (1..=MAX_REPEATED / values.len().max(1)).rev().find(fills).unwrap_or(1);
    values.repeat(repeats)
}
