//! Activations in f64, element by element.

/// y = x for x > 0, slope * x otherwise; the ReLU for a slope of 0.
pub fn leaky_relu(x: &[f64], slope: f64) -> Vec<f64> {
    if slope == 0.0 {
        return relu(x);
    }
    x.iter().map(|&x| if x > 0.0 { x } else { slope * x }).collect()
}

/// y = max(x, 0).
pub fn relu(x: &[f64]) -> Vec<f64> {
    x.iter().map(|&x| if x < 0.0 { 0.0 } else { x }).collect()
}

/// dx = dy where x > 0, slope * dy otherwise.
pub fn leaky_relu_backward(x: &[f64], slope: f64, dy: &[f64]) -> Vec<f64> {
    x.iter().zip(dy).map(|(&x, &dy)| if x > 0.0 { dy } else { slope * dy }).collect()
}
