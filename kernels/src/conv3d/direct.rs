//! Convolution straight from its definition: for shapes that no tiled kernel covers, and as their rival in tests.
//!
//! A unit makes `channels` (1, 2 or 4, a divisor of a group's) outputs of one voxel, so an input read serves that many
//! FMAs. Neighbouring units share the voxel first, then step along x: their reads hit the same lines of x. A row of taps
//! outside the input is skipped whole; along x the loop is cut to the taps inside. (Cutting all three loops keeps so
//! many bounds alive that registers spill.)

use cubecl::prelude::*;

use super::{Geometry, is_inside, minus_or_zero};

/// y [n, od, oh, ow, co] of x [n, d, h, w, ci] and w [co, kd, kh, kw, ci / groups]; `b` [co] only where `biased`.
#[cube(launch_unchecked)]
pub fn conv3d_direct<F: Float>(
    x: &Array<F>,
    w: &Array<F>,
    b: &Array<f32>,
    y: &mut Array<F>,
    g: Geometry,
    #[comptime] biased: bool,
    #[comptime] channels: usize,
) {
    if ABSOLUTE_POS < y.len() / channels {
        let out = ABSOLUTE_POS * channels; // the first of this unit's outputs
        let all_co = g.groups * g.co;
        let co = out % all_co;
        let group = co / g.co;
        let voxel = out / all_co;
        let start_x = voxel % g.x.output * g.x.stride;
        let row = voxel / g.x.output;
        let start_y = row % g.y.output * g.y.stride;
        let plane = row / g.y.output;
        let start_z = plane % g.z.output * g.z.stride;
        let image = plane / g.z.output;
        let first = minus_or_zero(g.x.padding, start_x).div_ceil(g.x.dilation);
        let end = min(g.x.kernel, minus_or_zero(g.x.input + g.x.padding, start_x).div_ceil(g.x.dilation));

        let weights = g.z.kernel * g.y.kernel * g.x.kernel * g.ci; // of one output channel
        let mut sums = Array::<f32>::new(channels);
        #[unroll]
        for j in 0..channels {
            sums[j] = 0.0;
        }
        for taps in 0..g.z.kernel * g.y.kernel {
            let sz = start_z + taps / g.y.kernel * g.z.dilation;
            let sy = start_y + taps % g.y.kernel * g.y.dilation;
            if is_inside(&g.z, sz) && is_inside(&g.y, sy) {
                let line = (image * g.z.input + sz - g.z.padding) * g.y.input + sy - g.y.padding;
                for kx in first..end {
                    let source = line * g.x.input + start_x + kx * g.x.dilation - g.x.padding;
                    let from = (source * g.groups + group) * g.ci;
                    let at = co * weights + (taps * g.x.kernel + kx) * g.ci;
                    for c in 0..g.ci {
                        let v = f32::cast_from(x[from + c]);
                        #[unroll]
                        for j in 0..channels {
                            sums[j] += v * f32::cast_from(w[at + j * weights + c]);
                        }
                    }
                }
            }
        }
        #[unroll]
        for j in 0..channels {
            let mut sum = sums[j];
            if biased {
                sum += b[out % all_co + j];
            }
            y[out + j] = F::cast_from(sum);
        }
    }
}
