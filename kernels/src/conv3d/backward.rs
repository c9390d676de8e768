//! Gradients of a convolution by weight and bias. (By its input: `conv_transpose3d`.)
//!
//! Both are sums over all output voxels. Stage one cuts them into `splits` fixed ranges of rows, each into its own
//! f32 part; stage two adds the parts in order. The cut depends on shapes alone, so results have the same bits.

use cubecl::prelude::*;

use super::{Geometry, is_inside, minus_or_zero};

/// parts [splits, co, kd, kh, kw, ci / groups] of x [n, d, h, w, ci] and dy [n, od, oh, ow, co]. A unit makes `channels`
/// (1, 2 or 4, a divisor of a group's) output channels of one tap and input channel, over the rows of one split;
/// neighbouring units read neighbouring input channels. `rows` counts all (n, od, oh).
#[cube(launch_unchecked)]
pub fn conv3d_weight_parts<F: Float>(
    x: &Array<F>,
    dy: &Array<F>,
    parts: &mut Array<f32>,
    g: Geometry,
    rows: usize,
    splits: usize,
    #[comptime] channels: usize,
) {
    if ABSOLUTE_POS < parts.len() / channels {
        let ci = ABSOLUTE_POS % g.ci;
        let taps = g.z.kernel * g.y.kernel * g.x.kernel;
        let rest = ABSOLUTE_POS / g.ci;
        let tap = rest % taps;
        let rest = rest / taps;
        let all_co = g.groups * g.co;
        let co = rest % (all_co / channels) * channels;
        let split = rest / (all_co / channels);
        let group = co / g.co;
        let skip_x = tap % g.x.kernel * g.x.dilation;
        let skip_y = tap / g.x.kernel % g.y.kernel * g.y.dilation;
        let skip_z = tap / (g.x.kernel * g.y.kernel) * g.z.dilation;
        // Outputs along x whose tap reads inside the input.
        let first = minus_or_zero(g.x.padding, skip_x).div_ceil(g.x.stride);
        let end = min(g.x.output, minus_or_zero(g.x.input + g.x.padding, skip_x).div_ceil(g.x.stride));

        let mut sums = Array::<f32>::new(channels);
        #[unroll]
        for j in 0..channels {
            sums[j] = 0.0;
        }
        let each = rows.div_ceil(splits);
        for row in min(split * each, rows)..min(split * each + each, rows) {
            let plane = row / g.y.output;
            let image = plane / g.z.output;
            let sy = row % g.y.output * g.y.stride + skip_y;
            let sz = plane % g.z.output * g.z.stride + skip_z;
            if is_inside(&g.z, sz) && is_inside(&g.y, sy) {
                let line = ((image * g.z.input + sz - g.z.padding) * g.y.input + sy - g.y.padding) * g.x.input;
                for ox in first..end {
                    let source = line + ox * g.x.stride + skip_x - g.x.padding;
                    let v = f32::cast_from(x[(source * g.groups + group) * g.ci + ci]);
                    let from = (row * g.x.output + ox) * all_co + co;
                    #[unroll]
                    for j in 0..channels {
                        sums[j] += v * f32::cast_from(dy[from + j]);
                    }
                }
            }
        }
        #[unroll]
        for j in 0..channels {
            parts[((split * all_co + co + j) * taps + tap) * g.ci + ci] = sums[j];
        }
    }
}

/// parts [splits, co]: dy [voxels, co] added up over the voxels of each split; a unit a channel of a split.
#[cube(launch_unchecked)]
pub fn conv3d_bias_parts<F: Float>(dy: &Array<F>, parts: &mut Array<f32>, voxels: usize, splits: usize) {
    if ABSOLUTE_POS < parts.len() {
        let channels = parts.len() / splits;
        let co = ABSOLUTE_POS % channels;
        let split = ABSOLUTE_POS / channels;
        let each = voxels.div_ceil(splits);
        let mut sum = 0.0f32;
        for voxel in min(split * each, voxels)..min(split * each + each, voxels) {
            sum += f32::cast_from(dy[voxel * channels + co]);
        }
        parts[ABSOLUTE_POS] = sum;
    }
}

/// out[i] = parts[0, i] + parts[1, i] + ..., in this order; a unit an element.
#[cube(launch_unchecked)]
pub fn sum_parts<F: Float>(parts: &Array<f32>, out: &mut Array<F>, splits: usize) {
    if ABSOLUTE_POS < out.len() {
        let mut sum = 0.0f32;
        for split in 0..splits {
            sum += parts[split * out.len() + ABSOLUTE_POS];
        }
        out[ABSOLUTE_POS] = F::cast_from(sum);
    }
}
