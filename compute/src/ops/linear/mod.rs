//! Fully connected layers.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::span::op_span;
use super::{ensure_float, ensure_same_device, ensure_same_dtype, ensure_vector};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, checked_len};

/// Sizes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearProblem {
    /// Number of rows, n.
    pub rows: usize,
    /// Number of inputs, ci.
    pub inputs: usize,
    /// Number of outputs, co.
    pub outputs: usize,
}

/// y [n, co, 1, 1, 1] = x [n, ci, 1, 1, 1] times the transpose of w [co, ci, 1, 1, 1], plus the bias f32 [1, co, 1, 1, 1]
/// if there is one. As PyTorch's `linear`. Sums have a fixed order, and the result the same bits every time.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit; a dtype that is not a float type; a device that fails.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let _span = op_span!("linear", &[x, w]);
    ensure_float("linear", x)?;
    ensure_same_device("linear: weight", x, w)?;
    ensure_same_dtype("linear: weight", x, w)?;
    let ([rows, inputs, ..], [outputs, ..]) = (x.shape(), w.shape());
    for (what, t, expected) in [("x", x, [rows, inputs, 1, 1, 1]), ("weight", w, [outputs, inputs, 1, 1, 1])] {
        if t.shape() != expected {
            return Err(Error::shape(format!("linear: {what}"), format!("{expected:?}"), format!("{:?}", t.shape())));
        }
    }
    if let Some(bias) = bias {
        ensure_vector("linear: bias", x, bias, outputs)?;
    }
    let shape = [rows, outputs, 1, 1, 1];
    checked_len("linear", shape)?;
    let problem = LinearProblem { rows, inputs, outputs };
    match x.device() {
        Device::Cpu => {
            let bias = bias.map(Tensor::host_floats).transpose()?;
            Ok(Tensor::host_f32(shape, cpu::linear(x.host_floats()?, w.host_floats()?, bias, problem)))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("linear", &[x.shape(), w.shape(), shape])?;
            let y = Tensor::gpu_alloc(&device, shape, x.dtype())?;
            if y.is_empty() {
                return Ok(y);
            }
            let (input, weight, output) = (x.gpu_handle(&device)?, w.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let bias = bias.map(|b| b.gpu_handle(&device)).transpose()?;
            device.run(|client| client.linear(x.dtype(), &input, &weight, bias.as_ref(), &output, problem))?;
            Ok(y)
        }
    }
}
