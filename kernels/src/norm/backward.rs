//! Gradients of a norm that a leaky ReLU follows: sums over chunks of positions, merged in a fixed order, then one unit a vector of
//! channels of dx. The statistics are those of the forward pass; xhat and the sign of the activation's argument are computed again from x.

use cubecl::prelude::*;

/// Pairs a unit loads before it adds them to its sums: independent loads in flight, and chains of sums an eighth as long.
const BLOCK: usize = 8;

/// dy where the activation's argument is above 0, slope * dy otherwise.
#[cube]
fn passed(argument: f32, dy: f32, slope: f32) -> f32 {
    select(argument > 0.0, dy, dy * slope)
}

/// The sums of dy' and of dy' xhat over each chunk of positions of x and dy [groups, positions, channels] into parts
/// [2, groups, chunks, channels]. A cube takes one chunk of one group for `lanes` channels, with `rows` (a power of two) units for each.
#[cube(launch_unchecked)]
pub fn partial_gradients<F: Float>(
    x: &Array<F>,
    dy: &Array<F>,
    mean: &Array<f32>,
    inverse_sd: &Array<f32>,
    weight: &Array<f32>,
    bias: &Array<f32>,
    parts: &mut Array<f32>,
    groups: usize,
    positions: usize,
    channels: usize,
    chunk: usize,
    slope: f32,
    #[comptime] has_weight: bool,
    #[comptime] has_bias: bool,
    #[comptime] lanes: usize,
    #[comptime] rows: usize,
) {
    let unit = UNIT_POS_X as usize;
    let tiles = channels.div_ceil(lanes);
    let chunks = positions.div_ceil(chunk);
    let channel = CUBE_POS % tiles * lanes + unit % lanes;
    let part = CUBE_POS / tiles % chunks;
    let group = CUBE_POS / tiles / chunks;
    let mut end = min((part + 1) * chunk, positions);
    let mut center = 0.0f32;
    let mut inverse = 0.0f32;
    let mut scale = 0.0f32;
    let mut shift = 0.0f32;
    if channel < channels && group < groups {
        center = mean[group * channels + channel];
        inverse = inverse_sd[group * channels + channel];
        scale = inverse;
        if has_weight {
            scale *= weight[channel];
        }
        if has_bias {
            shift = bias[channel];
        }
    } else {
        // Units past the last channel and cubes past the last group read nothing but take part in every barrier.
        end = 0;
    }
    let base = group * positions * channels + channel;
    let mut position = part * chunk + unit / lanes;
    let mut sum = 0.0f32;
    let mut product = 0.0f32;
    while position + (BLOCK - 1) * rows < end {
        let mut block_sum = 0.0f32;
        let mut block_product = 0.0f32;
        #[unroll]
        for i in 0..BLOCK {
            let at = base + (position + i * rows) * channels;
            let distance = f32::cast_from(x[at]) - center;
            let gradient = passed(distance * scale + shift, f32::cast_from(dy[at]), slope);
            block_sum += gradient;
            block_product += gradient * (distance * inverse);
        }
        sum += block_sum;
        product += block_product;
        position += BLOCK * rows;
    }
    while position < end {
        let at = base + position * channels;
        let distance = f32::cast_from(x[at]) - center;
        let gradient = passed(distance * scale + shift, f32::cast_from(dy[at]), slope);
        sum += gradient;
        product += gradient * (distance * inverse);
        position += rows;
    }
    let total = add_rows(Sums { sum, product }, lanes, rows);
    if unit < lanes && channel < channels && group < groups {
        let out = (group * chunks + part) * channels + channel;
        parts[out] = total.sum;
        parts[groups * chunks * channels + out] = total.product;
    }
}

/// The sum of dy' and of dy' xhat.
#[derive(CubeType, Clone, Copy)]
pub struct Sums {
    pub sum: f32,
    pub product: f32,
}

