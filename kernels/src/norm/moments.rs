//! Mean and sum of squared deviations, merged pairwise. A cube holds `lanes` channels (contiguous, so loads coalesce)
//! times `rows` positions.

use cubecl::prelude::*;

/// Values a unit loads before it merges: independent loads in flight, and one division for all of them.
const BLOCK: usize = 8;

/// Count, mean and sum of squared deviations from that mean.
#[derive(CubeType, Clone, Copy)]
pub struct Moments {
    pub count: f32,
    pub mean: f32,
    pub m2: f32,
}

/// The moments of both sets together. Two empty sets stay empty.
#[cube]
pub fn merge(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    let share = b.count / max(count, 1.0);
    let delta = b.mean - a.mean;
    Moments { count, mean: a.mean + delta * share, m2: a.m2 + b.m2 + delta * delta * (a.count * share) }
}

/// The moments of a lane's column of units, merged as a tree. Every unit of the cube calls this; `rows` is a power of two.
#[cube]
fn merge_rows(own: Moments, #[comptime] lanes: usize, #[comptime] rows: usize) -> Moments {
    let unit = UNIT_POS_X as usize;
    let mut counts = SharedMemory::<f32>::new(lanes * rows);
    let mut means = SharedMemory::<f32>::new(lanes * rows);
    let mut m2s = SharedMemory::<f32>::new(lanes * rows);
    counts[unit] = own.count;
    means[unit] = own.mean;
    m2s[unit] = own.m2;
    sync_cube();
    let mut half = (lanes * rows / 2).runtime();
    while half >= lanes {
        if unit < half {
            let below = Moments { count: counts[unit], mean: means[unit], m2: m2s[unit] };
            let other = unit + half;
            let above = Moments { count: counts[other], mean: means[other], m2: m2s[other] };
            let merged = merge(below, above);
            counts[unit] = merged.count;
            means[unit] = merged.mean;
            m2s[unit] = merged.m2;
        }
        sync_cube();
        half /= 2;
    }
    let lane = unit % lanes;
    Moments { count: counts[lane], mean: means[lane], m2: m2s[lane] }
}

/// First pass: the moments of each chunk of positions of x [groups, positions, channels] into [groups, chunks, channels].
/// A cube takes one chunk of one group for one tile of channels; the tile runs fastest.
#[cube(launch_unchecked)]
pub fn partial_moments<F: Float>(
    x: &Array<F>,
    means: &mut Array<f32>,
    m2s: &mut Array<f32>,
    groups: usize,
    positions: usize,
    channels: usize,
    chunk: usize,
    #[comptime] lanes: usize,
    #[comptime] rows: usize,
) {
    let unit = UNIT_POS_X as usize;
    let tiles = channels.div_ceil(lanes);
    let chunks = positions.div_ceil(chunk);
    let channel = CUBE_POS % tiles * lanes + unit % lanes;
    let part = CUBE_POS / tiles % chunks;
    let group = CUBE_POS / tiles / chunks;
    // Units past the last channel and cubes past the last group read nothing but take part in every barrier.
    let mut end = min((part + 1) * chunk, positions);
    if channel >= channels || group >= groups {
        end = 0;
    }
    let base = group * positions * channels + channel;
    let mut position = part * chunk + unit / lanes;
    let mut count = 0.0f32;
    let mut mean = 0.0f32;
    let mut m2 = 0.0f32;
    while position + (BLOCK - 1) * rows < end {
        let mut values = Array::<f32>::new(BLOCK);
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..BLOCK {
            let value = f32::cast_from(x[base + (position + i * rows) * channels]);
            values[i] = value;
            sum += value;
        }
        let center = sum * 0.125;
        let mut spread = 0.0f32;
        #[unroll]
        for i in 0..BLOCK {
            let deviation = values[i] - center;
            spread += deviation * deviation;
        }
        let merged = merge(Moments { count, mean, m2 }, Moments { count: 8.0f32, mean: center, m2: spread });
        count = merged.count;
        mean = merged.mean;
        m2 = merged.m2;
        position += BLOCK * rows;
    }
    while position < end {
        let value = f32::cast_from(x[base + position * channels]);
        let merged = merge(Moments { count, mean, m2 }, Moments { count: 1.0f32, mean: value, m2: 0.0f32 });
        count = merged.count;
        mean = merged.mean;
        m2 = merged.m2;
        position += rows;
    }
    let total = merge_rows(Moments { count, mean, m2 }, lanes, rows);
    if unit < lanes && channel < channels && group < groups {
        let out = (group * chunks + part) * channels + channel;
        means[out] = total.mean;
        m2s[out] = total.m2;
    }
}

/// Second pass: merges the `chunks` of each group and writes, per group and channel, the mean, 1 / sqrt(biased variance +
/// eps), and the unbiased variance (0 for a single position). A chunk holds `chunk` positions, the last what is left of
/// `positions`; or, where they are `counted`, what `counts` [groups, chunks] says.
#[cube(launch_unchecked)]
pub fn merge_moments(
    counts: &Array<f32>,
    means: &Array<f32>,
    m2s: &Array<f32>,
    mean_out: &mut Array<f32>,
    inverse_sd_out: &mut Array<f32>,
    variance_out: &mut Array<f32>,
    groups: usize,
    positions: usize,
    channels: usize,
    chunk: usize,
    chunks: usize,
    eps: f32,
    #[comptime] counted: bool,
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
    let mut count = 0.0f32;
    let mut mean = 0.0f32;
    let mut m2 = 0.0f32;
    let mut part = unit / lanes;
    while part < end {
        let at = (group * chunks + part) * channels + channel;
        let held =
            if counted { counts[group * chunks + part] } else { f32::cast_from(min(chunk, positions - part * chunk)) };
        let merged = merge(Moments { count, mean, m2 }, Moments { count: held, mean: means[at], m2: m2s[at] });
        count = merged.count;
        mean = merged.mean;
        m2 = merged.m2;
        part += rows;
    }
    let total = merge_rows(Moments { count, mean, m2 }, lanes, rows);
    if unit < lanes && channel < channels && group < groups {
        let out = group * channels + channel;
        mean_out[out] = total.mean;
        inverse_sd_out[out] = 1.0f32 / (total.m2 / total.count + eps).sqrt();
        variance_out[out] = total.m2 / max(total.count - 1.0f32, 1.0f32);
    }
}
