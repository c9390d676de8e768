//! Convolution, instance norm and leaky ReLU as one operation, and a row of them: what a U-Net repeats.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;

use super::conv_problem::Conv3dProblem;
use super::norm::ensure_parameters;
use super::span::op_span;
use super::{Conv3dParams, concat, ensure_operands, ensure_vector};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// The norm and activation of a [`conv_block`].
#[derive(Debug, Clone, Copy)]
pub struct ConvBlockNorm<'a> {
    /// f32 [1, co, 1, 1, 1]; 1 where absent.
    pub weight: Option<&'a Tensor>,
    /// f32 [1, co, 1, 1, 1]; 0 where absent.
    pub bias: Option<&'a Tensor>,
    /// Added to the variance.
    pub eps: f32,
    /// Slope of the leaky ReLU below 0.
    pub slope: f32,
}

/// All that a [`conv_block`] needs beside its input.
#[derive(Debug, Clone, Copy)]
pub struct ConvBlockWeights<'a> {
    /// [co, ci / groups, kd, kh, kw].
    pub w: &'a Tensor,
    /// f32 [1, co, 1, 1, 1].
    pub b: Option<&'a Tensor>,
    /// Of the convolution.
    pub params: Conv3dParams,
    /// Behind it.
    pub norm: ConvBlockNorm<'a>,
}

/// leaky_relu(instance_norm(conv3d(concat(xs), w, b))): what [`concat`], [`conv3d`](super::conv3d),
/// [`instance_norm`](super::instance_norm) and [`leaky_relu`](super::leaky_relu) give one after the other, within the
/// rounding of the sums.
///
/// On the CPU the inputs are never copied together, as long as they have equally many channels and `groups` is 1; the
/// norm's statistics are gathered while the convolution's outputs are in cache (plain sums in f64), and one pass over
/// them, in place, does the rest. On a GPU it is likewise where the convolution keeps its inputs in shared memory (stride 1, on matrix
/// instructions; statistics by merged moments).
///
/// `xs` [n, c_i, d, h, w] each; `w` [co, (c_1 + c_2 + ...) / groups, kd, kh, kw]; `b` f32 [1, co, 1, 1, 1].
///
/// # Errors
/// As the four operations.
pub fn conv_block(
    xs: &[&Tensor],
    w: &Tensor,
    b: Option<&Tensor>,
    params: &Conv3dParams,
    norm: &ConvBlockNorm<'_>,
) -> Result<Tensor> {
    let xs = xs.iter().map(|&x| x.clone()).collect();
    conv_blocks(xs, &[ConvBlockWeights { w, b, params: *params, norm: *norm }])
}

/// Several [`conv_block`]s in a row, the first over the channels of all `xs`, which are freed as soon as they are read. On
/// a GPU with matrix instructions a block applies the norm and activation of the one before while it reads its output.
///
/// # Errors
/// As [`conv_block`]; no input; no block.
pub fn conv_blocks(xs: Vec<Tensor>, blocks: &[ConvBlockWeights<'_>]) -> Result<Tensor> {
    let operands: Vec<&Tensor> = xs.iter().chain(blocks.iter().map(|block| block.w)).collect();
    let _span = op_span!("conv_blocks", &operands);
    let problems = checked(&xs, blocks)?;
    match xs[0].device() {
        Device::Cpu => on_cpu(xs, blocks, &problems),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => gpu::conv_blocks(&device, xs, blocks, &problems, None),
    }
}

/// [`conv_blocks`] by one algorithm of convolution, whatever the model of their costs says. For tests and measurements.
///
/// # Errors
/// As [`conv_blocks`]; tensors on the CPU, which chooses by itself; a problem that the algorithm cannot do.
#[cfg(feature = "gpu")]
pub fn conv_blocks_by(
    algorithm: super::Conv3dAlgorithm,
    xs: Vec<Tensor>,
    blocks: &[ConvBlockWeights<'_>],
) -> Result<Tensor> {
    let problems = checked(&xs, blocks)?;
    match xs[0].device() {
        Device::Cpu => Err(Error::argument("conv_blocks by an algorithm: device", "a GPU", "cpu")),
        Device::Gpu(device) => gpu::conv_blocks(&device, xs, blocks, &problems, Some(algorithm)),
    }
}

/// The convolutions of the blocks, each over the output of the one before.
fn checked(xs: &[Tensor], blocks: &[ConvBlockWeights<'_>]) -> Result<Vec<Conv3dProblem>> {
    let (Some(first), false) = (xs.first(), blocks.is_empty()) else {
        let what = if xs.is_empty() { "conv_block: inputs" } else { "conv_block: blocks" };
        return Err(Error::argument(what, "at least 1", 0));
    };
    let mut shape = joined_shape(xs)?;
    let mut problems = Vec::with_capacity(blocks.len());
    for block in blocks {
        let problem = Conv3dProblem::new(shape, block.w.shape(), block.params)?;
        ensure_operands("conv_block", first, &[("weight", block.w)])?;
        shape = problem.output_shape();
        if let Some(b) = block.b {
            ensure_vector("conv_block: bias", first, b, shape[1])?;
        }
        let ConvBlockNorm { weight, bias, eps, .. } = block.norm;
        ensure_parameters("conv_block", first, shape[1], [weight, bias], eps)?;
        problems.push(problem);
    }
    Ok(problems)
}

/// The shape of the inputs as one.
fn joined_shape(xs: &[Tensor]) -> Result<Shape> {
    let mut shape = xs[0].shape();
    for x in &xs[1..] {
        ensure_operands("conv_block", &xs[0], &[("input", x)])?;
        let [n, _, d, h, w] = x.shape();
        if [n, d, h, w] != [shape[0], shape[2], shape[3], shape[4]] {
            let found = format!("{:?}", x.shape());
            return Err(Error::shape("conv_block: inputs", format!("{:?} but for channels", xs[0].shape()), found));
        }
        shape[1] = shape[1].saturating_add(x.shape()[1]);
    }
    Ok(shape)
}

fn on_cpu(mut xs: Vec<Tensor>, blocks: &[ConvBlockWeights<'_>], problems: &[Conv3dProblem]) -> Result<Tensor> {
    for (block, problem) in blocks.iter().zip(problems) {
        if xs.len() > 1 && !readable_together(&xs, &block.params) {
            xs = vec![concat(&xs.iter().collect::<Vec<_>>())?];
        }
        let inputs: Vec<&Tensor> = xs.iter().collect();
        let y = cpu::conv_block(problem, &inputs, block.w, block.b, &block.norm)?;
        xs = vec![Tensor::host_f32(problem.output_shape(), y)];
    }
    Ok(xs.swap_remove(0))
}

/// Can the convolution read these inputs where they are? They are of one shape and type, and no group of channels spans two.
fn readable_together(xs: &[Tensor], params: &Conv3dParams) -> bool {
    let alike = |x: &Tensor| x.shape() == xs[0].shape() && x.dtype() == xs[0].dtype() && x.device() == xs[0].device();
    params.groups == 1 && xs.iter().all(alike)
}
