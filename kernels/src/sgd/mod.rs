//! A step of stochastic gradient descent: one unit a vector of weights; and the sum of squares by which gradients are clipped.

use cubecl::prelude::*;

use crate::common::cube_sum::{UNITS, cube_sums};

/// The factors of a step.
#[derive(CubeType, CubeLaunch)]
pub struct Rates {
    pub lr: f32,
    pub momentum: f32,
    pub weight_decay: f32,
}

/// With g = gradient + weight_decay * weights: buffer_out = momentum * buffer + g, and weights_out = weights - lr * (buffer_out, or
/// g + momentum * buffer_out if `nesterov`).
#[cube(launch_unchecked)]
pub fn sgd_step<F: Float, N: Size>(
    weights: &Array<Vector<F, N>>,
    gradient: &Array<Vector<F, N>>,
    buffer: &Array<Vector<F, N>>,
    weights_out: &mut Array<Vector<F, N>>,
    buffer_out: &mut Array<Vector<F, N>>,
    rates: Rates,
    #[comptime] nesterov: bool,
) {
    if ABSOLUTE_POS < weights_out.len() {
        let w = Vector::<f32, N>::cast_from(weights[ABSOLUTE_POS]);
        let decay = Vector::<f32, N>::new(rates.weight_decay);
        let momentum = Vector::<f32, N>::new(rates.momentum);
        let g = Vector::<f32, N>::cast_from(gradient[ABSOLUTE_POS]) + w * decay;
        let moved = Vector::<f32, N>::cast_from(buffer[ABSOLUTE_POS]) * momentum + g;
        let mut step = moved;
        if nesterov {
            step = g + moved * momentum;
        }
        buffer_out[ABSOLUTE_POS] = Vector::cast_from(moved);
        weights_out[ABSOLUTE_POS] = Vector::cast_from(w - step * Vector::<f32, N>::new(rates.lr));
    }
}

/// The sum of squares of a part of x for each cube of 256 units: partials [cubes].
#[cube(launch_unchecked)]
pub fn squared_sums<F: Float>(x: &Array<F>, partials: &mut Array<f32>) {
    let mut sums = Array::<f32>::new(1usize);
    sums[0] = 0.0;
    // Uniform over the cube, as the barriers inside need.
    if CUBE_POS < partials.len() {
        let mut i = CUBE_POS * UNITS as usize + UNIT_POS_X as usize;
        while i < x.len() {
            let v = f32::cast_from(x[i]);
            sums[0] += v * v;
            i += partials.len() * UNITS as usize;
        }
        cube_sums(&sums, partials, CUBE_POS, 1usize);
    }
}
