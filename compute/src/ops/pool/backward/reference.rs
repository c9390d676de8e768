//! Gradients of pooling in f64 on data in PyTorch's order: dy of every window is scattered to its inputs.

use super::Pool3dParams;

/// Calls `window` with the index of each output and the indices of x under its window, padding left out.
fn each_window(shape: [usize; 5], p: &Pool3dParams, mut window: impl FnMut(usize, &[usize])) {
    let [n, c, d, h, w] = shape;
    let size = [d, h, w];
    let out: [usize; 3] = std::array::from_fn(|a| (size[a] + 2 * p.padding[a] - p.kernel[a]) / p.stride[a] + 1);
    let inputs = |axis: usize, o: usize| -> Vec<usize> {
        let padded = (0..p.kernel[axis]).map(|k| o * p.stride[axis] + k);
        padded.filter_map(|i| i.checked_sub(p.padding[axis]).filter(|i| *i < size[axis])).collect()
    };
    let mut output = 0;
    for image in 0..n * c {
        for o in 0..out[0] * out[1] * out[2] {
            let [zs, ys, xs] = [inputs(0, o / out[2] / out[1]), inputs(1, o / out[2] % out[1]), inputs(2, o % out[2])];
            let mut at = Vec::new();
            for z in &zs {
                for y in &ys {
                    at.extend(xs.iter().map(|x| ((image * d + z) * h + y) * w + x));
                }
            }
            window(output, &at);
            output += 1;
        }
    }
}

/// The gradient of max pooling, and the same of |dy|.
pub fn max_pool3d_backward(x: &[f64], shape: [usize; 5], p: &Pool3dParams, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut magnitude) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    each_window(shape, p, |o, at| {
        let highest = at.iter().map(|&i| x[i]).fold(f64::NEG_INFINITY, f64::max);
        let last_nan = at.iter().rfind(|&&i| x[i].is_nan());
        let winner = last_nan.or_else(|| at.iter().find(|&&i| x[i] == highest));
        let winner = *winner.expect("a window with values");
        dx[winner] += dy[o];
        magnitude[winner] += dy[o].abs();
    });
    (dx, magnitude)
}

/// The gradient of average pooling, and the same of |dy|.
pub fn avg_pool3d_backward(shape: [usize; 5], p: &Pool3dParams, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let len = shape.iter().product();
    let (mut dx, mut magnitude) = (vec![0.0; len], vec![0.0; len]);
    let volume = p.kernel.iter().product::<usize>() as f64;
    each_window(shape, p, |o, at| {
        for &i in at {
            dx[i] += dy[o] / volume;
            magnitude[i] += dy[o].abs() / volume;
        }
    });
    (dx, magnitude)
}
