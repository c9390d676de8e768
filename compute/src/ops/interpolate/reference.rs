//! Resizing in f64, voxel by voxel, on PyTorch-ordered data.

use super::InterpolateMode;
use crate::ops::grid_sample::reference::Sampled;

/// `x` [n, c, d, h, w] resized to [n, c, size]. The magnitude is the sum of absolute terms.
pub fn interpolate(
    x: &[f64],
    input: [usize; 5],
    size: [usize; 3],
    mode: InterpolateMode,
    align_corners: bool,
) -> Sampled {
    let [n, c, d, h, w] = input;
    let mut out = Sampled::default();
    for image in 0..n * c {
        let voxel = |z: usize, y: usize, x_: usize| x[((image * d + z) * h + y) * w + x_];
        for z in 0..size[0] {
            for y in 0..size[1] {
                for x_ in 0..size[2] {
                    let at = [(z, d, size[0]), (y, h, size[1]), (x_, w, size[2])];
                    let (value, magnitude) = match mode {
                        InterpolateMode::Nearest => {
                            let [z, y, x_] = at.map(|(i, from, to)| nearest(i, from, to));
                            (voxel(z, y, x_), 0.0)
                        }
                        InterpolateMode::Trilinear => {
                            let [z, y, x_] = at.map(|(i, from, to)| linear(i, from, to, align_corners));
                            let mut sum = (0.0, 0.0);
                            for (z, wz) in z {
                                for (y, wy) in y {
                                    for (x_, wx) in x_ {
                                        let term = wz * wy * wx * voxel(z, y, x_);
                                        sum = (sum.0 + term, sum.1 + term.abs());
                                    }
                                }
                            }
                            sum
                        }
                    };
                    out.value.push(value);
                    out.magnitude.push(magnitude);
                }
            }
        }
    }
    out
}

/// PyTorch's index is defined by f32 arithmetic: a whole i * from / to can come out just below itself.
fn nearest(i: usize, from: usize, to: usize) -> usize {
    ((i as f32 * (from as f32 / to as f32)) as usize).min(from - 1)
}

/// Two voxels and their weights.
fn linear(i: usize, from: usize, to: usize, align_corners: bool) -> [(usize, f64); 2] {
    let (i, last) = (i as f64, from as f64 - 1.0);
    let mut source = (i + 0.5) * from as f64 / to as f64 - 0.5;
    if align_corners {
        source = if to == 1 { 0.0 } else { i * last / (to as f64 - 1.0) };
    }
    let source = source.max(0.0).min(last);
    let low = source.floor();
    [(low as usize, low + 1.0 - source), ((low as usize + 1).min(from - 1), source - low)]
}
