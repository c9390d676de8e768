//! The gradients of a transposed 3D convolution. A transposed convolution is the data gradient of a convolution from its output to its
//! input, so the gradient by the input is that convolution, and the gradient by the weight is its weight gradient with `dy` as the
//! input and `x` as the gradient. There are no kernels of its own.

pub mod reference;

use super::conv_problem::{Conv3dParams, Conv3dProblem, ConvTranspose3dParams, ConvTranspose3dProblem};
use super::conv3d::conv3d;
use super::conv3d_backward::{bias_gradient, weight_gradient};
use super::span::op_span;
use super::{ensure_operands, ensure_shape};
use crate::error::Result;
use crate::tensor::Tensor;

/// The gradients of a transposed convolution.
#[derive(Debug, Clone)]
pub struct ConvTranspose3dGradients {
    /// Gradient by the input, [n, ci, d, h, w].
    pub dx: Tensor,
    /// Gradient by the weight, [ci, co, kd, kh, kw].
    pub dw: Tensor,
    /// Gradient by the bias, f32 [1, co, 1, 1, 1].
    pub db: Tensor,
}

/// Gradients of sum(dy * [`conv_transpose3d`](super::conv_transpose3d())`(x, w, b)`): dx is the convolution of `dy` with `w`,
/// dw[ci, co, k] = sum over n and i of x[n, ci, i] * dy[n, co, i * stride + k - padding], db[co] = sum of dy[:, co].
///
/// `dy` [n, co, od, oh, ow] has the type of `x` and `w`, as have `dx` and `dw`. Sums are f32 in a fixed order.
///
/// # Errors
/// As [`conv_transpose3d`](super::conv_transpose3d()); a `dy` that is not of the output's shape.
pub fn conv_transpose3d_backward(
    x: &Tensor,
    w: &Tensor,
    dy: &Tensor,
    params: &ConvTranspose3dParams,
) -> Result<ConvTranspose3dGradients> {
    let _span = op_span!("conv_transpose3d_backward", &[x, w]);
    let output = ConvTranspose3dProblem::new(x.shape(), w.shape(), *params)?.output_shape();
    let what = "conv_transpose3d_backward";
    ensure_operands(what, x, &[("weight", w), ("dy", dy)])?;
    ensure_shape(format!("{what}: dy"), output, dy)?;
    // The weight [ci, co, k] is that of a convolution from co to ci channels: both have the channels summed by dx innermost.
    let ConvTranspose3dParams { stride, padding } = *params;
    let params = Conv3dParams { stride, padding, ..Conv3dParams::default() };
    let problem = Conv3dProblem::new(dy.shape(), w.shape(), params)?;
    let dx = conv3d(dy, w, None, &params)?;
    Ok(ConvTranspose3dGradients { dx, dw: weight_gradient(what, &problem, dy, x)?, db: bias_gradient(what, dy)? })
}
