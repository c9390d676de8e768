//! Transposed convolution as a gather: every output voxel looks up the inputs whose footprint covers it, so nothing is
//! added from two units and no atomics are needed.
//!
//! A unit makes `channels` (1, 2 or 4, a divisor of a group's) outputs of one voxel; their weights lie side by side.
//! Along an axis, output o meets input i through tap k where o + padding = i * stride + k * dilation. Without dilation
//! those taps are `stride` apart and only they are visited: with kernel = stride a single one.

use cubecl::prelude::*;

use super::Placement;
use crate::conv3d::{Geometry, Window, minus_or_zero};

/// The taps to visit for the output at `reach` - padding.
#[derive(CubeType)]
struct Taps {
    first: usize,
    end: usize,
    step: usize,
}

#[cube]
fn taps(axis: &Window, reach: usize) -> Taps {
    let last_input = (axis.input - 1) * axis.stride;
    let low = minus_or_zero(reach, last_input).div_ceil(axis.dilation);
    let step = select(axis.dilation == 1, axis.stride, 1usize);
    Taps { first: low + minus_or_zero(reach, low) % step, end: min(axis.kernel, reach / axis.dilation + 1), step }
}

/// y [n, od, oh, ow, co] of x [n, d, h, w, ci] and w [ci, kd, kh, kw, co / groups]; `b` [co] only where `biased`;
/// `outputs` elements in all.
#[cube(launch_unchecked)]
pub fn conv_transpose3d_direct<F: Float>(
    x: &Array<F>,
    w: &Array<F>,
    b: &Array<f32>,
    y: &mut Array<F>,
    g: Geometry,
    at: Placement,
    outputs: usize,
    #[comptime] biased: bool,
    #[comptime] channels: usize,
) {
    if ABSOLUTE_POS < outputs / channels {
        let out = ABSOLUTE_POS * channels; // the first of this unit's outputs
        let all_co = g.groups * g.co;
        let co = out % all_co;
        let group = co / g.co;
        let voxel = out / all_co;
        let target = voxel * at.pitch + at.offset + co;
        let reach_x = voxel % g.x.output + g.x.padding;
        let row = voxel / g.x.output;
        let reach_y = row % g.y.output + g.y.padding;
        let plane = row / g.y.output;
        let reach_z = plane % g.z.output + g.z.padding;
        let image = plane / g.z.output;
        let taps_x = taps(&g.x, reach_x);
        let taps_y = taps(&g.y, reach_y);
        let taps_z = taps(&g.z, reach_z);

        let weights = g.z.kernel * g.y.kernel * g.x.kernel * g.co; // of one input channel
        let mut sums = Array::<f32>::new(channels);
        #[unroll]
        for j in 0..channels {
            sums[j] = 0.0;
            if biased {
                sums[j] = b[co + j];
            }
        }
        let mut kz = taps_z.first;
        while kz < taps_z.end {
            let from_z = reach_z - kz * g.z.dilation;
            let mut ky = taps_y.first;
            while ky < taps_y.end {
                let from_y = reach_y - ky * g.y.dilation;
                let mut kx = taps_x.first;
                while kx < taps_x.end {
                    let from_x = reach_x - kx * g.x.dilation;
                    // Only with dilation can a visited tap miss the grid of inputs.
                    let missed = from_z % g.z.stride + from_y % g.y.stride + from_x % g.x.stride;
                    if missed == 0 {
                        let plane = image * g.z.input + from_z / g.z.stride;
                        let source = (plane * g.y.input + from_y / g.y.stride) * g.x.input + from_x / g.x.stride;
                        let from = (source * g.groups + group) * g.ci;
                        let tap = (kz * g.y.kernel + ky) * g.x.kernel + kx;
                        let at = group * g.ci * weights + tap * g.co + co % g.co;
                        for c in 0..g.ci {
                            let v = f32::cast_from(x[from + c]);
                            #[unroll]
                            for j in 0..channels {
                                sums[j] += v * f32::cast_from(w[at + c * weights + j]);
                            }
                        }
                    }
                    kx += taps_x.step;
                }
                ky += taps_y.step;
            }
            kz += taps_z.step;
        }
        #[unroll]
        for j in 0..channels {
            y[target + j] = F::cast_from(sums[j]);
        }
    }
}
