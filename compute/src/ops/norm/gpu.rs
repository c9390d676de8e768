//! Launching the norms on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::norm;

use super::NormProblem;
use crate::error::{Error, Result};
use crate::ops::launch::{BLOCK, WORD, array, cube_grid, elements, fits, grid, launches, vector_width, with_float};
use crate::tensor::DType;

/// Channels of a cube in the pass over x: 128 contiguous bytes of f32.
pub(super) const LANES: usize = 32;
/// Channels of a cube in the merging pass, which has few positions to share out: 32 contiguous bytes.
pub(super) const MERGE_LANES: usize = 8;
/// Positions a unit reads at least, so that the merging stays small beside the reading.
const POSITIONS_PER_UNIT: usize = 32;
/// Cubes of the pass over x: enough to fill a large GPU several times over.
const MAX_CUBES: usize = 4096;
/// Chunks of a group: what one cube can merge quickly.
const MAX_CHUNKS: usize = 512;

launches! {
    pub(crate) trait NormLaunches {
        fn norm_statistics = launch_statistics(
            dtype: DType, x: &Handle, out: &Statistics, problem: NormProblem, eps: f32,
        ) -> Result<()>;
        fn inverse_sd = launch_inverse_sd(variance: &Handle, out: &Handle, channels: usize, eps: f32) -> Result<()>;
        fn norm_apply = launch_apply(
            dtype: DType, x: &Handle, mean: &Handle, inverse_sd: &Handle, affine: &Affine, y: &Handle,
            problem: NormProblem,
        ) -> Result<()>;
        fn norm_apply_in_place = launch_apply_in_place(
            dtype: DType, statistics: &Statistics, affine: &Affine, slope: f32, y: &Handle, problem: NormProblem,
        ) -> Result<()>;
    }
}

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

impl NormProblem {
    /// Elements of x, of which there have to be some.
    pub(super) fn elements(&self, op: &str) -> Result<usize> {
        match elements(&[self.groups, self.positions, self.channels]) {
            0 => Err(Error::argument(op, "at least 1 group, position and channel", format!("{self:?}"))),
            len => Ok(len),
        }
    }
}

/// Parameters of each channel, where they are there.
pub(in crate::ops) fn affine_fits(op: &str, affine: &Affine, channels: usize) -> Result<()> {
    for (name, parameter) in [("weight", &affine.weight), ("bias", &affine.bias)] {
        if let Some(parameter) = parameter {
            fits(op, &[(name, parameter, channels, WORD)])?;
        }
    }
    Ok(())
}

/// Positions of a chunk. Depends on the problem alone, so the order of every sum does too.
pub(super) fn chunk_size(problem: NormProblem, lanes: usize) -> usize {
    let rows = BLOCK as usize / lanes;
    let columns = problem.groups.saturating_mul(problem.channels.div_ceil(lanes)).max(1);
    let most = (MAX_CUBES / columns).clamp(1, MAX_CHUNKS);
    let chunks = problem.positions.div_ceil(rows * POSITIONS_PER_UNIT).clamp(1, most);
    problem.positions.div_ceil(chunks).max(1)
}

/// Mean, inverse standard deviation and unbiased variance of x [groups, positions, channels] of `dtype` (a float type).
///
/// # Errors
/// A dtype that is not a float type; an axis of size 0; a buffer that is too short.
pub fn launch_statistics<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    out: &Statistics,
    problem: NormProblem,
    eps: f32,
) -> Result<()> {
    let NormProblem { groups, positions, channels } = problem;
    let len = problem.elements("norm")?;
    fits("norm", &[("x", x, len, dtype.size())])?;
    let lanes = channels.next_power_of_two().min(LANES);
    let chunk = chunk_size(problem, lanes);
    let chunks = positions.div_ceil(chunk);
    let parts = groups * chunks * channels;
    let [means, m2s] = [(); 2].map(|()| client.empty(parts * size_of::<f32>()));

    let count = cube_grid(groups * chunks * channels.div_ceil(lanes))?;
    // SAFETY: units load x only for a channel, position and group below their counts, whose product is its length, and
    // store only for a channel, chunk and group below theirs.
    with_float!(dtype, F => unsafe {
        norm::partial_moments::launch_unchecked::<F, R>(
            client, count, CubeDim::new_1d(BLOCK), array(x, len), array(&means, parts), array(&m2s, parts),
            groups, positions, channels, chunk, lanes, BLOCK as usize / lanes,
        )
    });
    launch_merge(client, &Parts { counts: None, means, m2s, each: chunks }, out, problem, eps)
}

