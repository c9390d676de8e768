//! Element-wise activations.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::span::op_span;
use super::{ensure_float, ensure_operands, ensure_shape};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// y = x for x > 0, slope * x otherwise; any shape, NaN stays NaN. As PyTorch's `leaky_relu`, but for a slope of 0, which is
/// [`relu`]: minus infinity gives 0, where PyTorch's product gives NaN.
///
/// # Errors
/// A dtype that is not a float type; a device that fails.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    let _span = op_span!("leaky_relu", &[x]);
    ensure_float("leaky_relu", x)?;
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(x.shape(), cpu::leaky_relu(x.host_floats()?, slope))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("leaky_relu", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.leaky_relu(x.dtype(), &input, &output, x.len(), slope))?;
            Ok(y)
        }
    }
}

/// The gradient by x of sum(dy * [`leaky_relu`]`(x, slope)`): dy where x > 0, slope * dy otherwise, so at 0 (and at NaN) the derivative is
/// the slope, as PyTorch's. A slope of 0 too is a factor: 0 times a `dy` that is not finite is NaN, where PyTorch's `relu` gives 0. `x` and `dy` are of one shape and float type.
///
/// # Errors
/// A dtype that is not a float type; a `dy` of another shape, type or device than `x`; a slope that is not finite; a device that fails.
pub fn leaky_relu_backward(x: &Tensor, slope: f32, dy: &Tensor) -> Result<Tensor> {
    let _span = op_span!("leaky_relu_backward", &[x, dy]);
    ensure_operands("leaky_relu_backward", x, &[("dy", dy)])?;
    ensure_shape("leaky_relu_backward: dy", x.shape(), dy)?;
    if !slope.is_finite() {
        return Err(Error::argument("leaky_relu_backward: slope", "a finite number", slope));
    }
    match x.device() {
        Device::Cpu => {
            let dx = cpu::leaky_relu_backward(x.host_floats()?, slope, dy.host_floats()?);
            Ok(Tensor::host_f32(x.shape(), dx))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("leaky_relu_backward", &[x.shape()])?;
            let dx = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let (input, gradient, out) = (x.gpu_handle(&device)?, dy.gpu_handle(&device)?, dx.gpu_handle(&device)?);
            device.run(|client| client.leaky_relu_backward(x.dtype(), &input, &gradient, &out, x.len(), slope))?;
            Ok(dx)
        }
    }
}

/// y = max(x, 0); any shape, NaN stays NaN. As PyTorch's `relu`.
///
/// # Errors
/// A dtype that is not a float type; a device that fails.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    let _span = op_span!("relu", &[x]);
    ensure_float("relu", x)?;
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(x.shape(), cpu::leaky_relu(x.host_floats()?, 0.0))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("relu", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.relu(x.dtype(), &input, &output, x.len()))?;
            Ok(y)
        }
    }
}
