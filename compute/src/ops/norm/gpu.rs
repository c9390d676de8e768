//! Launching the norms on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::norm;

use super::NormProblem;
use crate::ops::launch::{BLOCK, array, cube_grid, grid, vector_width, with_float};
use crate::tensor::DType;

/// Channels of a cube in the pass over x: 128 contiguous bytes of f32.
const LANES: usize = 32;
/// Channels of a cube in the merging pass, which has few positions to share out: 32 contiguous bytes.
const MERGE_LANES: usize = 8;
/// Positions a unit reads at least, so that the merging stays small beside the reading.
const POSITIONS_PER_UNIT: usize = 32;
/// Cubes of the pass over x: enough to fill a large GPU several times over.
const MOST_CUBES: usize = 4096;
/// Chunks of a group: what one cube can merge quickly.
const MOST_CHUNKS: usize = 512;

/// Per group and channel [groups, channels] f32, written by [`launch_statistics`].
#[derive(Debug, Clone)]
pub struct Statistics {
    /// Mean.
    pub mean: Handle,
    /// 1 / sqrt(biased variance + eps).
    pub inverse_sd: Handle,
    /// Unbiased variance; 0 for a single position.
    pub variance: Handle,
}

/// Optional scale and shift [channels] f32.
#[derive(Debug, Clone, Default)]
pub struct Affine {
    /// Multiplies the normalised value.
    pub weight: Option<Handle>,
    /// Is added last.
    pub bias: Option<Handle>,
}

/// Moments of parts of the groups, [groups, `each`, channels] f32, to be merged in order.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Positions of a part, f32 [groups, `each`]; without it parts are equally large, but for the last.
    pub counts: Option<Handle>,
    /// Mean.
    pub means: Handle,
    /// Sum of squared deviations from the mean.
    pub m2s: Handle,
    /// Parts of a group.
    pub each: usize,
}

/// Positions of a chunk. Depends on the problem alone, so the order of every sum does too.
fn chunk_size(problem: NormProblem, lanes: usize) -> usize {
    let rows = BLOCK as usize / lanes;
    let columns = problem.groups.saturating_mul(problem.channels.div_ceil(lanes)).max(1);
    let most = (MOST_CUBES / columns).clamp(1, MOST_CHUNKS);
    let chunks = problem.positions.div_ceil(rows * POSITIONS_PER_UNIT).clamp(1, most);
    problem.positions.div_ceil(chunks).max(1)
}

/// Mean, inverse standard deviation and unbiased variance of x [groups, positions, channels] of `dtype` (a float type).
/// No axis may be zero; x has fewer than 2^32 elements.
pub fn launch_statistics<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    out: &Statistics,
    problem: NormProblem,
    eps: f32,
) {
    let NormProblem { groups, positions, channels } = problem;
    let len = groups * positions * channels;
    let lanes = channels.next_power_of_two().min(LANES);
    let chunk = chunk_size(problem, lanes);
    let chunks = positions.div_ceil(chunk);
    let parts = groups * chunks * channels;
    let [means, m2s] = [(); 2].map(|()| client.empty(parts * size_of::<f32>()));

    let count = cube_grid(groups * chunks * channels.div_ceil(lanes));
    // SAFETY: units load x only for a channel, position and group below their counts, whose product is its length, and
    // store only for a channel, chunk and group below theirs.
    with_float!(dtype, F => unsafe {
        norm::partial_moments::launch_unchecked::<F, R>(
            client, count, CubeDim::new_1d(BLOCK), array(x, len), array(&means, parts), array(&m2s, parts),
            groups, positions, channels, chunk, lanes, BLOCK as usize / lanes,
        )
    });
    launch_merge(client, &Parts { counts: None, means, m2s, each: chunks }, out, problem, eps);
}

