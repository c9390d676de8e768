//! Resampling in f64, voxel by voxel.

use super::{Interpolation, Outside, ResampleParams};
use crate::ops::bspline::reference::spline;
use crate::ops::grid_sample::reference::Sampled;

/// `x` [d, h, w] of size `input`. The magnitude is the sum of absolute terms, scaled as the value is, plus what an error
/// of a few 2^-24 voxels in the position can change.
pub fn resample(x: &[f64], input: [usize; 3], params: &ResampleParams) -> Sampled {
    let clip = |v: f64| match params.intensity {
        Some(i) => v.max(i.clip[0].into()).min(i.clip[1].into()),
        None => v,
    };
    // (v - mean) / sd of a value and of its magnitude
    let normalise = |(v, magnitude): (f64, f64)| match params.intensity {
        Some(i) => {
            let (mean, sd) = (f64::from(i.mean), f64::from(i.sd));
            ((v - mean) / sd, (magnitude + mean.abs()) / sd)
        }
        None => (v, magnitude),
    };
    let x: Vec<f64> = x.iter().map(|&v| clip(v)).collect();
    let largest = x.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let [_, h, w] = input;
    let [dd, hh, ww] = params.size;
    let mut out = Sampled::default();
    for index in 0..dd * hh * ww {
        let p = [(index / (hh * ww)) as f64, (index / ww % hh) as f64, (index % ww) as f64, 1.0];
        let at: [f64; 3] = params.matrix.map(|row| row.iter().zip(p).map(|(m, p)| m * p).sum());
        let beyond = (0..3).any(|axis| at[axis] < -0.5 || at[axis] > input[axis] as f64 - 0.5);
        let edge: [f64; 3] = std::array::from_fn(|axis| at[axis].max(0.0).min(input[axis] as f64 - 1.0));
        let (value, magnitude) = match (params.outside, params.interpolation) {
            (Outside::Constant(v), _) if beyond => normalise((clip(v.into()), 0.0)),
            (_, Interpolation::Cubic) => {
                let (value, magnitude) = spline(&x, input, at);
                normalise((value, magnitude + 6.0 * largest))
            }
            (_, Interpolation::Nearest) => {
                let [z, y, x_] = edge.map(|c| (c + 0.5).floor() as usize);
                let value = x[(z.min(input[0] - 1) * h + y.min(h - 1)) * w + x_.min(w - 1)];
                normalise((value, value.abs()))
            }
            (_, Interpolation::Linear) => {
                let (value, magnitude) = trilinear(&x, input, edge);
                normalise((value, magnitude + 3.0 * largest))
            }
        };
        out.value.push(value);
        out.magnitude.push(magnitude);
    }
    out
}

/// At a point inside the image: value and sum of absolute terms.
fn trilinear(x: &[f64], size: [usize; 3], at: [f64; 3]) -> (f64, f64) {
    let mut sum = (0.0, 0.0);
    for corner in 0..8 {
        let mut weight = 1.0;
        let mut index = 0;
        for axis in 0..3 {
            let (low, up) = (at[axis].floor(), corner >> axis & 1);
            weight *= if up == 1 { at[axis] - low } else { low + 1.0 - at[axis] };
            index = index * size[axis] + (low as usize + up).min(size[axis] - 1);
        }
        if weight > 0.0 {
            sum.0 += weight * x[index];
            sum.1 += weight * x[index].abs();
        }
    }
    sum
}
