//! Adaptive pooling in f64 on data in PyTorch's order, from the definition.

/// `torch.nn.functional.adaptive_avg_pool3d` of x [n, c, d, h, w], and the same of the absolute values.
pub fn adaptive_avg_pool3d(x: &[f64], shape: [usize; 5], size: [usize; 3]) -> (Vec<f64>, Vec<f64>) {
    let [n, c, d, h, w] = shape;
    // A voxel i belongs to bin o where the intervals [i, i + 1) and [o length / bins, (o + 1) length / bins) meet.
    let members = |o: usize, bins: usize, length: usize| {
        (0..length).filter(move |i| i * bins < (o + 1) * length && o * length < (i + 1) * bins)
    };
    let (mut means, mut magnitudes) = (Vec::new(), Vec::new());
    for image in 0..n * c {
        for oz in 0..size[0] {
            for oy in 0..size[1] {
                for ox in 0..size[2] {
                    let (mut sum, mut magnitude, mut count) = (0.0, 0.0, 0.0);
                    for z in members(oz, size[0], d) {
                        for y in members(oy, size[1], h) {
                            for u in members(ox, size[2], w) {
                                let value = x[((image * d + z) * h + y) * w + u];
                                sum += value;
                                magnitude += value.abs();
                                count += 1.0;
                            }
                        }
                    }
                    means.push(sum / count);
                    magnitudes.push(magnitude / count);
                }
            }
        }
    }
    (means, magnitudes)
}
