//! The blocks on a GPU. Between two of them stands the raw output of a convolution with the statistics of its norm: where
//! the next convolution keeps its inputs in shared memory, norm and activation are applied on the way there, and the
//! tensor that was normalised is never in memory.

use cubecl::prelude::*;

use super::{ConvBlockNorm, ConvBlockWeights};
use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::concat;
use crate::ops::conv_plan::{Conv3dAlgorithm as Algorithm, Conv3dKernel, Conv3dPlan, DeviceCaps, plan};
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::conv3d::gpu::{Conv3dHandles, chosen_plan, launch_planned};
use crate::ops::conv3d::halo_launch::{self, After};
use crate::ops::launch::{ensure_addressable, launches};
use crate::ops::norm::NormProblem;
use crate::ops::norm::gpu::{Affine, Statistics, launch_merge, launch_statistics};
use crate::tensor::{DType, Tensor};

pub use crate::ops::conv3d::halo_launch::{HaloBuffers, HaloInput, PendingNorm};

launches! {
    pub(crate) trait ConvBlockLaunches {
        fn conv_block = launch_planned_block(
            dtype: DType, input: HaloInput<'_>, buffers: HaloBuffers<'_>, statistics: &Statistics, eps: f32,
            problem: &Conv3dProblem, plan: &Conv3dPlan,
        ) -> Result<()>;
    }
}

/// The convolution of a block over buffers of `dtype` (a float type), and the statistics of the instance norm behind it.
/// That norm and the activation are left for who reads y: the next block, as [`HaloInput::Normed`], or
/// [`launch_apply_in_place`](crate::ops::norm::gpu::launch_apply_in_place). By `algorithm`, or by the one that should be
/// fastest; only [`Algorithm::Halo`] reads an input other than [`HaloInput::Plain`].
///
/// # Errors
/// A problem that the algorithm cannot do; an input that it cannot read; a dtype that is not a float type; a buffer that is
/// too short.
pub fn launch_conv_block<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    input: HaloInput<'_>,
    buffers: HaloBuffers<'_>,
    statistics: &Statistics,
    eps: f32,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<()> {
    let plan = plan(problem, &DeviceCaps::of_client(client, dtype, false), algorithm)?;
    launch_planned_block(client, dtype, input, buffers, statistics, eps, problem, &plan)
}

fn launch_planned_block<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    input: HaloInput<'_>,
    buffers: HaloBuffers<'_>,
    statistics: &Statistics,
    eps: f32,
    problem: &Conv3dProblem,
    plan: &Conv3dPlan,
) -> Result<()> {
    let [groups, channels, d, h, w] = problem.output_shape();
    let norm = NormProblem { groups, positions: d * h * w, channels };
    let HaloBuffers { w, b, y } = buffers;
    match (&plan.kernel, input) {
        (Conv3dKernel::Halo(tile), _) => {
            match halo_launch::launch(client, dtype, input, buffers, problem, plan, tile, After::Moments)? {
                Some(parts) => launch_merge(client, &parts, statistics, norm, eps),
                None => Ok(()),
            }
        }
        (_, HaloInput::Plain(x)) => {
            launch_planned(client, dtype, Conv3dHandles { x, w, b, residual: None, y }, 1.0, problem, plan)?;
            launch_statistics(client, dtype, y, statistics, norm, eps)
        }
        _ => {
            Err(Error::argument(format!("conv_block by {plan}: input"), "one tensor without a pending norm", "another"))
        }
    }
}

/// What a block reads.
enum Input {
    /// Tensors whose channels follow one another.
    Tensors(Vec<Tensor>),
    /// The block before.
    Pending(Box<Pending>),
}

/// A convolution's output that waits for its norm and activation. Nothing else holds it.
struct Pending {
    raw: Tensor,
    norm: PendingNorm,
}