/// The sums of a lane's column of units, added as a tree. Every unit of the cube calls this; `rows` is a power of two.
#[cube]
fn add_rows(own: Sums, #[comptime] lanes: usize, #[comptime] rows: usize) -> Sums {
    let unit = UNIT_POS_X as usize;
    let mut sums = SharedMemory::<f32>::new(lanes * rows);
    let mut products = SharedMemory::<f32>::new(lanes * rows);
    sums[unit] = own.sum;
    products[unit] = own.product;
    sync_cube();
    let mut half = (lanes * rows / 2).runtime();
    while half >= lanes {
        if unit < half {
            let other_sum = sums[unit + half];
            let other_product = products[unit + half];
            sums[unit] += other_sum;
            products[unit] += other_product;
        }
        sync_cube();
        half /= 2;
    }
    let lane = unit % lanes;
    Sums { sum: sums[lane], product: products[lane] }
}

/// Adds the `chunks` of each group: sums [2, groups, channels] of parts [2, groups, chunks, channels].
#[cube(launch_unchecked)]
pub fn merge_gradients(
    parts: &Array<f32>,
    sums: &mut Array<f32>,
    groups: usize,
    channels: usize,
    chunks: usize,
    #[comptime] lanes: usize,
    #[comptime] rows: usize,
) {
    let unit = UNIT_POS_X as usize;
    let tiles = channels.div_ceil(lanes);
    let channel = CUBE_POS % tiles * lanes + unit % lanes;
    let group = CUBE_POS / tiles;
    let mut end = chunks;
    if channel >= channels || group >= groups {
        end = 0;
    }
    let mut sum = 0.0f32;
    let mut product = 0.0f32;
    let mut part = unit / lanes;
    while part < end {
        let at = (group * chunks + part) * channels + channel;
        sum += parts[at];
        product += parts[groups * chunks * channels + at];
        part += rows;
    }
    let total = add_rows(Sums { sum, product }, lanes, rows);
    if unit < lanes && channel < channels && group < groups {
        sums[group * channels + channel] = total.sum;
        sums[(groups + group) * channels + channel] = total.product;
    }
}

/// dbias and dweight [channels] of sums [2, groups, channels]: the groups added in order, one unit a channel.
#[cube(launch_unchecked)]
pub fn add_groups(sums: &Array<f32>, dweight: &mut Array<f32>, dbias: &mut Array<f32>, groups: usize) {
    if ABSOLUTE_POS < dbias.len() {
        let channels = dbias.len();
        let mut sum = 0.0f32;
        let mut product = 0.0f32;
        for group in 0..groups {
            sum += sums[group * channels + ABSOLUTE_POS];
            product += sums[(groups + group) * channels + ABSOLUTE_POS];
        }
        dbias[ABSOLUTE_POS] = sum;
        dweight[ABSOLUTE_POS] = product;
    }
}

/// dx = weight * inverse_sd * (dy' - sum / positions - xhat * product / positions) with sums [2, groups, channels]; `channels` and the
/// arrays count vectors.
#[cube(launch_unchecked)]
pub fn apply_gradients<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    dy: &Array<Vector<F, N>>,
    mean: &Array<Vector<f32, N>>,
    inverse_sd: &Array<Vector<f32, N>>,
    weight: &Array<Vector<f32, N>>,
    bias: &Array<Vector<f32, N>>,
    sums: &Array<Vector<f32, N>>,
    dx: &mut Array<Vector<F, N>>,
    groups: usize,
    positions: usize,
    channels: usize,
    slope: f32,
    #[comptime] has_weight: bool,
    #[comptime] has_bias: bool,
) {
    if ABSOLUTE_POS < dx.len() {
        let channel = ABSOLUTE_POS % channels;
        let statistic = ABSOLUTE_POS / channels / positions * channels + channel;
        let inverse = inverse_sd[statistic];
        let mut scale = inverse;
        if has_weight {
            scale *= weight[channel];
        }
        let distance = Vector::<f32, N>::cast_from(x[ABSOLUTE_POS]) - mean[statistic];
        let mut argument = distance * scale;
        if has_bias {
            argument += bias[channel];
        }
        let mut gradient = Vector::<f32, N>::cast_from(dy[ABSOLUTE_POS]);
        #[unroll]
        for v in 0..N::value() {
            gradient[v] = passed(argument[v], gradient[v], slope);
        }
        let share = Vector::<f32, N>::new(1.0f32 / f32::cast_from(positions));
        let shift = sums[statistic] * share;
        let steepness = sums[groups * channels + statistic] * share;
        dx[ABSOLUTE_POS] = Vector::cast_from(scale * (gradient - shift - distance * inverse * steepness));
    }
}
