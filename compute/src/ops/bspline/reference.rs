//! Cubic B-splines in f64 from the definition: a dense row of weights on the voxels for each coordinate of each axis.

use crate::ops::grid_sample::reference::Sampled;

/// Terms of the inverse filter that are summed: 0.268^60 is far below an f64's rounding.
const TERMS: i64 = 60;

/// Weights on the voxels of an axis for a sample at `coordinate`: value and sum of absolute terms.
///
/// The coefficients are c[i] = sum over k of sqrt(3) pole^|k| s[i + k] with s going on as its edge values, and the value
/// is the sum of c[i] times the cubic B-spline at (coordinate - i). The coordinate is clamped 12 voxels past the edge.
pub fn weights(coordinate: f64, size: usize) -> Vec<(f64, f64)> {
    let last = size as i64 - 1;
    if last == 0 {
        return vec![(1.0, 1.0)]; // a constant: the weights of any sample add up to 1
    }
    let pole = 3f64.sqrt() - 2.0;
    let t = coordinate.max(-12.0).min(last as f64 + 12.0);
    let mut weights = vec![(0.0, 0.0); size];
    for i in t.floor() as i64 - 1..=t.floor() as i64 + 2 {
        let basis = basis(t - i as f64);
        for k in -TERMS..=TERMS {
            let term = basis * 3f64.sqrt() * pole.powi(k.abs() as i32);
            let (value, magnitude) = &mut weights[(i + k).clamp(0, last) as usize];
            *value += term;
            *magnitude += term.abs();
        }
    }
    weights
}

/// The cubic B-spline.
fn basis(t: f64) -> f64 {
    match t.abs() {
        t if t < 1.0 => 2.0 / 3.0 - t * t + t * t * t / 2.0,
        t if t < 2.0 => (2.0 - t).powi(3) / 6.0,
        _ => 0.0,
    }
}

/// The spline through an image [d, h, w] at a point (z, y, x) in voxels: value and sum of absolute terms.
pub fn spline(x: &[f64], size: [usize; 3], at: [f64; 3]) -> (f64, f64) {
    let [z, y, x_] = std::array::from_fn::<_, 3, _>(|axis| weights(at[axis], size[axis]));
    combine(x, size, [&z, &y, &x_])
}

/// The sum over an image [d, h, w] by the product of the weights of its axes: value and sum of absolute terms.
pub fn combine(x: &[f64], size: [usize; 3], weights: [&[(f64, f64)]; 3]) -> (f64, f64) {
    let [_, h, w] = size;
    let mut sum = (0.0, 0.0);
    for (z, wz) in weights[0].iter().enumerate() {
        for (y, wy) in weights[1].iter().enumerate() {
            for (i, wx) in weights[2].iter().enumerate() {
                let v = x[(z * h + y) * w + i];
                sum.0 += wz.0 * wy.0 * wx.0 * v;
                sum.1 += wz.1 * wy.1 * wx.1 * v.abs();
            }
        }
    }
    sum
}

/// `x` [n, c, d, h, w] resized to [n, c, size], each image and channel clipped to the range of its input.
pub fn resize(x: &[f64], input: [usize; 5], size: [usize; 3]) -> Sampled {
    let [n, c, d, h, w] = input;
    let along = |from: usize, to: usize| -> Vec<Vec<(f64, f64)>> {
        (0..to).map(|i| weights((i as f64 + 0.5) * from as f64 / to as f64 - 0.5, from)).collect()
    };
    let (wz, wy, wx) = (along(d, size[0]), along(h, size[1]), along(w, size[2]));
    let mut out = Sampled::default();
    for image in x.chunks_exact((d * h * w).max(1)).take(n * c) {
        let low = image.iter().copied().fold(f64::INFINITY, f64::min);
        let high = image.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for z in &wz {
            for y in &wy {
                for x in &wx {
                    let (value, magnitude) = combine(image, [d, h, w], [z, y, x]);
                    out.value.push(value.max(low).min(high));
                    out.magnitude.push(magnitude);
                }
            }
        }
    }
    out
}
