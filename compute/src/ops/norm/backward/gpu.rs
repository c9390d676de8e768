//! Launching the gradients of norms on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::norm;

use super::super::NormProblem;
use super::super::gpu::{Affine, LANES, MERGE_LANES, Statistics, affine_fits, chunk_size, launch_statistics};
use crate::error::{Error, Result};
use crate::ops::launch::{
    BLOCK, MAX_ELEMENTS, WORD, array, cube_grid, elements, fits, grid, launches, vector_width, with_float,
};
use crate::tensor::DType;

launches! {
    pub(crate) trait NormBackwardLaunches {
        fn norm_backward = launch_norm_backward(
            dtype: DType, buffers: &NormBackwardHandles, affine: &Affine, problem: NormProblem, eps: f32, slope: f32,
        ) -> Result<()>;
    }
}

/// Buffers of the gradients of a norm: x, dy and dx [groups, positions, channels] of one float type, the others f32 [channels].
#[derive(Debug, Clone)]
pub struct NormBackwardHandles {
    /// Input of the norm.
    pub x: Handle,
    /// Gradient by the output of the activation.
    pub dy: Handle,
    /// Gradient by the input.
    pub dx: Handle,
    /// Gradient by the weight.
    pub dweight: Handle,
    /// Gradient by the bias.
    pub dbias: Handle,
}

/// The gradients of sum(dy * leaky_relu(norm(x), slope)) with the statistics of x, whose elements are of `dtype` (a float type).
///
/// # Errors
/// A dtype that is not a float type; an axis of size 0; a buffer that is too short.
pub fn launch_norm_backward<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: &NormBackwardHandles,
    affine: &Affine,
    problem: NormProblem,
    eps: f32,
    slope: f32,
) -> Result<()> {
    let NormProblem { groups, positions, channels } = problem;
    let NormBackwardHandles { x, dy, dx, dweight, dbias } = buffers;
    let (len, size) = (problem.elements("norm backward")?, dtype.size());
    fits("norm backward", &[("x", x, len, size), ("dy", dy, len, size), ("dx", dx, len, size)])?;
    fits("norm backward", &[("dweight", dweight, channels, WORD), ("dbias", dbias, channels, WORD)])?;
    affine_fits("norm backward", affine, channels)?;
    let vectors = elements(&[groups, channels]);
    let [mean, inverse_sd, variance] = [(); 3].map(|()| client.empty(vectors * WORD));
    let statistics = Statistics { mean, inverse_sd, variance };
    launch_statistics(client, dtype, x, &statistics, problem, eps)?;
    let Statistics { mean, inverse_sd, .. } = &statistics;
    // A parameter that is absent is not read; any buffer stands in for it.
    let (weight, weights) = affine.weight.as_ref().map_or((mean, vectors), |w| (w, channels));
    let (bias, biases) = affine.bias.as_ref().map_or((mean, vectors), |b| (b, channels));
    let (has_weight, has_bias) = (affine.weight.is_some(), affine.bias.is_some());

    let lanes = channels.next_power_of_two().min(LANES);
    let chunk = chunk_size(problem, lanes);
    let chunks = positions.div_ceil(chunk);
    let part_len = elements(&[2, groups, chunks, channels]);
    if part_len > MAX_ELEMENTS {
        let expected = format!("at most {MAX_ELEMENTS} sums of a gradient");
        return Err(Error::argument("norm backward: groups and channels", expected, part_len));
    }
    let parts = client.empty(part_len * WORD);
    let count = cube_grid(groups * chunks * channels.div_ceil(lanes))?;
    // SAFETY: units load x, dy and parameters only for a channel, position and group below their counts, whose product is the
    // length of x, and store only for a channel, chunk and group below theirs.
    with_float!(dtype, F => unsafe {
        norm::partial_gradients::launch_unchecked::<F, R>(
            client, count, CubeDim::new_1d(BLOCK), array(x, len), array(dy, len), array(mean, vectors),
            array(inverse_sd, vectors), array(weight, weights), array(bias, biases), array(&parts, part_len),
            groups, positions, channels, chunk, slope, has_weight, has_bias, lanes, BLOCK as usize / lanes,
        )
    });

    let sums = client.empty(2 * vectors * WORD);
    let lanes = channels.next_power_of_two().min(MERGE_LANES);
    let count = cube_grid(groups * channels.div_ceil(lanes))?;
    // SAFETY: units load parts only for a channel, chunk and group below their counts, and store only for a channel and group
    // below theirs; both arrays hold two of each.
    unsafe {
        norm::merge_gradients::launch_unchecked::<R>(
            client,
            count,
            CubeDim::new_1d(BLOCK),
            array(&parts, part_len),
            array(&sums, 2 * vectors),
            groups,
            channels,
            chunks,
            lanes,
            BLOCK as usize / lanes,
        );
    }
    let (count, dim) = grid(channels)?;
    // SAFETY: a unit below the number of channels reads its channel of each group and writes its element of both gradients.
    unsafe {
        let (dweight, dbias) = (array(dweight, channels), array(dbias, channels));
        norm::add_groups::launch_unchecked::<R>(client, count, dim, array(&sums, 2 * vectors), dweight, dbias, groups);
    }

    // The f32 parameters are loaded by the same vectors as x, so their width sets the limit.
    let width = vector_width(client, DType::F32, channels);
    let (count, dim) = grid(len / width)?;
    // SAFETY: a unit whose vector lies below the length that x, dy and dx hold reads the parameters of its channel and group,
    // which are below their counts.
    with_float!(dtype, F => unsafe {
        norm::apply_gradients::launch_unchecked::<F, R>(
            client, count, dim, width, array(x, len), array(dy, len), array(mean, vectors), array(inverse_sd, vectors),
            array(weight, weights), array(bias, biases), array(&sums, 2 * vectors), array(dx, len), groups, positions,
            channels / width, slope, has_weight, has_bias,
        )
    });
    Ok(())
}
