//! Transposed convolution in f64: every input voxel adds its footprint.

use super::ConvTranspose3dParams;
use crate::ops::conv3d::reference::Sums;
use crate::tensor::Shape;

/// `x` [n, ci, d, h, w], `w` [ci, co, kd, kh, kw].
pub fn conv_transpose3d(
    x: &[f64],
    [n, ci, d, h, width]: Shape,
    w: &[f64],
    [_, co, kd, kh, kw]: Shape,
    b: Option<&[f64]>,
    params: &ConvTranspose3dParams,
) -> Sums {
    let ([sz, sy, sx], [pz, py, px]) = (params.stride, params.padding);
    let (od, oh, ow) = ((d - 1) * sz + kd - 2 * pz, (h - 1) * sy + kh - 2 * py, (width - 1) * sx + kw - 2 * px);
    let (mut value, mut magnitude) = (vec![0.0; n * co * od * oh * ow], vec![0.0; n * co * od * oh * ow]);
    if let Some(b) = b {
        for (i, (v, m)) in value.iter_mut().zip(&mut magnitude).enumerate() {
            *v = b[i / (od * oh * ow) % co];
            *m = v.abs();
        }
    }
    for (i, &x) in x.iter().enumerate() {
        let (ix, iy, iz) = (i % width, i / width % h, i / (width * h) % d);
        let (channel, image) = (i / (width * h * d) % ci, i / (width * h * d * ci));
        for (j, &w) in w[channel * co * kd * kh * kw..][..co * kd * kh * kw].iter().enumerate() {
            let (tx, ty, tz, out) = (j % kw, j / kw % kh, j / (kw * kh) % kd, j / (kw * kh * kd));
            let (z, y, v) = (iz * sz + tz, iy * sy + ty, ix * sx + tx);
            if z < pz || y < py || v < px || z - pz >= od || y - py >= oh || v - px >= ow {
                continue;
            }
            let at = (((image * co + out) * od + z - pz) * oh + y - py) * ow + v - px;
            value[at] += x * w;
            magnitude[at] += (x * w).abs();
        }
    }
    Sums { shape: [n, co, od, oh, ow], value, magnitude }
}
