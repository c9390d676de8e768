//! Pooling in f64 on data in PyTorch's order, from the definition.

use super::Pool3dParams;

/// The values under each window of x [n, c, d, h, w], padding left out, in the order of the outputs.
fn windows(x: &[f64], shape: [usize; 5], p: &Pool3dParams) -> Vec<Vec<f64>> {
    let [n, c, d, h, w] = shape;
    let size = [d as isize, h as isize, w as isize];
    let at = |axis: usize, o: usize, k: usize| (o * p.stride[axis] + k) as isize - p.padding[axis] as isize;
    let outputs = |axis: usize| {
        (0..).take_while(move |&o| at(axis, o, p.kernel[axis] - 1) < size[axis] + p.padding[axis] as isize)
    };
    let mut out = Vec::new();
    for image in 0..n * c {
        for od in outputs(0) {
            for oh in outputs(1) {
                for ow in outputs(2) {
                    let mut values = Vec::new();
                    for kd in 0..p.kernel[0] {
                        for kh in 0..p.kernel[1] {
                            for kw in 0..p.kernel[2] {
                                let [z, y, u] = [at(0, od, kd), at(1, oh, kh), at(2, ow, kw)];
                                if [z, y, u].iter().zip(size).all(|(&i, size)| (0..size).contains(&i)) {
                                    values.push(x[((image * d + z as usize) * h + y as usize) * w + u as usize]);
                                }
                            }
                        }
                    }
                    out.push(values);
                }
            }
        }
    }
    out
}

/// `torch.nn.functional.max_pool3d`.
pub fn max_pool3d(x: &[f64], shape: [usize; 5], params: &Pool3dParams) -> Vec<f64> {
    let largest = |values: Vec<f64>| {
        let any_nan = values.iter().any(|v| v.is_nan());
        if any_nan { f64::NAN } else { values.into_iter().fold(f64::NEG_INFINITY, f64::max) }
    };
    windows(x, shape, params).into_iter().map(largest).collect()
}

/// `torch.nn.functional.avg_pool3d`, and the same of the absolute values.
pub fn avg_pool3d(x: &[f64], shape: [usize; 5], params: &Pool3dParams) -> (Vec<f64>, Vec<f64>) {
    let volume = params.kernel.iter().product::<usize>() as f64;
    let mean =
        |values: Vec<f64>| (values.iter().sum::<f64>() / volume, values.iter().map(|v| v.abs()).sum::<f64>() / volume);
    windows(x, shape, params).into_iter().map(mean).unzip()
}
