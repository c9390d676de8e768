//! Fully connected layers.

mod backward;
mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

#[cfg(feature = "gpu")]
pub use backward::gpu as backward_gpu;
pub use backward::reference as backward_reference;
pub use backward::{LinearGradients, linear_backward};

use super::span::op_span;
use super::{ensure_float, ensure_same_device, ensure_same_dtype, ensure_vector};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor, checked_len};

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

impl LinearProblem {
    /// The layer of weight `w` [co, ci, 1, 1, 1] for `x` [n, ci, 1, 1, 1]; `what` names the op in errors.
    fn checked(what: &str, x: &Tensor, w: &Tensor) -> Result<Self> {
        ensure_float(what, x)?;
        ensure_same_device(&format!("{what}: weight"), x, w)?;
        ensure_same_dtype(&format!("{what}: weight"), x, w)?;
        let ([rows, inputs, ..], [outputs, ..]) = (x.shape(), w.shape());
        for (name, t, expected) in [("x", x, [rows, inputs, 1, 1, 1]), ("weight", w, [outputs, inputs, 1, 1, 1])] {
            if t.shape() != expected {
                let [expected, found] = [expected, t.shape()].map(|shape| format!("{shape:?}"));
                return Err(Error::shape(format!("{what}: {name}"), expected, found));
            }
        }
        let problem = Self { rows, inputs, outputs };
        checked_len(what, problem.output_shape())?;
        Ok(problem)
    }

    fn output_shape(&self) -> Shape {
        [self.rows, self.outputs, 1, 1, 1]
    }
}

/// y [n, co, 1, 1, 1] = x [n, ci, 1, 1, 1] times the transpose of w [co, ci, 1, 1, 1], plus the bias f32 [1, co, 1, 1, 1]
/// if there is one. As PyTorch's `linear`. Sums have a fixed order, and the result the same bits every time.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit; a dtype that is not a float type; a device that fails.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let _span = op_span!("linear", &[x, w]);
    let problem = LinearProblem::checked("linear", x, w)?;
    let shape = problem.output_shape();
    if let Some(bias) = bias {
        ensure_vector("linear: bias", x, bias, problem.outputs)?;
    }
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
