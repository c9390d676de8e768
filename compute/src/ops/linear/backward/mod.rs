//! The gradients of fully connected layers.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

use super::LinearProblem;
use crate::device::Device;
use crate::error::Result;
use crate::ops::span::op_span;
use crate::ops::{ensure_operands, ensure_shape};
#[cfg(feature = "gpu")]
use crate::tensor::DType;
use crate::tensor::Tensor;

/// The gradients of a fully connected layer.
#[derive(Debug, Clone)]
pub struct LinearGradients {
    /// Gradient by the input, [n, ci, 1, 1, 1].
    pub dx: Tensor,
    /// Gradient by the weight, [co, ci, 1, 1, 1].
    pub dw: Tensor,
    /// Gradient by the bias, f32 [1, co, 1, 1, 1].
    pub db: Tensor,
}

/// Gradients of sum(dy * [`linear`](super::linear())`(x, w, b)`): dx = dy w, dw = the transpose of dy times x, db = the sum of dy over n.
///
/// `x` [n, ci, 1, 1, 1], `w` [co, ci, 1, 1, 1] and `dy` [n, co, 1, 1, 1] are of one float type, as are dx and dw. Sums are f32 in a fixed
/// order.
///
/// # Errors
/// As [`linear`](super::linear()); a `dy` of another shape, type or device.
pub fn linear_backward(x: &Tensor, w: &Tensor, dy: &Tensor) -> Result<LinearGradients> {
    let _span = op_span!("linear_backward", &[x, w]);
    let problem = LinearProblem::checked("linear_backward", x, w)?;
    ensure_operands("linear_backward", x, &[("dy", dy)])?;
    ensure_shape("linear_backward: dy", problem.output_shape(), dy)?;
    let vector = [1, problem.outputs, 1, 1, 1];
    match x.device() {
        Device::Cpu => {
            let [dx, dw, db] = cpu::linear_backward(x.host_floats()?, w.host_floats()?, dy.host_floats()?, problem);
            let [dx, dw] = [(x.shape(), dx), (w.shape(), dw)].map(|(shape, data)| Tensor::host_f32(shape, data));
            Ok(LinearGradients { dx, dw, db: Tensor::host_f32(vector, db) })
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            crate::ops::launch::ensure_addressable("linear_backward", &[x.shape(), w.shape(), dy.shape()])?;
            let dx = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let dw = Tensor::gpu_alloc(&device, w.shape(), w.dtype())?;
            let db = Tensor::gpu_alloc(&device, vector, DType::F32)?;
            let buffers = gpu::LinearBackwardHandles {
                x: x.gpu_handle(&device)?,
                w: w.gpu_handle(&device)?,
                dy: dy.gpu_handle(&device)?,
                dx: dx.gpu_handle(&device)?,
                dw: dw.gpu_handle(&device)?,
                db: db.gpu_handle(&device)?,
            };
            device.run(|client| client.linear_backward(x.dtype(), &buffers, problem))?;
            Ok(LinearGradients { dx, dw, db })
        }
    }
}
