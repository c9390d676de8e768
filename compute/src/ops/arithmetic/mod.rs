//! Adding tensors and concatenating channels.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::span::op_span;
use super::{ensure_float, ensure_same_device, ensure_same_dtype};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, checked_len};

/// y = a + b, element by element, for tensors of one shape and float type (no broadcasting).
///
/// # Errors
/// Operands of different shapes, dtypes or devices, a dtype that is not a float type; a device that fails.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let _span = op_span!("add", &[a, b]);
    ensure_float("add", a)?;
    ensure_same_device("add", a, b)?;
    ensure_same_dtype("add", a, b)?;
    if a.shape() != b.shape() {
        return Err(Error::shape("add", format!("{:?}", a.shape()), format!("{:?}", b.shape())));
    }
    match a.device() {
        Device::Cpu => Ok(Tensor::host_f32(a.shape(), cpu::add(a.host_floats()?, b.host_floats()?))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("add", &[a.shape()])?;
            let y = Tensor::gpu_alloc(&device, a.shape(), a.dtype())?;
            let (left, right, sum) = (a.gpu_handle(&device)?, b.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.add(a.dtype(), &left, &right, &sum, a.len()))?;
            Ok(y)
        }
    }
}

/// y = leaky_relu(a + b, slope), element by element, for tensors of one shape and float type: how a residual block ends. The
/// sum is rounded to the tensors' type once, after the activation. Slope 1 is [`add`], slope 0 ends in a ReLU.
///
/// # Errors
/// As [`add`].
pub fn add_leaky_relu(a: &Tensor, b: &Tensor, slope: f32) -> Result<Tensor> {
    let _span = op_span!("add_leaky_relu", &[a, b]);
    ensure_float("add_leaky_relu", a)?;
    ensure_same_device("add_leaky_relu", a, b)?;
    ensure_same_dtype("add_leaky_relu", a, b)?;
    if a.shape() != b.shape() {
        return Err(Error::shape("add_leaky_relu", format!("{:?}", a.shape()), format!("{:?}", b.shape())));
    }
    match a.device() {
        Device::Cpu => Ok(Tensor::host_f32(a.shape(), cpu::add_leaky_relu(a.host_floats()?, b.host_floats()?, slope))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("add_leaky_relu", &[a.shape()])?;
            let y = Tensor::gpu_alloc(&device, a.shape(), a.dtype())?;
            let (left, right, sum) = (a.gpu_handle(&device)?, b.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.add_leaky_relu(a.dtype(), &left, &right, &sum, a.len(), slope))?;
            Ok(y)
        }
    }
}

/// The channels of all tensors one after the other: [n, c_1 + c_2 + ..., d, h, w]. As PyTorch's `cat` along axis 1.
///
/// # Errors
/// No tensor at all; tensors that differ in another axis than c, in dtype or device; a dtype that is not a float type; a
/// device that fails.
pub fn concat(tensors: &[&Tensor]) -> Result<Tensor> {
    let _span = op_span!("concat", tensors);
    let Some(first) = tensors.first() else {
        return Err(Error::argument("concat: tensors", "at least 1", 0));
    };
    ensure_float("concat", first)?;
    let mut shape = first.shape();
    shape[1] = 0;
    for (i, t) in tensors.iter().enumerate() {
        ensure_same_device("concat", first, t)?;
        ensure_same_dtype("concat", first, t)?;
        let mut expected = first.shape();
        expected[1] = t.shape()[1];
        if t.shape() != expected {
            return Err(Error::shape(
                format!("concat: tensor {i}"),
                format!("{expected:?}"),
                format!("{:?}", t.shape()),
            ));
        }
        shape[1] = shape[1].saturating_add(expected[1]);
    }
    checked_len("concat", shape)?;
    let [n, total, d, h, w] = shape;
    let positions = n * d * h * w;
    match first.device() {
        Device::Cpu => {
            let parts = tensors.iter().map(|t| Ok((t.host_floats()?, t.shape()[1]))).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::host_f32(shape, cpu::concat(&parts, positions, total)))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("concat", &[shape])?;
            let y = Tensor::gpu_alloc(&device, shape, first.dtype())?;
            let output = y.gpu_handle(&device)?;
            let mut slot = gpu::ChannelSlot { positions, channels: 0, first: 0, total };
            for t in tensors.iter().filter(|t| !t.is_empty()) {
                slot.channels = t.shape()[1];
                let input = t.gpu_handle(&device)?;
                device.run(|client| client.copy_channels(t.dtype(), &input, &output, slot))?;
                slot.first += slot.channels;
            }
            Ok(y)
        }
    }
}
