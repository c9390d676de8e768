//! Stochastic gradient descent with momentum, and the norm by which gradients are clipped.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::span::op_span;
use super::{ensure_float, ensure_operands, ensure_shape};
use crate::device::Device;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::tensor::DType;
use crate::tensor::Tensor;

/// The factors of a step of gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// The learning rate.
    pub lr: f32,
    /// What remains of the buffer.
    pub momentum: f32,
    /// Whether the step looks ahead by the momentum.
    pub nesterov: bool,
    /// The share of the weights that is added to the gradient.
    pub weight_decay: f32,
}

/// A step of stochastic gradient descent: the new weights and the new momentum buffer, in this order.
///
/// With g = gradient + weight_decay * weights the buffer becomes momentum * buffer + g, and the weights lose lr * buffer, or with `nesterov`
/// lr * (g + momentum * buffer), of the new buffer. PyTorch's `SGD` without dampening, whose first step is one from a buffer of 0 (zeros
/// of the shape of the weights). All three tensors are of one shape and float type, as are the results; the operands stay as they are.
/// Arithmetic is f32.
///
/// # Errors
/// Operands of different shapes, types or devices, a type that is not a float type; a rate that is negative or not finite; a device that
/// fails.
pub fn sgd_step(
    weights: &Tensor,
    gradient: &Tensor,
    momentum_buffer: &Tensor,
    lr: f32,
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
) -> Result<(Tensor, Tensor)> {
    let _span = op_span!("sgd_step", &[weights]);
    let shape = weights.shape();
    let others = [("gradient", gradient), ("momentum buffer", momentum_buffer)];
    ensure_operands("sgd_step", weights, &others)?;
    for (name, other) in others {
        ensure_shape(format!("sgd_step: {name}"), shape, other)?;
    }
    for (name, rate) in [("lr", lr), ("momentum", momentum), ("weight decay", weight_decay)] {
        if !(rate.is_finite() && rate >= 0.0) {
            return Err(Error::argument(format!("sgd_step: {name}"), "a finite number, 0 or more", rate));
        }
    }
    let rates = Rates { lr, momentum, nesterov, weight_decay };
    match weights.device() {
        Device::Cpu => {
            let operands = [weights.host_floats()?, gradient.host_floats()?, momentum_buffer.host_floats()?];
            let [weights, buffer] = cpu::sgd_step(operands, rates);
            Ok((Tensor::host_f32(shape, weights), Tensor::host_f32(shape, buffer)))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("sgd_step", &[shape])?;
            let dtype = weights.dtype();
            let [new, buffer] = [(); 2].map(|()| Tensor::gpu_alloc(&device, shape, dtype));
            let (new, buffer) = (new?, buffer?);
            if new.is_empty() {
                return Ok((new, buffer));
            }
            let buffers = gpu::SgdHandles {
                weights: weights.gpu_handle(&device)?,
                gradient: gradient.gpu_handle(&device)?,
                buffer: momentum_buffer.gpu_handle(&device)?,
                weights_out: new.gpu_handle(&device)?,
                buffer_out: buffer.gpu_handle(&device)?,
            };
            device.run(|client| client.sgd_step(dtype, &buffers, new.len(), rates))?;
            Ok((new, buffer))
        }
    }
}

/// The sum of the squares of all elements, added up in f64 on the CPU; on a GPU in f32 over parts of a fixed size and in f64 over those, so
/// that elements above 1.8e19 give infinity there. The norm of a gradient of several tensors is the root of the sum of theirs.
///
/// # Errors
/// A type that is not a float type; a device that fails.
pub fn squared_norm(x: &Tensor) -> Result<f64> {
    let _span = op_span!("squared_norm", &[x]);
    ensure_float("squared_norm", x)?;
    match x.device() {
        Device::Cpu => Ok(cpu::squared_norm(x.host_floats()?)),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("squared_norm", &[x.shape()])?;
            if x.is_empty() {
                return Ok(0.0);
            }
            let partials = Tensor::gpu_alloc(&device, [1, 1, 1, 1, gpu::squared_parts(x.len())], DType::F32)?;
            let (input, out) = (x.gpu_handle(&device)?, partials.gpu_handle(&device)?);
            device.run(|client| client.squared_sums(x.dtype(), &input, &out, x.len()))?;
            Ok(partials.to_ndhwc()?.into_iter().map(f64::from).sum())
        }
    }
}
