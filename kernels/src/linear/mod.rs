//! Fully connected layers: a cube an output. Its units read the row of weights and the row of inputs together, both
//! contiguous, and add their products as a tree: a fixed order. Meant for the few rows of a classifier's head, where
//! reading the weights is all the work; many rows at once are a 1x1x1 convolution.

mod backward;

pub use backward::{linear_backward_bias, linear_backward_input, linear_backward_weight};

use cubecl::prelude::*;

/// y [n, outputs] = x [n, inputs] * w [outputs, inputs] transposed + bias; outputs run fastest over cubes of `units` units,
/// a power of two. Without a bias its array is not read.
#[cube(launch_unchecked)]
pub fn linear<F: Float>(
    x: &Array<F>,
    w: &Array<F>,
    bias: &Array<f32>,
    y: &mut Array<F>,
    inputs: usize,
    outputs: usize,
    #[comptime] units: usize,
    #[comptime] has_bias: bool,
) {
    let unit = UNIT_POS_X as usize;
    let output = CUBE_POS % outputs;
    // Cubes past the last output read nothing but take part in every barrier.
    let mut end = inputs;
    if CUBE_POS >= y.len() {
        end = 0;
    }
    let input_row = CUBE_POS / outputs * inputs;
    let weight_row = output * inputs;
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < end {
        sum += f32::cast_from(x[input_row + i]) * f32::cast_from(w[weight_row + i]);
        i += units;
    }
    let mut sums = SharedMemory::<f32>::new(units);
    sums[unit] = sum;
    sync_cube();
    let mut half = (units / 2).runtime();
    while half > 0 {
        if unit < half {
            let above = sums[unit + half];
            sums[unit] += above;
        }
        sync_cube();
        half /= 2;
    }
    if unit == 0 && CUBE_POS < y.len() {
        let mut total = sums[0];
        if has_bias {
            total += bias[output];
        }
        y[CUBE_POS] = F::cast_from(total);
    }
}
