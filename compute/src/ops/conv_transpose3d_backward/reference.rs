//! Gradients of a transposed convolution in f64: every input voxel and tap meets one output voxel.

use super::ConvTranspose3dParams;
use crate::tensor::Shape;

/// A gradient in PyTorch's order and, element by element, the sum of the absolute values of its terms.
#[derive(Debug, Clone)]
pub struct Gradient {
    /// The gradient.
    pub value: Vec<f64>,
    /// What bounds its rounding.
    pub magnitude: Vec<f64>,
}

impl Gradient {
    fn zeros(len: usize) -> Self {
        Self { value: vec![0.0; len], magnitude: vec![0.0; len] }
    }

    fn add(&mut self, at: usize, term: f64) {
        self.value[at] += term;
        self.magnitude[at] += term.abs();
    }
}

/// The gradients dx, dw and db of sum(dy * conv_transpose3d(x, w, b)) for `x` [n, ci, d, h, w], `w` [ci, co, kd, kh, kw].
pub fn conv_transpose3d_backward(
    x: &[f64],
    [n, ci, d, h, width]: Shape,
    w: &[f64],
    [_, co, kd, kh, kw]: Shape,
    dy: &[f64],
    params: &ConvTranspose3dParams,
) -> [Gradient; 3] {
    let ([sz, sy, sx], [pz, py, px]) = (params.stride, params.padding);
    let (od, oh, ow) = ((d - 1) * sz + kd - 2 * pz, (h - 1) * sy + kh - 2 * py, (width - 1) * sx + kw - 2 * px);
    let (mut dx, mut dw, mut db) = (Gradient::zeros(x.len()), Gradient::zeros(w.len()), Gradient::zeros(co));
    for (i, &dy) in dy.iter().enumerate() {
        let (ox, oy, oz) = (i % ow, i / ow % oh, i / (ow * oh) % od);
        let (out, image) = (i / (ow * oh * od) % co, i / (ow * oh * od * co));
        db.add(out, dy);
        // The inputs whose footprint has this output.
        let reached = |o: usize, p: usize, s: usize, size: usize, k: usize| {
            (0..size).filter(move |i| i * s <= o + p && o + p - i * s < k).map(move |i| (i, o + p - i * s))
        };
        for channel in 0..ci {
            for (iz, tz) in reached(oz, pz, sz, d, kd) {
                for (iy, ty) in reached(oy, py, sy, h, kh) {
                    for (ix, tx) in reached(ox, px, sx, width, kw) {
                        let at = (((image * ci + channel) * d + iz) * h + iy) * width + ix;
                        let tap = (((channel * co + out) * kd + tz) * kh + ty) * kw + tx;
                        dx.add(at, w[tap] * dy);
                        dw.add(tap, x[at] * dy);
                    }
                }
            }
        }
    }
    debug_assert_eq!(dy.len(), n * co * od * oh * ow);
    [dx, dw, db]
}
