//! The gradients of max and average pooling.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::{Pool3dParams, PoolProblem};
use crate::device::Device;
use crate::error::Result;
use crate::ops::span::op_span;
use crate::ops::{ensure_float, ensure_operands, ensure_shape};
use crate::tensor::{Shape, Tensor};

/// The gradient by x of sum(dy * [`max_pool3d`](super::max_pool3d())`(x)`): dy of each window goes to its largest value, of several
/// to the first in the order of (z, y, x), of several NaN to the last, as PyTorch's. `x` [n, c, d, h, w] and `dy` [n, c, d', h', w'] are of one
/// float type.
///
/// # Errors
/// As [`max_pool3d`](super::max_pool3d()); a `dy` that is not of the output's shape or of another type or device than `x`.
pub fn max_pool3d_backward(x: &Tensor, params: &Pool3dParams, dy: &Tensor) -> Result<Tensor> {
    let _span = op_span!("max_pool3d_backward", &[x, dy]);
    ensure_operands("max_pool3d_backward", x, &[("dy", dy)])?;
    let problem = checked("max_pool3d_backward", x.shape(), params, dy)?;
    match x.device() {
        Device::Cpu => {
            let dx = cpu::max_pool_backward(x.host_floats()?, dy.host_floats()?, &problem);
            Ok(Tensor::host_f32(problem.input, dx))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            crate::ops::launch::ensure_addressable("max_pool3d_backward", &[problem.input, problem.output])?;
            let dx = Tensor::gpu_alloc(&device, problem.input, x.dtype())?;
            let (input, gradient, out) = (x.gpu_handle(&device)?, dy.gpu_handle(&device)?, dx.gpu_handle(&device)?);
            device.run(|client| client.max_pool_backward(x.dtype(), &input, &gradient, &out, &problem))?;
            Ok(dx)
        }
    }
}

/// The gradient by x of sum(dy * [`avg_pool3d`](super::avg_pool3d())`(x)`) for an x of `input_shape` [n, c, d, h, w]: every value of a
/// window gets dy divided by the size of the window, padding included. `dy` [n, c, d', h', w'] is of a float type, and dx of the same.
///
/// # Errors
/// As [`avg_pool3d`](super::avg_pool3d()); a `dy` that is not of the output's shape.
pub fn avg_pool3d_backward(input_shape: Shape, params: &Pool3dParams, dy: &Tensor) -> Result<Tensor> {
    let _span = op_span!("avg_pool3d_backward", &[dy]);
    ensure_float("avg_pool3d_backward: dy", dy)?;
    let problem = checked("avg_pool3d_backward", input_shape, params, dy)?;
    match dy.device() {
        Device::Cpu => Ok(Tensor::host_f32(problem.input, cpu::avg_pool_backward(dy.host_floats()?, &problem))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            crate::ops::launch::ensure_addressable("avg_pool3d_backward", &[problem.input, problem.output])?;
            let dx = Tensor::gpu_alloc(&device, problem.input, dy.dtype())?;
            let (gradient, out) = (dy.gpu_handle(&device)?, dx.gpu_handle(&device)?);
            device.run(|client| client.avg_pool_backward(dy.dtype(), &gradient, &out, &problem))?;
            Ok(dx)
        }
    }
}

fn checked(what: &str, input: Shape, params: &Pool3dParams, dy: &Tensor) -> Result<PoolProblem> {
    crate::tensor::checked_len(what, input)?;
    let problem = PoolProblem::new(what, input, params)?;
    ensure_shape(format!("{what}: dy"), problem.output, dy)?;
    Ok(problem)
}
