//! Norms in f64 on data in PyTorch's order, from the definition. Every result comes with the magnitude that a bound on
//! its rounding is a multiple of: the sum of its absolute terms, including those that cancel inside mean and variance.

/// A result and its magnitude, element by element.
#[derive(Debug, Clone, Default)]
pub struct Bounded {
    /// The result.
    pub value: Vec<f64>,
    /// What its error is measured against.
    pub magnitude: Vec<f64>,
}

/// Moments of one set of values.
struct Moments {
    mean: f64,
    absolute_mean: f64,
    /// Sum of squared deviations.
    squares: f64,
    absolute_deviations: f64,
    count: f64,
}

fn moments(values: &[f64]) -> Moments {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let absolute_mean = values.iter().map(|v| v.abs()).sum::<f64>() / count;
    let squares = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let absolute_deviations = values.iter().map(|v| (v - mean).abs()).sum();
    Moments { mean, absolute_mean, squares, absolute_deviations, count }
}

/// The values of channel `c` in the images `images` of x [n, c, voxels].
fn channel(x: &[f64], shape: [usize; 5], c: usize, images: std::ops::Range<usize>) -> Vec<f64> {
    let voxels = shape[2] * shape[3] * shape[4];
    images.flat_map(|n| (0..voxels).map(move |v| x[(n * shape[1] + c) * voxels + v])).collect()
}

/// (x - mean) / sd * weight + bias, and its magnitude when mean and sd were computed from data of mean magnitude `scale`:
/// the error of the mean is a multiple of `scale`, that of the sd of sd + `scale`.
fn normalised(x: f64, mean: f64, scale: f64, sd: f64, weight: f64, bias: f64) -> (f64, f64) {
    let value = (x - mean) / sd * weight + bias;
    let steepness = (weight / sd).abs();
    (value, steepness * (x.abs() + scale + (x - mean).abs() * (4.0 + scale / sd)) + bias.abs())
}

/// `torch.nn.functional.instance_norm` without running statistics.
pub fn instance_norm(x: &[f64], shape: [usize; 5], weight: Option<&[f64]>, bias: Option<&[f64]>, eps: f64) -> Bounded {
    let mut out = Bounded::default();
    for n in 0..shape[0] {
        for c in 0..shape[1] {
            let values = channel(x, shape, c, n..n + 1);
            let m = moments(&values);
            let sd = (m.squares / m.count + eps).sqrt();
            let (weight, bias) = (weight.map_or(1.0, |w| w[c]), bias.map_or(0.0, |b| b[c]));
            for v in values {
                let (value, magnitude) = normalised(v, m.mean, m.absolute_mean, sd, weight, bias);
                out.value.push(value);
                out.magnitude.push(magnitude);
            }
        }
    }
    out
}

/// `torch.nn.functional.batch_norm` in inference.
pub fn batch_norm(
    x: &[f64],
    shape: [usize; 5],
    weight: Option<&[f64]>,
    bias: Option<&[f64]>,
    mean: &[f64],
    var: &[f64],
    eps: f64,
) -> Bounded {
    let mut out = Bounded::default();
    let voxels = shape[2] * shape[3] * shape[4];
    for (i, &v) in x.iter().enumerate() {
        let c = i / voxels % shape[1];
        let (weight, bias) = (weight.map_or(1.0, |w| w[c]), bias.map_or(0.0, |b| b[c]));
        // Mean and variance are given, exact: only the subtraction and the scaling round.
        let (value, magnitude) = normalised(v, mean[c], 0.0, (var[c] + eps).sqrt(), weight, bias);
        out.value.push(value);
        out.magnitude.push(magnitude);
    }
    out
}

/// `torch.nn.functional.batch_norm` in training: y, the batch mean and the unbiased batch variance.
pub fn batch_norm_train(
    x: &[f64],
    shape: [usize; 5],
    weight: Option<&[f64]>,
    bias: Option<&[f64]>,
    eps: f64,
) -> [Bounded; 3] {
    let voxels = shape[2] * shape[3] * shape[4];
    let (mut y, mut mean, mut var) = (Bounded::default(), Bounded::default(), Bounded::default());
    y.value.resize(x.len(), 0.0);
    y.magnitude.resize(x.len(), 0.0);
    for c in 0..shape[1] {
        let m = moments(&channel(x, shape, c, 0..shape[0]));
        mean.value.push(m.mean);
        mean.magnitude.push(m.absolute_mean);
        var.value.push(m.squares / (m.count - 1.0));
        var.magnitude.push((m.squares + 2.0 * m.absolute_deviations * m.absolute_mean) / (m.count - 1.0));
        let sd = (m.squares / m.count + eps).sqrt();
        let (weight, bias) = (weight.map_or(1.0, |w| w[c]), bias.map_or(0.0, |b| b[c]));
        for n in 0..shape[0] {
            for v in 0..voxels {
                let i = (n * shape[1] + c) * voxels + v;
                (y.value[i], y.magnitude[i]) = normalised(x[i], m.mean, m.absolute_mean, sd, weight, bias);
            }
        }
    }
    [y, mean, var]
}
