//! Convolution straight from its definition: for shapes that no tiled kernel covers, and as their rival in tests.
//!
//! A unit makes `channels` (1, 2 or 4, a divisor of a group's) outputs of one voxel, so an input read serves that many
//! FMAs. Neighbouring units share the voxel first, then step along x: their reads hit the same lines of x. Taps that
//! fall into the padding are cut from the loops, not tested in them.

use cubecl::prelude::*;

use super::{Geometry, Window, minus_or_zero};

/// The first tap that reads inside the input, for an output whose first tap reads `start` - padding.
#[cube]
fn first_tap(axis: &Window, start: usize) -> usize {
    minus_or_zero(axis.padding, start).div_ceil(axis.dilation)
}

/// The tap past the last that reads inside the input.
#[cube]
fn end_tap(axis: &Window, start: usize) -> usize {
    min(axis.kernel, minus_or_zero(axis.input + axis.padding, start).div_ceil(axis.dilation))
}

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

        let weights = g.z.kernel * g.y.kernel * g.x.kernel * g.ci; // of one output channel
        let mut sums = Array::<f32>::new(channels);
        #[unroll]
        for j in 0..channels {
            sums[j] = 0.0;
            if biased {
                sums[j] = b[co + j];
            }
        }
        for kz in first_tap(&g.z, start_z)..end_tap(&g.z, start_z) {
            let iz = start_z + kz * g.z.dilation - g.z.padding;
            for ky in first_tap(&g.y, start_y)..end_tap(&g.y, start_y) {
                let iy = start_y + ky * g.y.dilation - g.y.padding;
                for kx in first_tap(&g.x, start_x)..end_tap(&g.x, start_x) {
                    let ix = start_x + kx * g.x.dilation - g.x.padding;
                    let source = ((image * g.z.input + iz) * g.y.input + iy) * g.x.input + ix;
                    let from = (source * g.groups + group) * g.ci;
                    let tap = (kz * g.y.kernel + ky) * g.x.kernel + kx;
                    let at = co * weights + tap * g.ci;
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
            y[out + j] = F::cast_from(sums[j]);
        }
    }
}