/// The statistics of [groups, positions, channels] from the moments of its parts.
///
/// # Errors
/// An axis of size 0, or no parts; a buffer that is too short.
pub fn launch_merge<R: Runtime>(
    client: &ComputeClient<R>,
    parts: &Parts,
    out: &Statistics,
    problem: NormProblem,
    eps: f32,
) -> Result<()> {
    let NormProblem { groups, positions, channels } = problem;
    problem.elements("norm")?;
    if parts.each == 0 {
        return Err(Error::argument("norm: parts of a group", "at least 1", 0));
    }
    let (len, statistics) = (elements(&[groups, parts.each, channels]), elements(&[groups, channels]));
    let read = [("means", &parts.means, len, WORD), ("m2s", &parts.m2s, len, WORD)];
    fits("norm", &read)?;
    if let Some(counts) = &parts.counts {
        fits("norm", &[("counts", counts, elements(&[groups, parts.each]), WORD)])?;
    }
    fits("norm", &[&out.mean, &out.inverse_sd, &out.variance].map(|h| ("statistics", h, statistics, WORD)))?;
    // Thousands of parts (the bricks of a convolution) want all units of a cube on one channel.
    let lanes = if parts.each > MAX_CHUNKS { 1 } else { channels.next_power_of_two().min(MERGE_LANES) };
    let count = cube_grid(groups * channels.div_ceil(lanes))?;
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
    Ok(())
}

/// out = 1 / sqrt(variance + eps) over `channels` f32 values.
///
/// # Errors
/// A buffer that is too short.
pub fn launch_inverse_sd<R: Runtime>(
    client: &ComputeClient<R>,
    variance: &Handle,
    out: &Handle,
    channels: usize,
    eps: f32,
) -> Result<()> {
    fits("batch_norm", &[("variance", variance, channels, WORD), ("inverse_sd", out, channels, WORD)])?;
    let (count, dim) = grid(channels)?;
    // SAFETY: each unit touches the element of its own position, and only below the length both buffers hold.
    unsafe {
        let (variance, out) = (array(variance, channels), array(out, channels));
        norm::inverse_sd::launch_unchecked::<R>(client, count, dim, variance, out, eps);
    }
    Ok(())
}

/// y = (x - mean) * inverse_sd * weight + bias over x [groups, positions, channels] of `dtype` (a float type), with mean
/// and inverse_sd [groups, channels].
///
/// # Errors
/// As [`launch_statistics`].
pub fn launch_apply<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    mean: &Handle,
    inverse_sd: &Handle,
    affine: &Affine,
    y: &Handle,
    problem: NormProblem,
) -> Result<()> {
    let NormProblem { groups, positions, channels } = problem;
    let (len, size) = (problem.elements("norm")?, dtype.size());
    let vectors = elements(&[groups, channels]);
    let read = [("mean", mean, vectors, WORD), ("inverse_sd", inverse_sd, vectors, WORD)];
    fits("norm", &read)?;
    fits("norm", &[("x", x, len, size), ("y", y, len, size)])?;
    affine_fits("norm", affine, channels)?;
    // The f32 parameters are loaded by the same vectors as x, so their width sets the limit.
    let width = vector_width(client, DType::F32, channels);
    let (count, dim) = grid(len / width)?;
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
    Ok(())
}

/// y = leaky_relu((y - mean) * inverse_sd * weight + bias, slope) over y as [`launch_apply`]'s, which nothing else reads.
///
/// # Errors
/// As [`launch_statistics`].
pub fn launch_apply_in_place<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    statistics: &Statistics,
    affine: &Affine,
    slope: f32,
    y: &Handle,
    problem: NormProblem,
) -> Result<()> {
    let NormProblem { groups, positions, channels } = problem;
    let len = problem.elements("norm")?;
    let vectors = [&statistics.mean, &statistics.inverse_sd];
    fits("norm", &vectors.map(|v| ("statistics", v, elements(&[groups, channels]), WORD)))?;
    fits("norm", &[("y", y, len, dtype.size())])?;
    affine_fits("norm", affine, channels)?;
    let width = vector_width(client, DType::F32, channels);
    let (count, dim) = grid(len / width)?;
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
    Ok(())
}
