//! 3D convolution and its gradients (2D is depth 1).

pub(in crate::ops) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub(in crate::ops) mod problem;
pub mod reference;

pub use problem::{Conv3dParams, Conv3dProblem};

use super::{expect_float, expect_same_device, expect_vector};
use crate::device::Device;
#[cfg(feature = "gpu")]
use crate::device::gpu::with_client;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// y[n, co, o] = b[co] + sum over ci of its group and taps k of w[co, ci, k] * x[n, ci, o * stride + k * dilation - padding],
/// zero outside the input: cross-correlation, as PyTorch's `conv3d`.
///
/// `x` [n, ci, d, h, w]; `w` [co, ci / groups, kd, kh, kw] of the same float type; `b` f32 [1, co, 1, 1, 1]. Axes are
/// (z, y, x). Sums are f32; the result [n, co, od, oh, ow] has the type of `x`.
///
/// # Errors
/// Shapes that do not fit (see [`Conv3dProblem::new`]); operands of different types or on different devices; a device
/// that fails.
pub fn conv3d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, params: &Conv3dParams) -> Result<Tensor> {
    let problem = Conv3dProblem::new(x.shape(), w.shape(), *params)?;
    expect_operands("conv3d", x, &[("weight", w)])?;
    if let Some(b) = b {
        expect_vector("conv3d: bias", x, b, w.shape()[0])?;
    }
    match x.device() {
        Device::Cpu => {
            let bias = b.map(Tensor::host_floats).transpose()?;
            let y = cpu::conv3d(&problem, x.host_floats()?, w.host_floats()?, bias);
            Ok(Tensor::host_f32(problem.output_shape(), y))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            problem::expect_indexable("conv3d", &[x.shape(), w.shape(), problem.output_shape()])?;
            let y = Tensor::gpu_alloc(&device, problem.output_shape(), x.dtype())?;
            let (input, weight, output) = (x.gpu_handle(&device)?, w.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let bias = b.map(|b| b.gpu_handle(&device)).transpose()?;
            with_client!(device, client =>
                gpu::launch_conv3d(client, x.dtype(), &input, &weight, bias.as_ref(), &output, &problem));
            Ok(y)
        }
    }
}

/// Operands share the float type and the device of `x`.
pub(in crate::ops) fn expect_operands(op: &str, x: &Tensor, others: &[(&str, &Tensor)]) -> Result<()> {
    expect_float(op, x)?;
    for (name, other) in others {
        expect_same_device(&format!("{op}: {name}"), x, other)?;
        if other.dtype() != x.dtype() {
            return Err(Error::argument(format!("{op}: dtype of {name}"), x.dtype(), other.dtype()));
        }
    }
    Ok(())
}
