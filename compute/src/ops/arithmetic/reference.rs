//! Addition and concatenation in f64 on data in PyTorch's order.

/// a + b and |a| + |b|.
pub fn add(a: &[f64], b: &[f64]) -> (Vec<f64>, Vec<f64>) {
    a.iter().zip(b).map(|(a, b)| (a + b, a.abs() + b.abs())).unzip()
}

/// Concatenates [n, c_i, voxels] tensors, given with their channels, along the channels.
pub fn concat(parts: &[(&[f64], usize)], n: usize, voxels: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for image in 0..n {
        for (data, channels) in parts {
            let len = channels * voxels;
            out.extend_from_slice(&data[image * len..(image + 1) * len]);
        }
    }
    out
}
