//! Launching the halo kernel, alone or between two instance norms.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::finish::EpilogueLaunch;
use nephron_kernels::conv3d::halo::{self, InputNormLaunch, OutputMomentsLaunch, Source};
use nephron_kernels::gemm::store::Finish;

use super::launch::{bias_or_nothing, geometry};
use crate::error::{Error, Result};
use crate::ops::conv_plan::{Conv3dPlan, HaloTile};
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::launch::{WORD, array, elements, fits, with_float};
use crate::ops::norm::gpu::{Affine, Parts, Statistics, affine_fits};
use crate::tensor::DType;

/// An instance norm and a leaky ReLU that are still to be applied to a tensor.
#[derive(Debug, Clone)]
pub struct PendingNorm {
    /// Statistics of each image and channel.
    pub statistics: Statistics,
    /// Scale and shift of each channel.
    pub affine: Affine,
    /// Slope of the leaky ReLU below 0.
    pub slope: f32,
}

/// Where a convolution's input is.
#[derive(Debug, Clone, Copy)]
pub enum HaloInput<'a> {
    /// One tensor [n, d, h, w, ci].
    Plain(&'a Handle),
    /// One tensor, and the norm and activation to be applied to it on the way.
    Normed(&'a Handle, &'a PendingNorm),
    /// Two tensors, and the number of channels in the first, a multiple of the chunk that the tile reads at a time.
    Two([&'a Handle; 2], usize),
}

/// The buffers beside the input, as in [`super::gpu::Conv3dHandles`].
#[derive(Debug, Clone, Copy)]
pub struct HaloBuffers<'a> {
    /// Weight, [co, kd, kh, kw, ci].
    pub w: &'a Handle,
    /// Bias, [co].
    pub b: Option<&'a Handle>,
    /// Output, [n, od, oh, ow, co], all of it written.
    pub y: &'a Handle,
}

/// What follows the sum and the bias.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) enum After<'a> {
    /// The moments of every tile of y, ready to be merged into the statistics of an instance norm.
    Moments,
    /// A residual of y's shape and a leaky ReLU of this slope, with the bits of a pass of its own over y: the sum is rounded to
    /// the tensors' type before it too.
    Epilogue { residual: Option<&'a Handle>, slope: f32 },
}

/// y = conv3d(input, w) + b by `plan` and its `tile`, made for this problem and device, and what is done `after` that.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub(in crate::ops) fn launch<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    input: HaloInput<'_>,
    buffers: HaloBuffers<'_>,
    problem: &Conv3dProblem,
    plan: &Conv3dPlan,
    tile: &HaloTile,
    after: After<'_>,
) -> Result<Option<Parts>> {
    let HaloBuffers { w, b, y } = buffers;
    let ([n, ci, ..], co) = (problem.input_shape(), problem.output_shape()[1]);
    let (count, dim) = plan.grid.dimensions()?;
    let chunk = tile.bricks.chunk;
    let each = tile.per_image(problem);
    let nothing = client.empty(2 * size_of::<f32>());
    let floats = |len: usize| client.empty(len * size_of::<f32>());
    let parts = matches!(after, After::Moments).then(|| Parts {
        counts: Some(floats(n * each)),
        means: floats(n * each * co),
        m2s: floats(n * each * co),
        each,
    });
    let [x_len, w_len, y_len]: [usize; 3] =
        [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| elements(&s));
    let (source, [x, second], first) = match input {
        HaloInput::Plain(x) => (Source::Plain, [x, x], ci),
        HaloInput::Normed(x, _) => (Source::Normed, [x, x], ci),
        HaloInput::Two(xs, first) => (Source::Two, xs, first),
    };
    if first == 0 || first > ci {
        return Err(Error::argument("conv3d: channels of the first input", format!("1 to {ci}"), first));
    }
    if source == Source::Two && !first.is_multiple_of(chunk) {
        let expected = format!("a multiple of {chunk}");
        return Err(Error::argument("conv3d: channels of the first input", expected, first));
    }
    let (first_len, second_len) =
        (x_len / ci * first, if source == Source::Two { x_len / ci * (ci - first) } else { x_len });
    let size = dtype.size();
    fits("conv3d", &[("x", x, first_len, size), ("second x", second, second_len, size)])?;
    fits("conv3d", &[("weight", w, w_len, size), ("y", y, y_len, size)])?;
    if let Some(b) = b {
        fits("conv3d", &[("bias", b, co, WORD)])?;
    }
    if let HaloInput::Normed(_, PendingNorm { statistics, affine, .. }) = input {
        fits("conv3d", &[&statistics.mean, &statistics.inverse_sd].map(|v| ("statistics", v, n * ci, WORD)))?;
        affine_fits("conv3d", affine, ci)?;
    }
    let (residual, slope) = match after {
        After::Moments => (None, 1.0),
        After::Epilogue { residual, slope } => (residual, slope),
    };
    if let Some(residual) = residual {
        fits("conv3d", &[("residual", residual, y_len, size)])?;
    }
    let finish = if residual.is_some() || slope != 1.0 { Finish::Rounded } else { Finish::Bias };
    let bias = bias_or_nothing(client, b);
    // SAFETY: outputs are stored below the output's extents and co; inputs are loaded from a voxel that is inside the
    // input and a channel that the tensor has, else from element 0; weights below co and ci, else from element 0; the
    // norm's parameters below the channels; the residual where an output is stored; moments below the number of tiles and
    // co. Absent buffers are not read:
    // their flags are 0, or compiled in.
    with_float!(dtype, F => unsafe {
        let vector = |handle: &Handle, len: usize| array::<R>(handle, len);
        let norm = match input {
            HaloInput::Normed(_, pending) => {
                let Statistics { mean, inverse_sd, .. } = &pending.statistics;
                let Affine { weight, bias } = &pending.affine;
                let optional = |p: &Option<Handle>| {
                    p.as_ref().map_or_else(|| vector(&nothing, 1), |handle| vector(handle, ci))
                };
                InputNormLaunch::new(
                    vector(mean, n * ci),
                    vector(inverse_sd, n * ci),
                    optional(weight),
                    optional(bias),
                    weight.is_some().into(),
                    bias.is_some().into(),
                    pending.slope,
                )
            }
            _ => {
                let [mean, sd, weight, bias] = [(); 4].map(|()| vector(&nothing, 1));
                InputNormLaunch::new(mean, sd, weight, bias, 0, 0, 1.0)
            }
        };
        let moments = match &parts {
            Some(Parts { counts: Some(counts), means, m2s, .. }) => OutputMomentsLaunch::new(
                vector(counts, n * each),
                vector(means, n * each * co),
                vector(m2s, n * each * co),
            ),
            // Each its own: a kernel's outputs may not share memory.
            _ => {
                let [counts, means, m2s] = [(); 3].map(|()| vector(&floats(1), 1));
                OutputMomentsLaunch::new(counts, means, m2s)
            }
        };
        halo::conv3d_halo::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            tile.width,
            tile.store,
            array(x, first_len),
            array(second, second_len),
            array(w, w_len),
            array(&bias, if b.is_some() { co } else { 1 }),
            residual.map_or_else(|| vector(&nothing, tile.store), |residual| vector(residual, y_len)),
            norm,
            array(y, y_len),
            moments,
            geometry(problem),
            first,
            n,
            EpilogueLaunch::new(b.is_some().into(), residual.is_some().into(), slope),
            tile.bricks,
            tile.planes,
            tile.step,
            source,
            parts.is_some(),
            finish,
        )
    });
    Ok(parts)
}

#[cfg(test)]
#[path = "halo_launch_tests.rs"]
mod tests;
