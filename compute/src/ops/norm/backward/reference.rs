//! Gradients of norms in f64 on data in PyTorch's order, from the definition. Every result comes with the magnitude that a bound on its
//! rounding is a multiple of, to first order.

/// A gradient and its magnitude, element by element.
#[derive(Debug, Clone, Default)]
pub struct Gradient {
    /// The gradient.
    pub value: Vec<f64>,
    /// What its error is measured against.
    pub magnitude: Vec<f64>,
}

/// The gradients of a norm with an activation.
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    /// By the input.
    pub dx: Gradient,
    /// By the weight.
    pub dweight: Gradient,
    /// By the bias.
    pub dbias: Gradient,
    /// The activation's argument relative to the magnitude of its rounding, element by element: below the relative error of the arithmetic
    /// its sign is unknown.
    pub distance_from_zero: Vec<f64>,
}

/// The parameters of a norm with an activation.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// A factor for each channel.
    pub weight: Option<&'a [f64]>,
    /// A term for each channel.
    pub bias: Option<&'a [f64]>,
    /// Added to the variance.
    pub eps: f64,
    /// Slope of the leaky ReLU; 1 for none.
    pub slope: f64,
}

/// Gradients of sum(dy * leaky_relu(instance_norm(x), slope)).
pub fn instance_norm(x: &[f64], shape: [usize; 5], norm: &Norm<'_>, dy: &[f64]) -> Gradients {
    gradients(x, shape, norm, dy, 1)
}

/// Gradients of sum(dy * leaky_relu(batch_norm(x), slope)) in training.
pub fn batch_norm_train(x: &[f64], shape: [usize; 5], norm: &Norm<'_>, dy: &[f64]) -> Gradients {
    gradients(x, shape, norm, dy, shape[0])
}

/// `images` share statistics.
fn gradients(x: &[f64], shape: [usize; 5], norm: &Norm<'_>, dy: &[f64], images: usize) -> Gradients {
    let [n, channels, d, h, w] = shape;
    let voxels = d * h * w;
    let empty = |len| Gradient { value: vec![0.0; len], magnitude: vec![0.0; len] };
    let mut out = Gradients {
        dx: empty(x.len()),
        dweight: empty(channels),
        dbias: empty(channels),
        distance_from_zero: vec![0.0; x.len()],
    };
    for first in (0..n).step_by(images) {
        for c in 0..channels {
            let at: Vec<usize> = (first..first + images)
                .flat_map(|i| (0..voxels).map(move |v| (i * channels + c) * voxels + v))
                .collect();
            let count = at.len() as f64;
            let mean = at.iter().map(|&i| x[i]).sum::<f64>() / count;
            let scale = at.iter().map(|&i| x[i].abs()).sum::<f64>() / count;
            let sd = (at.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / count + norm.eps).sqrt();
            let (weight, bias) = (norm.weight.map_or(1.0, |w| w[c]), norm.bias.map_or(0.0, |b| b[c]));
            let normalised = |i: usize| (x[i] - mean) / sd;
            // The error of the mean is a multiple of `scale`, that of the sd of sd + `scale`.
            let roughness = |i: usize| (x[i].abs() + scale + (x[i] - mean).abs() * (4.0 + scale / sd)) / sd;
            let passed = |i: usize| {
                let positive = normalised(i) * weight + bias > 0.0;
                if positive { dy[i] } else { norm.slope * dy[i] }
            };
            let total: f64 = at.iter().map(|&i| passed(i)).sum();
            let absolute: f64 = at.iter().map(|&i| passed(i).abs()).sum();
            let product: f64 = at.iter().map(|&i| passed(i) * normalised(i)).sum();
            let product_magnitude: f64 = at.iter().map(|&i| passed(i).abs() * roughness(i)).sum();
            out.dbias.value[c] += total;
            out.dbias.magnitude[c] += absolute;
            out.dweight.value[c] += product;
            out.dweight.magnitude[c] += product_magnitude;
            for &i in &at {
                let argument = normalised(i) * weight + bias;
                out.distance_from_zero[i] = argument.abs() / (weight.abs() * roughness(i) + bias.abs());
                out.dx.value[i] = weight / sd * (passed(i) - total / count - normalised(i) * product / count);
                // The sd divides twice in the last term; its relative error is a multiple of 1 + scale / sd.
                let terms = passed(i).abs() + absolute / count + roughness(i) * product_magnitude / count;
                out.dx.magnitude[i] = (weight / sd).abs() * terms * (4.0 + 2.0 * scale / sd);
            }
        }
    }
    out
}