/// The statistics of [groups, positions, channels] from the moments of its parts.
pub fn launch_merge<R: Runtime>(
    client: &ComputeClient<R>,
    parts: &Parts,
    out: &Statistics,
    problem: NormProblem,
    eps: f32,
) {
    let NormProblem { groups, positions, channels } = problem;
    let (len, statistics) = (groups * parts.each * channels, groups * channels);
    // Thousands of parts (the bricks of a convolution) want all units of a cube on one channel.
    let lanes = if parts.each > MOST_CHUNKS { 1 } else { channels.next_power_of_two().min(MERGE_LANES) };
    let count = cube_grid(groups * channels.div_ceil(lanes));
    // Without counts their array is not read; any buffer stands in for it.
    let (counts, counts_len) = parts.counts.as_ref().map_or((&parts.means, len), |c| (c, groups * parts.each));
    // SAFETY: units load parts only for a channel, part and group below their counts, whose product is their length, and
    // store only for a channel and group below theirs.
    unsafe {
        norm::merge_moments::launch_unchecked::<R>(
            client,
            count,
            CubeDim::new_1d(BLOCK),
            array(counts, counts_len),
            array(&parts.means, len),
            array(&parts.m2s, len),
            array(&out.mean, statistics),
            array(&out.inverse_sd, statistics),
            array(&out.variance, statistics),
            groups,
            positions,
            channels,
            positions.div_ceil(parts.each),
            parts.each,
            eps,
            parts.counts.is_some(),
            lanes,
            BLOCK as usize / lanes,
        );
    }
}

/// out = 1 / sqrt(variance + eps) over `channels` f32 values.
pub fn launch_inverse_sd<R: Runtime>(
    client: &ComputeClient<R>,
    variance: &Handle,
    out: &Handle,
    channels: usize,
    eps: f32,
) {
    let (count, dim) = grid(channels);
    // SAFETY: each unit touches the element of its own position, and only below the length both buffers hold.
    unsafe {
        let (variance, out) = (array(variance, channels), array(out, channels));
        norm::inverse_sd::launch_unchecked::<R>(client, count, dim, variance, out, eps);
    }
}

/// y = (x - mean) * inverse_sd * weight + bias over x [groups, positions, channels] of `dtype` (a float type), with mean
/// and inverse_sd [groups, channels]. No axis may be zero; x has fewer than 2^32 elements.
pub fn launch_apply<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    mean: &Handle,
    inverse_sd: &Handle,
    affine: &Affine,
    y: &Handle,
    problem: NormProblem,
) {
    let NormProblem { groups, positions, channels } = problem;
    let len = groups * positions * channels;
    // The f32 parameters are loaded by the same vectors as x, so their width sets the limit.
    let width = vector_width(client, DType::F32, channels);
    let (count, dim) = grid(len / width);
    // A parameter that is absent is not read; any buffer stands in for it.
    let (weight, weights) = affine.weight.as_ref().map_or((mean, groups * channels), |w| (w, channels));
    let (bias, biases) = affine.bias.as_ref().map_or((mean, groups * channels), |b| (b, channels));
    // SAFETY: a unit whose vector lies below the length that x and y hold reads the parameters of its channel and group,
    // which are below their counts.
    with_float!(dtype, F => unsafe {
        norm::apply_statistics::launch_unchecked::<F, R>(
            client, count, dim, width, array(x, len), array(mean, groups * channels),
            array(inverse_sd, groups * channels), array(weight, weights), array(bias, biases), array(y, len),
            positions, channels / width, 1.0, affine.weight.is_some(), affine.bias.is_some(),
        )
    });
}

/// y = leaky_relu((y - mean) * inverse_sd * weight + bias, slope) over y as [`launch_apply`]'s, which nothing else reads.
pub fn launch_apply_in_place<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    statistics: &Statistics,
    affine: &Affine,
    slope: f32,
    y: &Handle,
    problem: NormProblem,
) {
    let NormProblem { groups, positions, channels } = problem;
    let len = groups * positions * channels;
    let width = vector_width(client, DType::F32, channels);
    let (count, dim) = grid(len / width);
    let Statistics { mean, inverse_sd, .. } = statistics;
    let (weight, weights) = affine.weight.as_ref().map_or((mean, groups * channels), |w| (w, channels));
    let (bias, biases) = affine.bias.as_ref().map_or((mean, groups * channels), |b| (b, channels));
    // SAFETY: as for `launch_apply`; a unit reads and writes its own vector alone.
    with_float!(dtype, F => unsafe {
        norm::apply_in_place::launch_unchecked::<F, R>(
            client, count, dim, width, array(mean, groups * channels), array(inverse_sd, groups * channels),
            array(weight, weights), array(bias, biases), array(y, len), positions, channels / width, slope,
            affine.weight.is_some(), affine.bias.is_some(),
        )
    });
}
