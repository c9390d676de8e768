//! Applying statistics that are known: one unit a vector of channels.

use cubecl::prelude::*;

/// out = 1 / sqrt(variance + eps), element by element.
#[cube(launch_unchecked)]
pub fn inverse_sd(variance: &Array<f32>, out: &mut Array<f32>, eps: f32) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = 1.0f32 / (variance[ABSOLUTE_POS] + eps).sqrt();
    }
}

/// y = (x - mean) * inverse_sd * weight + bias over x [groups, positions, channels], mean and inverse_sd [groups,
/// channels], weight and bias [channels]; `channels` counts vectors. The mean is subtracted first: folding it into the
/// bias would cancel. Without weight or bias their arrays are not read.
#[cube(launch_unchecked)]
pub fn apply_statistics<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    mean: &Array<Vector<f32, N>>,
    inverse_sd: &Array<Vector<f32, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<Vector<f32, N>>,
    y: &mut Array<Vector<F, N>>,
    positions: usize,
    channels: usize,
    #[comptime] has_weight: bool,
    #[comptime] has_bias: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let channel = ABSOLUTE_POS % channels;
        let statistic = ABSOLUTE_POS / channels / positions * channels + channel;
        let mut scale = inverse_sd[statistic];
        if has_weight {
            scale *= weight[channel];
        }
        let mut value = (Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]) - mean[statistic]) * scale;
        if has_bias {
            value += bias[channel];
        }
        y[ABSOLUTE_POS] = Vector::cast_from(value);
    }
}
