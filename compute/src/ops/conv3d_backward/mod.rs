//! The gradients of a 3D convolution. The one by the input is a transposed convolution.

#[cfg(feature = "gpu")]
pub mod gpu;

use super::conv_problem::{Conv3dParams, Conv3dProblem, ConvTranspose3dProblem};
use super::conv_transpose3d::gathered;
use super::conv3d::cpu;
use super::ensure_operands;
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
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
    let problem = Conv3dProblem::new(x.shape(), w.shape(), *params)?;
    ensure_operands("conv3d_backward", x, &[("weight", w), ("dy", dy)])?;
    let output = problem.output_shape();
    if dy.shape() != output {
        return Err(Error::shape("conv3d_backward: dy", format!("{output:?}"), format!("{:?}", dy.shape())));
    }
    let dx = gathered(&ConvTranspose3dProblem::data_gradient(&problem), dy, w, None)?;
    match x.device() {
        Device::Cpu => {
            let (x, dy) = (x.host_floats()?, dy.host_floats()?);
            let dw = Tensor::host_f32(w.shape(), cpu::weight_gradient(&problem, x, dy));
            let db = Tensor::host_f32([1, output[1], 1, 1, 1], cpu::bias_gradient(dy, output[1]));
            Ok(Conv3dGradients { dx, dw, db })
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("conv3d_backward", &[x.shape(), w.shape(), output])?;
            let dw = Tensor::gpu_alloc(&device, w.shape(), w.dtype())?;
            let db = Tensor::gpu_alloc(&device, [1, output[1], 1, 1, 1], DType::F32)?;
            let (input, gradient) = (x.gpu_handle(&device)?, dy.gpu_handle(&device)?);
            let (weight, bias) = (dw.gpu_handle(&device)?, db.gpu_handle(&device)?);
            device.run(|client| {
                client.conv3d_backward_weight(x.dtype(), &input, &gradient, &weight, &problem)?;
                client.conv3d_backward_bias(x.dtype(), &gradient, &bias, &problem)
            })?;
            Ok(Conv3dGradients { dx, dw, db })
        }
    }
}
