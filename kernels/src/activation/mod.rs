//! Element-wise activations: one unit an element.

use cubecl::prelude::*;

/// y = x for x > 0, slope * x otherwise; the ReLU for a slope of 0, of minus infinity too.
#[cube(launch_unchecked)]
pub fn leaky_relu<F: Float>(x: &Array<F>, y: &mut Array<F>, slope: f32) {
    if ABSOLUTE_POS < y.len() {
        let v = f32::cast_from(x[ABSOLUTE_POS]);
        let below = select(slope == 0.0, select(v < 0.0, 0.0, v), v * slope);
        y[ABSOLUTE_POS] = F::cast_from(select(v > 0.0, v, below));
    }
}

/// y = max(x, 0); NaN stays.
#[cube(launch_unchecked)]
pub fn relu<F: Float>(x: &Array<F>, y: &mut Array<F>) {
    if ABSOLUTE_POS < y.len() {
        let v = f32::cast_from(x[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = F::cast_from(select(v < 0.0, 0.0, v));
    }
}

/// dx = dy where x > 0, slope * dy otherwise.
#[cube(launch_unchecked)]
pub fn leaky_relu_backward<F: Float>(x: &Array<F>, dy: &Array<F>, dx: &mut Array<F>, slope: f32) {
    if ABSOLUTE_POS < dx.len() {
        let gradient = f32::cast_from(dy[ABSOLUTE_POS]);
        dx[ABSOLUTE_POS] = F::cast_from(select(f32::cast_from(x[ABSOLUTE_POS]) > 0.0, gradient, gradient * slope));
    }
}
