//! Gating in f64 on data in PyTorch's order.

/// leaky_relu(x * sigmoid(gate) + residual, slope) of x [n, c, d, h, w] with a gate whose last three axes are x's or 1, and the
/// sum of the absolute terms, the exponent's size counted with the first, since the relative error of exp(v) grows with |v|.
pub fn gated_residual(
    x: &[f64],
    shape: [usize; 5],
    gate: &[f64],
    gate_shape: [usize; 5],
    residual: &[f64],
    slope: f64,
) -> (Vec<f64>, Vec<f64>) {
    let element = |index: usize| {
        let (mut rest, mut place, mut step) = (index, 0, 1);
        for axis in (0..5).rev() {
            let along = rest % shape[axis];
            rest /= shape[axis];
            place += if gate_shape[axis] == 1 { 0 } else { along * step };
            step *= gate_shape[axis];
        }
        let v = gate[place];
        let gated = x[index] / (1.0 + (-v).exp());
        let sum = gated + residual[index];
        let y = if sum < 0.0 { sum * slope } else { sum };
        (y, gated.abs() * (1.0 + v.abs()) + residual[index].abs())
    };
    (0..x.len()).map(element).unzip()
}