/// `problems` are the blocks' convolutions, the first of all `xs` as one; operands are validated. By `algorithm` where it
/// is given.
pub(super) fn conv_blocks(
    device: &Gpu,
    xs: Vec<Tensor>,
    blocks: &[ConvBlockWeights<'_>],
    problems: &[Conv3dProblem],
    algorithm: Option<Algorithm>,
) -> Result<Tensor> {
    let mut input = Input::Tensors(xs);
    for (block, problem) in blocks.iter().zip(problems) {
        input = Input::Pending(Box::new(convolve(device, input, block, problem, algorithm)?));
    }
    match input {
        Input::Tensors(xs) => joined(xs),
        Input::Pending(pending) => finish(device, *pending),
    }
}

fn convolve(
    device: &Gpu,
    input: Input,
    block: &ConvBlockWeights<'_>,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<Pending> {
    let dtype = block.w.dtype();
    ensure_addressable("conv_block", &[problem.input_shape(), problem.weight_shape(), problem.output_shape()])?;
    let chosen = chosen_plan(device, dtype, problem, algorithm)?;
    let input = match (&chosen.kernel, input) {
        (Conv3dKernel::Halo(tile), Input::Tensors(xs)) if tile.reads_two(&xs) => Input::Tensors(xs),
        (Conv3dKernel::Halo(_), Input::Pending(pending)) => Input::Pending(pending),
        (_, Input::Tensors(xs)) => Input::Tensors(vec![joined(xs)?]),
        (_, Input::Pending(pending)) => Input::Tensors(vec![finish(device, *pending)?]),
    };
    let raw = Tensor::gpu_alloc(device, problem.output_shape(), dtype)?;
    let [groups, channels, ..] = raw.shape();
    let float = || device.alloc(groups * channels * size_of::<f32>());
    let statistics = Statistics { mean: float()?, inverse_sd: float()?, variance: float()? };

    let xs = match &input {
        Input::Tensors(xs) => xs.iter().map(|x| x.gpu_handle(device)).collect::<Result<Vec<_>>>()?,
        Input::Pending(pending) => vec![pending.raw.gpu_handle(device)?],
    };
    let (w, y) = (block.w.gpu_handle(device)?, raw.gpu_handle(device)?);
    let b = block.b.map(|b| b.gpu_handle(device)).transpose()?;
    let ConvBlockNorm { weight, bias, eps, slope } = block.norm;
    let source = match (&input, xs.as_slice()) {
        (Input::Pending(pending), _) => HaloInput::Normed(&xs[0], &pending.norm),
        (Input::Tensors(tensors), [first, second]) => HaloInput::Two([first, second], tensors[0].shape()[1]),
        _ => HaloInput::Plain(&xs[0]),
    };
    let buffers = HaloBuffers { w: &w, b: b.as_ref(), y: &y };
    device.run(|client| client.conv_block(dtype, source, buffers, &statistics, eps, problem, &chosen))?;
    let affine = Affine {
        weight: weight.map(|w| w.gpu_handle(device)).transpose()?,
        bias: bias.map(|b| b.gpu_handle(device)).transpose()?,
    };
    Ok(Pending { raw, norm: PendingNorm { statistics, affine, slope } })
}

/// Norm and activation, in place: only `pending` knows the tensor.
fn finish(device: &Gpu, pending: Pending) -> Result<Tensor> {
    let Pending { raw, norm: PendingNorm { statistics, affine, slope } } = pending;
    let [groups, channels, d, h, w] = raw.shape();
    let problem = NormProblem { groups, positions: d * h * w, channels };
    let y = raw.gpu_handle(device)?;
    let dtype: DType = raw.dtype();
    device.run(|client| client.norm_apply_in_place(dtype, &statistics, &affine, slope, &y, problem))?;
    Ok(raw)
}

fn joined(xs: Vec<Tensor>) -> Result<Tensor> {
    match xs.as_slice() {
        [only] => Ok(only.clone()),
        _ => concat(&xs.iter().collect::<Vec<_>>()),
    }
}
