//! An activation at the end, or in the middle, of another kernel.

use cubecl::prelude::*;

/// v where it is not below 0, else v * slope: the leaky ReLU; the ReLU for a slope of 0 (of -inf too), v itself for 1. NaN
/// stays.
#[cube]
pub fn leaky(v: f32, slope: f32) -> f32 {
    let below = select(slope == 0.0, 0.0, v * slope);
    select(v < 0.0, below, v)
}
