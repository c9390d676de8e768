//! The blocks on a GPU. Between two of them stands the raw output of a convolution with the statistics of its norm: where
//! the next convolution keeps its inputs in shared memory, norm and activation are applied on the way there, and the
//! tensor that was normalised is never in memory.

use super::{ConvBlockNorm, ConvBlockWeights};
use crate::device::gpu::{Gpu, with_client};
use crate::error::Result;
use crate::ops::conv3d::gpu::{Conv3dHandles, launch_planned};
use crate::ops::conv3d::halo::{self, HaloBuffers, HaloInput, PendingNorm};
use crate::ops::conv3d::{Algorithm, Conv3dProblem, Plan, problem::expect_indexable, tune};
use crate::ops::norm::NormProblem;
use crate::ops::norm::gpu::{Affine, Statistics, launch_apply_in_place, launch_merge, launch_statistics};
use crate::ops::{concat, expect_addressable};
use crate::tensor::{DType, Tensor};

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
    expect_indexable("conv_block", &[problem.input_shape(), problem.weight_shape(), problem.output_shape()])?;
    let plan = tune::plan(device, dtype, problem, algorithm)?;
    let input = match (&plan, input) {
        (Plan::Halo(tiling), Input::Tensors(xs)) if tiling.reads_two(&xs) => Input::Tensors(xs),
        (Plan::Halo(_), Input::Pending(pending)) => Input::Pending(pending),
        (_, Input::Tensors(xs)) => Input::Tensors(vec![joined(xs)?]),
        (_, Input::Pending(pending)) => Input::Tensors(vec![finish(device, *pending)?]),
    };
    let raw = Tensor::gpu_alloc(device, problem.output_shape(), dtype)?;
    expect_addressable("conv_block", &[&raw])?;
    let [groups, channels, d, h, w] = raw.shape();
    let norm_problem = NormProblem { groups, positions: d * h * w, channels };
    let float = || device.alloc(groups * channels * size_of::<f32>());
    let statistics = Statistics { mean: float()?, inverse_sd: float()?, variance: float()? };

    let xs = match &input {
        Input::Tensors(xs) => xs.iter().map(|x| x.gpu_handle(device)).collect::<Result<Vec<_>>>()?,
        Input::Pending(pending) => vec![pending.raw.gpu_handle(device)?],
    };
    let (w, y) = (block.w.gpu_handle(device)?, raw.gpu_handle(device)?);
    let b = block.b.map(|b| b.gpu_handle(device)).transpose()?;
    let ConvBlockNorm { weight, bias, eps, slope } = block.norm;
    with_client!(device, client => match &plan {
        Plan::Halo(tiling) => {
            let source = match (&input, xs.as_slice()) {
                (Input::Pending(pending), _) => HaloInput::Normed(&xs[0], &pending.norm),
                (Input::Tensors(tensors), [first, second]) => HaloInput::Two([first, second], tensors[0].shape()[1]),
                _ => HaloInput::Plain(&xs[0]),
            };
            let buffers = HaloBuffers { w: &w, b: b.as_ref(), y: &y };
            if let Some(parts) = halo::launch(client, dtype, source, buffers, problem, tiling, true) {
                launch_merge(client, &parts, &statistics, norm_problem, eps);
            }
        }
        _ => {
            let buffers = Conv3dHandles { x: &xs[0], w: &w, b: b.as_ref(), residual: None, y: &y };
            launch_planned(client, dtype, buffers, 1.0, problem, &plan);
            launch_statistics(client, dtype, &y, &statistics, norm_problem, eps);
        }
    });
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
    with_client!(device, client => {
        launch_apply_in_place(client, dtype, &statistics, &affine, slope, &y, problem);
    });
    Ok(raw)
}

fn joined(xs: Vec<Tensor>) -> Result<Tensor> {
    match xs.as_slice() {
        [only] => Ok(only.clone()),
        _ => concat(&xs.iter().collect::<Vec<_>>()),
    }
}
