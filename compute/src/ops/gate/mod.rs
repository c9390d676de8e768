//! Multiplying by a gate: how a residual block with squeeze-excitation ends (Hu, Shen and Sun, CVPR 2018).

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::ensure_operands;
use super::span::op_span;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};

/// A validated problem of gating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateProblem {
    /// [n, c, d, h, w].
    input: Shape,
    /// [n, c, d or 1, h or 1, w or 1].
    gate: Shape,
}

impl GateProblem {
    /// The problem of gating an input of that shape.
    ///
    /// # Errors
    /// A gate of other images or channels, or with an axis that is neither 1 nor the input's.
    pub fn new(input: Shape, gate: Shape) -> Result<Self> {
        let fits = |axis: usize| gate[axis] == input[axis] || (axis >= 2 && gate[axis] == 1);
        if !(0..5).all(fits) {
            let expected = format!("{input:?}, or 1 along d, h or w");
            return Err(Error::shape("gated_residual: gate", expected, format!("{gate:?}")));
        }
        Ok(Self { input, gate })
    }
}

/// y = leaky_relu(x * sigmoid(gate) + residual, slope) for x and residual [n, c, d, h, w]. The gate [n, c, d, h, w] may have the size
/// 1 along d, h and w: its value then belongs to every voxel along that axis. All have one float type; only the result is rounded
/// to it. Slope 1 is no activation.
///
/// # Errors
/// Operands of shapes that do not fit, or of different dtypes or devices; a dtype that is not a float type; a device that fails.
pub fn gated_residual(x: &Tensor, gate: &Tensor, residual: &Tensor, slope: f32) -> Result<Tensor> {
    let _span = op_span!("gated_residual", &[x, gate, residual]);
    ensure_operands("gated_residual", x, &[("gate", gate), ("residual", residual)])?;
    if residual.shape() != x.shape() {
        let [expected, found] = [x, residual].map(|t| format!("{:?}", t.shape()));
        return Err(Error::shape("gated_residual: residual", expected, found));
    }
    let problem = GateProblem::new(x.shape(), gate.shape())?;
    match x.device() {
        Device::Cpu => {
            let (x_data, gate, residual) = (x.host_floats()?, gate.host_floats()?, residual.host_floats()?);
            Ok(Tensor::host_f32(x.shape(), cpu::gated_residual(x_data, gate, residual, slope, &problem)))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("gated_residual", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            if y.is_empty() {
                return Ok(y);
            }
            let (input, gates) = (x.gpu_handle(&device)?, gate.gpu_handle(&device)?);
            let (added, output) = (residual.gpu_handle(&device)?, y.gpu_handle(&device)?);
            device
                .run(|client| client.gated_residual(x.dtype(), [&input, &gates, &added, &output], slope, &problem))?;
            Ok(y)
        }
    }
}
