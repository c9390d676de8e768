//! Element-wise activations.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::ensure_float;
use super::span::op_span;
use crate::device::Device;
use crate::error::Result;
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
