//! Transposed 3D convolution.

pub(in crate::ops) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

#[cfg(feature = "gpu")]
pub use super::conv_plan::ConvTranspose3dAlgorithm as Algorithm;
pub use super::conv_problem::{ConvTranspose3dParams, ConvTranspose3dProblem};

use super::span::op_span;
use super::{ensure_operands, ensure_vector};
use crate::device::Device;
#[cfg(feature = "gpu")]
use crate::device::gpu::Gpu;
#[cfg(feature = "gpu")]
use crate::error::Error;
use crate::error::Result;
use crate::tensor::Tensor;

/// y[n, co, o] = b[co] + sum over ci, inputs i and taps k with o = i * stride + k - padding of x[n, ci, i] * w[ci, co, k], as
/// PyTorch's `conv_transpose3d` (no output padding). With kernel = stride every output has one term a channel.
///
/// `x` [n, ci, d, h, w]; `w` [ci, co, kd, kh, kw] of the same float type; `b` f32 [1, co, 1, 1, 1]. Axes are (z, y, x).
/// Sums are f32; the result [n, co, od, oh, ow] has the type of `x`.
///
/// # Errors
/// Shapes that do not fit (see [`ConvTranspose3dProblem::new`]); operands of different types or on different devices; a
/// device that fails.
pub fn conv_transpose3d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, params: &ConvTranspose3dParams) -> Result<Tensor> {
    let _span = op_span!("conv_transpose3d", &[x, w]);
    gathered(&checked(x, w, b, params)?, x, w, b)
}

/// [`conv_transpose3d`] by one algorithm. For tests and measurements.
///
/// # Errors
/// As [`conv_transpose3d`]; tensors on the CPU, which has one algorithm; a problem that the algorithm cannot do.
#[cfg(feature = "gpu")]
pub fn conv_transpose3d_by(
    algorithm: Algorithm,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &ConvTranspose3dParams,
) -> Result<Tensor> {
    let problem = checked(x, w, b, params)?;
    match x.device() {
        Device::Cpu => Err(Error::argument("conv_transpose3d by an algorithm: device", "a GPU", "cpu")),
        Device::Gpu(device) => on_gpu(&device, &problem, x, w, b, Some(algorithm)),
    }
}

fn checked(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &ConvTranspose3dParams,
) -> Result<ConvTranspose3dProblem> {
    let problem = ConvTranspose3dProblem::new(x.shape(), w.shape(), *params)?;
    ensure_operands("conv_transpose3d", x, &[("weight", w)])?;
    if let Some(b) = b {
        ensure_vector("conv_transpose3d: bias", x, b, w.shape()[1])?;
    }
    Ok(problem)
}

/// Computes the problem on the device of its operands, which are validated. The operation and the gradient of a
/// convolution by its input share this.
pub(in crate::ops) fn gathered(
    problem: &ConvTranspose3dProblem,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
) -> Result<Tensor> {
    match x.device() {
        Device::Cpu => {
            let bias = b.map(Tensor::host_floats).transpose()?;
            let packed = w.host_derived(|p| cpu::fits(problem, p), |w| cpu::pack(problem, w))?;
            let y = cpu::conv_transpose3d(problem, x.host_floats()?, &packed, bias);
            Ok(Tensor::host_f32(problem.output_shape(), y))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => on_gpu(&device, problem, x, w, b, None),
    }
}

#[cfg(feature = "gpu")]
fn on_gpu(
    device: &Gpu,
    problem: &ConvTranspose3dProblem,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    algorithm: Option<Algorithm>,
) -> Result<Tensor> {
    super::launch::ensure_addressable("conv_transpose3d", &[x.shape(), w.shape(), problem.output_shape()])?;
    let y = Tensor::gpu_alloc(device, problem.output_shape(), x.dtype())?;
    let (input, weight, output) = (x.gpu_handle(device)?, w.gpu_handle(device)?, y.gpu_handle(device)?);
    let bias = b.map(|b| b.gpu_handle(device)).transpose()?;
    let buffers = gpu::ConvTranspose3dHandles { x: &input, w: &weight, b: bias.as_ref(), y: &output };
    let placement = gpu::Placement::alone(problem);
    let dtype = x.dtype();
    let plan = gpu::chosen_plan(device, dtype, problem, algorithm)?;
    device.run(|client| client.conv_transpose3d_planned(dtype, buffers, placement, problem, &plan))?;
    Ok(y)
}
