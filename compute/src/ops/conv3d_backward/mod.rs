//! The gradients of a 3D convolution. The one by the input is a transposed convolution, which the CPU computes as a convolution with
//! flipped weights where minimal filtering is faster.

#[cfg(feature = "gpu")]
pub mod gpu;

use super::conv_problem::{Conv3dParams, Conv3dProblem, ConvTranspose3dProblem};
use super::conv_transpose3d::gathered;
use super::conv3d::cpu;
use super::span::op_span;
use super::{ensure_operands, ensure_shape};
use crate::device::Device;
use crate::error::Result;
#[cfg(feature = "gpu")]
use crate::tensor::DType;
use crate::tensor::Tensor;

/// The gradients of a convolution.
#[derive(Debug, Clone)]
pub struct Conv3dGradients {
    /// Gradient by the input, [n, ci, d, h, w].
    pub dx: Tensor,
    /// Gradient by the weight, [co, ci / groups, kd, kh, kw].
    pub dw: Tensor,
    /// Gradient by the bias, f32 [1, co, 1, 1, 1].
    pub db: Tensor,
}

/// Gradients of sum(dy * [`conv3d`](super::conv3d())`(x, w, b)`): dx is the transposed convolution of `dy`, dw[co, ci, k] = sum over n
/// and o of dy[n, co, o] * x[n, ci, o * stride + k * dilation - padding], db[co] = sum of dy[:, co].
///
/// `dy` [n, co, od, oh, ow] has the type of `x` and `w`, as have `dx` and `dw`. Sums are f32 in a fixed order.
///
/// # Errors
/// As [`conv3d`](super::conv3d()); a `dy` that is not of the output's shape.
pub fn conv3d_backward(x: &Tensor, w: &Tensor, dy: &Tensor, params: &Conv3dParams) -> Result<Conv3dGradients> {
    let _span = op_span!("conv3d_backward", &[x, w]);
    let problem = checked("conv3d_backward", x, w, dy, params)?;
    let dx = data_gradient(&problem, w, dy)?;
    Ok(Conv3dGradients {
        dx,
        dw: weight_gradient("conv3d_backward", &problem, x, dy)?,
        db: bias_gradient("conv3d_backward", dy)?,
    })
}

/// The gradients (dw, db) of [`conv3d_backward`] without the one by the input, which the first layer of a network does not need. The
/// values of `w` are not read.
///
/// # Errors
/// As [`conv3d_backward`].
pub fn conv3d_backward_weights(x: &Tensor, w: &Tensor, dy: &Tensor, params: &Conv3dParams) -> Result<(Tensor, Tensor)> {
    let _span = op_span!("conv3d_backward_weights", &[x, w]);
    let what = "conv3d_backward_weights";
    let problem = checked(what, x, w, dy, params)?;
    Ok((weight_gradient(what, &problem, x, dy)?, bias_gradient(what, dy)?))
}

/// The gradient by the input; operands are validated.
fn data_gradient(problem: &Conv3dProblem, w: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let _span = op_span!("data_gradient", &[dy, w]);
    if dy.device() == Device::Cpu
        && let Some(dx) = cpu::data_gradient(problem, dy.host_floats()?, w.host_floats()?)
    {
        return Ok(Tensor::host_f32(problem.input_shape(), dx));
    }
    gathered(&ConvTranspose3dProblem::data_gradient(problem), dy, w, None)
}

fn checked(what: &str, x: &Tensor, w: &Tensor, dy: &Tensor, params: &Conv3dParams) -> Result<Conv3dProblem> {
    let problem = Conv3dProblem::new(x.shape(), w.shape(), *params)?;
    ensure_operands(what, x, &[("weight", w), ("dy", dy)])?;
    ensure_shape(format!("{what}: dy"), problem.output_shape(), dy)?;
    Ok(problem)
}

/// The gradient by the weight of a convolution of `x` whose output has the gradient `dy`; operands are validated.
pub(in crate::ops) fn weight_gradient(what: &str, problem: &Conv3dProblem, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let _span = op_span!("weight_gradient", &[x, dy]);
    #[cfg(not(feature = "gpu"))]
    let _ = what;
    let shape = problem.weight_shape();
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(shape, cpu::weight_gradient(problem, x.host_floats()?, dy.host_floats()?))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable(what, &[x.shape(), shape, dy.shape()])?;
            let dw = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            let (input, gradient) = (x.gpu_handle(&device)?, dy.gpu_handle(&device)?);
            let weight = dw.gpu_handle(&device)?;
            device.run(|client| client.conv3d_backward_weight(x.dtype(), &input, &gradient, &weight, problem))?;
            Ok(dw)
        }
    }
}

/// The sum of `dy` over all but the channels, f32 [1, c, 1, 1, 1]: the gradient by the bias of any convolution.
pub(in crate::ops) fn bias_gradient(what: &str, dy: &Tensor) -> Result<Tensor> {
    let [_, channels, ..] = dy.shape();
    #[cfg(not(feature = "gpu"))]
    let _ = what;
    let vector = [1, channels, 1, 1, 1];
    match dy.device() {
        Device::Cpu => Ok(Tensor::host_f32(vector, cpu::bias_gradient(dy.host_floats()?, channels))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable(what, &[dy.shape()])?;
            let db = Tensor::gpu_alloc(&device, vector, DType::F32)?;
            let (gradient, bias) = (dy.gpu_handle(&device)?, db.gpu_handle(&device)?);
            device.run(|client| client.conv3d_backward_bias(dy.dtype(), &gradient, &bias, dy.shape()))?;
            Ok(db)
        }
    }
}
