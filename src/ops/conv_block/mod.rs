//! Convolution, instance norm and leaky ReLU as one operation: the block that a U-Net repeats.

mod cpu;

use super::conv3d::expect_operands;
use super::conv3d::problem::Conv3dProblem;
use super::norm::expect_parameters;
use super::{Conv3dParams, concat, conv3d, expect_vector, instance_norm, leaky_relu, timeline};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The weights of a [`conv_block`] beside its convolution's.
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

/// leaky_relu(instance_norm(conv3d(concat(xs), w, b))): what [`concat`], [`conv3d`], [`instance_norm`] and [`leaky_relu`]
/// give one after the other, within the rounding of the sums.
///
/// On the CPU the inputs are never copied together, as long as they have equally many channels and `groups` is 1; the
/// norm's statistics are gathered while the convolution's outputs are in cache (plain sums in f64), and one pass over
/// them, in place, does the rest.
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
    let operands: Vec<&Tensor> = xs.iter().copied().chain([w]).collect();
    let _span = timeline::op("conv_block", &operands);
    let Some(first) = xs.first() else {
        return Err(Error::argument("conv_block: inputs", "at least 1", 0));
    };
    if first.device() != Device::Cpu {
        // Each tensor is freed as soon as the next one exists.
        let y = if xs.len() > 1 { conv3d(&concat(xs)?, w, b, params)? } else { conv3d(first, w, b, params)? };
        let normed = instance_norm(&y, norm.weight, norm.bias, norm.eps)?;
        drop(y);
        return leaky_relu(&normed, norm.slope);
    }
    if xs.len() > 1 && !readable_together(xs, params) {
        return conv_block(&[&concat(xs)?], w, b, params, norm);
    }
    let mut shape = first.shape();
    shape[1] = shape[1].saturating_mul(xs.len());
    let problem = Conv3dProblem::new(shape, w.shape(), *params)?;
    expect_operands("conv_block", first, &[("weight", w)])?;
    if let Some(b) = b {
        expect_vector("conv_block: bias", first, b, w.shape()[0])?;
    }
    let output = problem.output_shape();
    expect_parameters("conv_block", first, output[1], [norm.weight, norm.bias], norm.eps)?;
    Ok(Tensor::host_f32(output, cpu::conv_block(&problem, xs, w, b, norm)?))
}

/// Can the convolution read these inputs where they are? They are of one shape and type, and no group of channels spans two.
fn readable_together(xs: &[&Tensor], params: &Conv3dParams) -> bool {
    let alike = |x: &&Tensor| x.shape() == xs[0].shape() && x.dtype() == xs[0].dtype() && x.device() == xs[0].device();
    params.groups == 1 && xs.iter().all(alike)
}
