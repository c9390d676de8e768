//! Blur and low resolution, on one channel of a patch.
//!
//! Source: batchgeneratorsv2 0.3.6, `GaussianBlurTransform` and `SimulateLowResolutionTransform`.

/// Blurs with a Gaussian of standard deviation `sigmas` voxels along each axis, cut off at three of them. At the edges the values are
/// reflected, the outermost once. An axis of one voxel stays.
pub fn blur(values: &mut [f32], shape: [usize; 3], sigmas: [f64; 3]) {
    for (axis, sigma) in sigmas.into_iter().enumerate() {
        if shape[axis] > 1 {
            blur_along(values, shape, axis, &kernel(sigma));
        }
    }
}

/// The samples of a Gaussian, of sum 1: the odd number that is nearest to 6 sigma + 0.5.
fn kernel(sigma: f64) -> Vec<f32> {
    let size = 6.0 * sigma + 0.5;
    let rounded = size.round_ties_even();
    let odd = if rounded % 2.0 == 1.0 {
        rounded
    } else if size >= rounded {
        rounded + 1.0
    } else {
        rounded - 1.0
    };
    let radius = (odd.max(1.0) - 1.0) / 2.0;
    let sample = |i: usize| (-0.5 * ((i as f64 - radius) / sigma).powi(2)).exp();
    let samples: Vec<f64> = (0..odd.max(1.0) as usize).map(sample).collect();
    let total: f64 = samples.iter().sum();
    samples.into_iter().map(|s| (s / total) as f32).collect()
}

fn blur_along(values: &mut [f32], shape: [usize; 3], axis: usize, kernel: &[f32]) {
    let (size, radius) = (shape[axis], kernel.len() / 2);
    let stride: usize = shape[axis + 1..].iter().product();
    let mut line = vec![0.0; size + 2 * radius];
    for first in 0..values.len() / size {
        let start = first / stride * stride * size + first % stride;
        for (i, value) in line.iter_mut().enumerate() {
            *value = values[start + reflected(i as i64 - radius as i64, size) * stride];
        }
        for i in 0..size {
            values[start + i * stride] = kernel.iter().zip(&line[i..]).map(|(k, v)| k * v).sum();
        }
    }
}

/// The index inside an axis, back and forth between its ends, without repeating them.
fn reflected(index: i64, size: usize) -> usize {
    let period = 2 * (size as i64 - 1);
    let place = index.rem_euclid(period.max(1));
    place.min(period - place).max(0) as usize
}

/// Samples every axis that is `scaled` at `scale` times its voxels, the nearest each, and interpolates linearly back to the shape.
pub fn low_resolution(values: &mut [f32], shape: [usize; 3], scale: f64, scaled: [bool; 3]) {
    let axes: [Axis; 3] = std::array::from_fn(|a| {
        let few = if scaled[a] { (shape[a] as f64 * scale).round_ties_even().max(1.0) as usize } else { shape[a] };
        Axis::new(shape[a], few)
    });
    let [d, h, w] = shape;
    let source = values.to_vec();
    for i in 0..d * h * w {
        let taps = [&axes[0].0[i / w / h], &axes[1].0[i / w % h], &axes[2].0[i % w]];
        let mut sum = 0.0;
        for corner in 0..8 {
            let [z, y, x] = [0, 1, 2].map(|a: usize| (taps[a], corner >> (2 - a) & 1));
            let weight = z.0.weights[z.1] * y.0.weights[y.1] * x.0.weights[x.1];
            sum += weight * source[(z.0.at[z.1] * h + y.0.at[y.1]) * w + x.0.at[x.1]];
        }
        values[i] = sum;
    }
}

/// For each voxel of an axis the two voxels of the same axis that it is interpolated from.
struct Axis(Vec<Tap>);

struct Tap {
    at: [usize; 2],
    weights: [f32; 2],
}

impl Axis {
    fn new(size: usize, few: usize) -> Self {
        let source = |i: usize| (((i as f64 + 0.5) * size as f64 / few as f64) as usize).min(size - 1);
        let tap = |i: usize| {
            let place = ((i as f64 + 0.5) * few as f64 / size as f64 - 0.5).max(0.0);
            let low = (place as usize).min(few - 1);
            let share = (place - low as f64) as f32;
            Tap { at: [source(low), source((low + 1).min(few - 1))], weights: [1.0 - share, share] }
        };
        Self((0..size).map(tap).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Vec<f32> {
        (0..24).map(|i| (i * i) as f32 / 10.0).collect()
    }

    fn close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        // Sums of at most eight products of values below 53.
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 16.0 * f32::EPSILON * 53.0), "{got:?} for {want:?}");
    }

    /// Values of batchgeneratorsv2 for the same sigmas.
    #[test]
    fn a_blur_is_batchgenerators() {
        let mut values = ramp();
        blur_along(&mut values, [2, 3, 4], 2, &kernel(0.9));
        blur_along(&mut values, [2, 3, 4], 1, &kernel(0.6));
        close(&values, &BLURRED);
        close(&kernel(0.5), &[0.106_506_97, 0.786_986, 0.106_506_97]);
        assert_eq!([0.6, 0.75, 0.9, 1.0].map(|sigma| kernel(sigma).len()), [5, 5, 5, 7]);
        assert_eq!([-4, -3, -1, 0, 2, 3, 4, 5].map(|i| reflected(i, 3)), [0, 1, 1, 0, 2, 1, 0, 1]);
        let mut flat = vec![3.0; 6];
        blur(&mut flat, [1, 2, 3], [1.0; 3]);
        close(&flat, &[3.0; 6]);
    }

    /// PyTorch's interpolate, nearest-exact to [2, 2, 3] and trilinear back.
    #[test]
    fn a_low_resolution_is_pytorchs() {
        let mut values = ramp();
        low_resolution(&mut values, [2, 3, 4], 0.75, [false, true, true]);
        close(&values, &LOW);
        let mut values = ramp();
        low_resolution(&mut values, [2, 3, 4], 1.0, [true; 3]);
        assert_eq!(values, ramp());
    }

    const BLURRED: [f32; 24] = [
        0.812_798_6,
        1.034_255_6,
        1.520_989_3,
        1.809_334_8,
        2.712_191_6,
        3.168_043,
        4.102_352,
        4.625_091,
        5.692_869_7,
        6.383_116,
        7.765_001,
        8.522_134,
        20.002_617,
        21.291_626,
        23.816_853,
        25.172_749,
        28.225_395,
        29.748_795,
        32.721_6,
        34.311_89,
        37.529_453,
        39.287_254,
        42.707_63,
        44.532_32,
    ];
    const LOW: [f32; 24] = [
        0.0, 0.25, 0.587_5, 0.9, 3.2, 4.45, 5.687_5, 6.5, 6.4, 8.65, 10.787_5, 12.1, 14.4, 17.65, 20.687_5, 22.5, 27.2,
        31.45, 35.387_5, 37.7, 40.0, 45.25, 50.087_5, 52.9,
    ];
}
