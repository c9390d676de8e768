//! Gradients of fully connected layers: one unit an element, which adds its products in order. Neighbouring units read neighbouring
//! inputs of a row.

use cubecl::prelude::*;

/// dx [n, inputs] = dy [n, outputs] * w [outputs, inputs].
#[cube(launch_unchecked)]
pub fn linear_backward_input<F: Float>(w: &Array<F>, dy: &Array<F>, dx: &mut Array<F>, inputs: usize, outputs: usize) {
    if ABSOLUTE_POS < dx.len() {
        let input = ABSOLUTE_POS % inputs;
        let row = ABSOLUTE_POS / inputs * outputs;
        let mut sum = 0.0f32;
        for output in 0..outputs {
            sum += f32::cast_from(dy[row + output]) * f32::cast_from(w[output * inputs + input]);
        }
        dx[ABSOLUTE_POS] = F::cast_from(sum);
    }
}

/// dw [outputs, inputs] = dy [rows, outputs] transposed * x [rows, inputs].
#[cube(launch_unchecked)]
pub fn linear_backward_weight<F: Float>(
    x: &Array<F>,
    dy: &Array<F>,
    dw: &mut Array<F>,
    rows: usize,
    inputs: usize,
    outputs: usize,
) {
    if ABSOLUTE_POS < dw.len() {
        let input = ABSOLUTE_POS % inputs;
        let output = ABSOLUTE_POS / inputs;
        let mut sum = 0.0f32;
        for row in 0..rows {
            sum += f32::cast_from(dy[row * outputs + output]) * f32::cast_from(x[row * inputs + input]);
        }
        dw[ABSOLUTE_POS] = F::cast_from(sum);
    }
}

/// db [outputs] = the sum of dy [rows, outputs] over rows.
#[cube(launch_unchecked)]
pub fn linear_backward_bias<F: Float>(dy: &Array<F>, db: &mut Array<f32>, rows: usize) {
    if ABSOLUTE_POS < db.len() {
        let mut sum = 0.0f32;
        for row in 0..rows {
            sum += f32::cast_from(dy[row * db.len() + ABSOLUTE_POS]);
        }
        db[ABSOLUTE_POS] = sum;
    }
}
