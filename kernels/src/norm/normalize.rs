//! Applying statistics that are known: one unit a vector of channels.

use cubecl::prelude::*;

use crate::common::leaky::leaky;

/// out = 1 / sqrt(variance + eps), element by element.
#[cube(launch_unchecked)]
pub fn inverse_sd(variance: &Array<f32>, out: &mut Array<f32>, eps: f32) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = 1.0f32 / (variance[ABSOLUTE_POS] + eps).sqrt();
    }
}

/// f((x - mean) * inverse_sd * weight + bias) of the vector at this unit's position in [groups, positions, channels], with
/// mean and inverse_sd [groups, channels], weight and bias [channels] and f the leaky ReLU of `slope` (1: f(v) = v);
/// `channels` counts vectors. The mean is subtracted first: folding it into the bias would cancel. Without weight or bias
/// their arrays are not read.
#[cube]
fn normalized<F: Float, N: Size>(
    x: Vector<F, N>,
    mean: &Array<Vector<f32, N>>,
    inverse_sd: &Array<Vector<f32, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<Vector<f32, N>>,
    positions: usize,
    channels: usize,
    slope: f32,
    #[comptime] has_weight: bool,
    #[comptime] has_bias: bool,
) -> Vector<F, N> {
    let channel = ABSOLUTE_POS % channels;
    let statistic = ABSOLUTE_POS / channels / positions * channels + channel;
    let mut scale = inverse_sd[statistic];
    if has_weight {
        scale *= weight[channel];
    }
    let mut value = (Vector::<f32, N>::cast_from(x) - mean[statistic]) * scale;
    if has_bias {
        value += bias[channel];
    }
    #[unroll]
    for v in 0..N::value() {
        value[v] = leaky(value[v], slope);
    }
    Vector::cast_from(value)
}

/// y = normalized(x).
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
    slope: f32,
    #[comptime] has_weight: bool,
    #[comptime] has_bias: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let value = x[ABSOLUTE_POS];
        y[ABSOLUTE_POS] =
            normalized::<F, N>(value, mean, inverse_sd, weight, bias, positions, channels, slope, has_weight, has_bias);
    }
}

/// y = normalized(y).
#[cube(launch_unchecked)]
pub fn apply_in_place<F: Float, N: Size>(
    mean: &Array<Vector<f32, N>>,
    inverse_sd: &Array<Vector<f32, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<Vector<f32, N>>,
    y: &mut Array<Vector<F, N>>,
    positions: usize,
    channels: usize,
    slope: f32,
    #[comptime] has_weight: bool,
    #[comptime] has_bias: bool,
) {
    if ABSOLUTE_POS < y.len() {
        let value = y[ABSOLUTE_POS];
        y[ABSOLUTE_POS] =
            normalized::<F, N>(value, mean, inverse_sd, weight, bias, positions, channels, slope, has_weight, has_bias);
    }
}
