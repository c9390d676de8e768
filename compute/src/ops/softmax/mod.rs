//! Softmax and argmax over channels.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::ensure_float;
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// y_c = exp(x_c - max x) / sum_k exp(x_k - max x) over the channels of each voxel of [n, c, d, h, w]: stable for logits of
/// any size. A voxel with a NaN, or with plus infinity, is NaN in every channel. As PyTorch's `softmax` over axis 1.
///
/// # Errors
/// A dtype that is not a float type; a device that fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let _span = op_span!("softmax", &[x]);
    ensure_float("softmax", x)?;
    if x.is_empty() {
        return Ok(x.clone());
    }
    let [_, channels, ..] = x.shape();
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(x.shape(), cpu::softmax(x.host_floats()?, channels))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("softmax", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let voxels = x.len() / channels;
            device.run(|client| client.softmax(x.dtype(), &input, &output, voxels, channels))?;
            Ok(y)
        }
    }
}

/// The channel of the largest value of each voxel: u8 [n, 1, d, h, w]. The lowest channel wins a tie; a NaN counts as
/// largest, the first one. As PyTorch's `argmax` over axis 1.
///
/// # Errors
/// A dtype that is not a float type; no channel, or more than 256; a device that fails.
pub fn argmax(x: &Tensor) -> Result<Tensor> {
    let _span = op_span!("argmax", &[x]);
    ensure_float("argmax", x)?;
    let [n, channels, d, h, w] = x.shape();
    if !(1..=256).contains(&channels) {
        return Err(Error::shape("argmax", "1 to 256 channels", format!("{channels} in {:?}", x.shape())));
    }
    let shape = [n, 1, d, h, w];
    match x.device() {
        Device::Cpu => Ok(Tensor::host_u8(shape, cpu::argmax(x.host_floats()?, channels))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("argmax", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, shape, crate::tensor::DType::U8)?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.argmax(x.dtype(), &input, &output, y.len(), channels))?;
            Ok(y)
        }
    }
}
