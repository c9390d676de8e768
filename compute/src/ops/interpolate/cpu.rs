//! Resizing on the CPU, parallel over the rows of the result: the input rows of an output row are blended first,
//! over contiguous memory, and the blend is resized along x.

use rayon::prelude::*;

use super::taps::Taps;
use crate::ops::sampling::spatial;
use crate::tensor::Shape;

/// `x` [n, d, h, w, c] resized by the taps of (z, y, x). Each value is passed through `finish(n, channel, value)`.
pub(crate) fn separable<const COUNT: usize>(
    x: &[f32],
    input: Shape,
    taps: &[Taps<COUNT>; 3],
    finish: impl Fn(usize, usize, f32) -> f32 + Sync,
) -> Vec<f32> {
    let ([n, c, ..], [d, h, w]) = (input, spatial(input));
    let [od, oh, ow] = [taps[0].len(), taps[1].len(), taps[2].len()];
    let mut out = vec![0.0; n * od * oh * ow * c];
    if out.is_empty() {
        return out;
    }
    out.par_chunks_mut(ow * c).enumerate().for_each_init(
        || vec![0.0; w * c],
        |blend, (row, out)| {
            let (image, z, y) = (row / (od * oh), row / oh % od, row % oh);
            blend.fill(0.0);
            let planes = (taps[0].first[z] as usize..d).zip(taps[0].weights[z]);
            for (z, wz) in planes {
                let rows = (taps[1].first[y] as usize..h).zip(taps[1].weights[y]);
                for (y, wy) in rows {
                    let weight = wz * wy;
                    let first = ((image * d + z) * h + y) * w * c;
                    if weight != 0.0 {
                        blend.iter_mut().zip(&x[first..first + w * c]).for_each(|(b, x)| *b += weight * x);
                    }
                }
            }
            for ((out, &first), weights) in out.chunks_exact_mut(c).zip(&taps[2].first).zip(&taps[2].weights) {
                let columns = &blend[first as usize * c..];
                for (channel, out) in out.iter_mut().enumerate() {
                    let value = columns[channel..].iter().step_by(c).zip(weights).map(|(b, weight)| b * weight).sum();
                    *out = finish(image, channel, value);
                }
            }
        },
    );
    out
}
