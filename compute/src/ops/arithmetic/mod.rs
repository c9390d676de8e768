//! Adding and scaling tensors; concatenating and splitting channels.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::span::op_span;
use super::{ensure_float, ensure_same_device, ensure_same_dtype, ensure_shape};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, checked_len};

/// y = a + b, element by element, for tensors of one shape and float type (no broadcasting).
///
/// # Errors
/// Operands of different shapes, dtypes or devices, a dtype that is not a float type; a device that fails.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let _span = op_span!("add", &[a, b]);
    ensure_alike("add", a, b)?;
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
    ensure_alike("add_leaky_relu", a, b)?;
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

/// The parts of x [n, c_1 + c_2 + ..., d, h, w] with `channels` c_1, c_2, ...: the reverse of [`concat`], and its gradient. As PyTorch's
/// `split` along axis 1.
///
/// # Errors
/// Channels whose sum is not that of x; a dtype that is not a float type; a device that fails.
pub fn split(x: &Tensor, channels: &[usize]) -> Result<Vec<Tensor>> {
    let _span = op_span!("split", &[x]);
    ensure_float("split", x)?;
    let [n, total, d, h, w] = x.shape();
    let sum = channels.iter().fold(0, |sum: usize, c| sum.saturating_add(*c));
    if sum != total {
        return Err(Error::argument("split: channels", format!("the {total} of shape {:?}", x.shape()), sum));
    }
    let mut first = 0;
    let mut parts = Vec::with_capacity(channels.len());
    for &own in channels {
        let shape = [n, own, d, h, w];
        parts.push(match x.device() {
            Device::Cpu => Tensor::host_f32(shape, cpu::take_channels(x.host_floats()?, total, first, own)),
            #[cfg(feature = "gpu")]
            Device::Gpu(device) => {
                super::launch::ensure_addressable("split", &[x.shape()])?;
                let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
                if !y.is_empty() {
                    let slot = gpu::ChannelSlot { positions: n * d * h * w, channels: own, first, total };
                    let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
                    device.run(|client| client.take_channels(x.dtype(), &input, &output, slot))?;
                }
                y
            }
        });
        first += own;
    }
    Ok(parts)
}

/// y = a + factor * b, element by element, for tensors of one shape and float type: gradients that meet, for one.
///
/// # Errors
/// As [`add`]; a factor that is not finite.
pub fn add_scaled(a: &Tensor, b: &Tensor, factor: f32) -> Result<Tensor> {
    let _span = op_span!("add_scaled", &[a, b]);
    ensure_alike("add_scaled", a, b)?;
    ensure_finite("add_scaled: factor", factor)?;
    match a.device() {
        Device::Cpu => Ok(Tensor::host_f32(a.shape(), cpu::add_scaled(a.host_floats()?, b.host_floats()?, factor))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("add_scaled", &[a.shape()])?;
            let y = Tensor::gpu_alloc(&device, a.shape(), a.dtype())?;
            let (left, right, sum) = (a.gpu_handle(&device)?, b.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.add_scaled(a.dtype(), &left, &right, &sum, a.len(), factor))?;
            Ok(y)
        }
    }
}

/// y = factor * x, element by element: a gradient that is clipped, or the weight of a loss.
///
/// # Errors
/// A dtype that is not a float type; a factor that is not finite; a device that fails.
pub fn scale(x: &Tensor, factor: f32) -> Result<Tensor> {
    let _span = op_span!("scale", &[x]);
    ensure_float("scale", x)?;
    ensure_finite("scale: factor", factor)?;
    match x.device() {
        Device::Cpu => Ok(Tensor::host_f32(x.shape(), cpu::scale(x.host_floats()?, factor))),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("scale", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device.run(|client| client.scale(x.dtype(), &input, &output, x.len(), factor))?;
            Ok(y)
        }
    }
}

fn ensure_alike(op: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    ensure_float(op, a)?;
    ensure_same_device(op, a, b)?;
    ensure_same_dtype(op, a, b)?;
    ensure_shape(op, a.shape(), b)
}

fn ensure_finite(what: &str, factor: f32) -> Result<()> {
    if factor.is_finite() { Ok(()) } else { Err(Error::argument(what, "a finite number", factor)) }
}
