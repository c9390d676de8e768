//! Softmax and argmax in f64 on data in PyTorch's order.

/// The channels of each voxel of x [n, c, voxels], with the index of the first.
fn voxels(x: &[f64], shape: [usize; 5]) -> impl Iterator<Item = (usize, Vec<f64>)> {
    let [n, c, d, h, w] = shape;
    let size = d * h * w;
    (0..n * size).map(move |i| {
        let first = i / size * c * size + i % size;
        (first, (0..c).map(|channel| x[first + channel * size]).collect())
    })
}

/// `torch.softmax` over axis 1. The magnitude is y (1 + r), r the distance of the voxel's smallest logit from its largest:
/// the relative error of exp(v) grows with |v|.
pub fn softmax(x: &[f64], shape: [usize; 5]) -> (Vec<f64>, Vec<f64>) {
    let size: usize = shape[2..].iter().product();
    let (mut y, mut magnitude) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for (first, logits) in voxels(x, shape) {
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let smallest = logits.iter().copied().fold(f64::INFINITY, f64::min);
        let sum: f64 = logits.iter().map(|v| (v - largest).exp()).sum();
        for (c, v) in logits.iter().enumerate() {
            let value = (v - largest).exp() / sum;
            y[first + c * size] = value;
            magnitude[first + c * size] = value * (1.0 + largest - smallest);
        }
    }
    (y, magnitude)
}

/// `torch.argmax` over axis 1, ties to the lowest channel, the first NaN before any number.
pub fn argmax(x: &[f64], shape: [usize; 5]) -> Vec<u8> {
    voxels(x, shape)
        .map(|(_, values)| {
            let nan = values.iter().position(|v| v.is_nan());
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            nan.or_else(|| values.iter().position(|&v| v == largest)).unwrap_or(0) as u8
        })
        .collect()
}
