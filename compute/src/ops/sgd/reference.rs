//! Gradient descent in f64, as PyTorch's documentation of `SGD` writes it.

/// A result and, element by element, the sum of its absolute terms.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The result.
    pub value: Vec<f64>,
    /// What bounds its rounding.
    pub magnitude: Vec<f64>,
}

/// New weights and momentum buffer; `rates` are the learning rate, the momentum and the weight decay.
pub fn sgd_step(w: &[f64], gradient: &[f64], buffer: &[f64], rates: [f64; 3], nesterov: bool) -> [Terms; 2] {
    let [lr, momentum, decay] = rates;
    let (mut weights, mut moved) = (Terms::default(), Terms::default());
    for ((w, g), b) in w.iter().zip(gradient).zip(buffer) {
        let (g, g_size) = (g + decay * w, g.abs() + decay * w.abs());
        let (b, b_size) = (momentum * b + g, momentum * b.abs() + g_size);
        let (step, size) = if nesterov { (g + momentum * b, g_size + momentum * b_size) } else { (b, b_size) };
        weights.value.push(w - lr * step);
        weights.magnitude.push(w.abs() + lr * size);
        moved.value.push(b);
        moved.magnitude.push(b_size);
    }
    [weights, moved]
}
