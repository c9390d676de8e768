//! 3D convolution (2D is depth 1).

pub(in crate::ops) mod cpu;
#[cfg(feature = "gpu")]
mod direct_launch;
#[cfg(feature = "gpu")]
mod gemm_launch;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod halo_launch;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod launch;
#[cfg(feature = "gpu")]
mod pointwise_launch;
pub mod reference;
#[cfg(feature = "gpu")]
mod stem_launch;

#[cfg(feature = "gpu")]
pub use super::conv_plan::Conv3dAlgorithm as Algorithm;
pub use super::conv_problem::{Conv3dParams, Conv3dProblem};

use super::span::op_span;
use super::{ensure_operands, ensure_shape, ensure_vector};
use crate::device::Device;
#[cfg(feature = "gpu")]
use crate::device::gpu::Gpu;
#[cfg(feature = "gpu")]
use crate::error::Error;
use crate::error::Result;
use crate::tensor::Tensor;

/// What is done to the output of a convolution before it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// A tensor of the output's shape and type that is added to it.
    pub residual: Option<&'a Tensor>,
    /// Slope of the leaky ReLU behind that: 0 is the ReLU, 1 leaves values as they are.
    pub slope: f32,
}

impl Epilogue<'_> {
    /// No epilogue.
    pub const NONE: Self = Self { residual: None, slope: 1.0 };
    /// A ReLU.
    pub const RELU: Self = Self { residual: None, slope: 0.0 };
}

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
    conv3d_then(x, w, b, params, &Epilogue::NONE)
}

/// leaky_relu(conv3d(x, w, b) + residual, slope). The implicit GEMM and the register-blocked kernel do all of it before they
/// round and store. By the other kernels the sum is rounded to the tensors' type before residual and activation too: the
/// halo kernel has both in its store, the rest in a pass of its own over their output.
///
/// # Errors
/// As [`conv3d`]; a residual of another shape, type or device than the output.
pub fn conv3d_then(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &Conv3dParams,
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    let _span = op_span!("conv3d", &[x, w]);
    let problem = checked(x, w, b, params, epilogue)?;
    match x.device() {
        Device::Cpu => {
            let bias = b.map(Tensor::host_floats).transpose()?;
            let weights = w.host_derived(|p| cpu::fits(&problem, p), |w| cpu::pack(&problem, w))?;
            let mut y = cpu::conv3d(&problem, x.host_floats()?, &weights, bias);
            if epilogue.residual.is_some() || epilogue.slope != 1.0 {
                cpu::finish(&mut y, epilogue.residual.map(Tensor::host_floats).transpose()?, epilogue.slope);
            }
            Ok(Tensor::host_f32(problem.output_shape(), y))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => on_gpu(&device, &problem, [x, w], b, epilogue, None),
    }
}

/// [`conv3d_then`] by one algorithm, whatever the model of their costs says. For tests and measurements.
///
/// # Errors
/// As [`conv3d`]; tensors on the CPU, which chooses by itself; a problem that the algorithm cannot do (groups by
/// a matrix product, for one).
#[cfg(feature = "gpu")]
pub fn conv3d_by(
    algorithm: Algorithm,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &Conv3dParams,
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    let problem = checked(x, w, b, params, epilogue)?;
    match x.device() {
        Device::Cpu => Err(Error::argument("conv3d by an algorithm: device", "a GPU", "cpu")),
        Device::Gpu(device) => on_gpu(&device, &problem, [x, w], b, epilogue, Some(algorithm)),
    }
}

fn checked(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    params: &Conv3dParams,
    epilogue: &Epilogue<'_>,
) -> Result<Conv3dProblem> {
    let problem = Conv3dProblem::new(x.shape(), w.shape(), *params)?;
    ensure_operands("conv3d", x, &[("weight", w)])?;
    if let Some(b) = b {
        ensure_vector("conv3d: bias", x, b, w.shape()[0])?;
    }
    if let Some(residual) = epilogue.residual {
        ensure_operands("conv3d", x, &[("residual", residual)])?;
        ensure_shape("conv3d: residual", problem.output_shape(), residual)?;
    }
    Ok(problem)
}

#[cfg(feature = "gpu")]
fn on_gpu(
    device: &Gpu,
    problem: &Conv3dProblem,
    [x, w]: [&Tensor; 2],
    b: Option<&Tensor>,
    epilogue: &Epilogue<'_>,
    algorithm: Option<Algorithm>,
) -> Result<Tensor> {
    super::launch::ensure_addressable("conv3d", &[x.shape(), w.shape(), problem.output_shape()])?;
    let y = Tensor::gpu_alloc(device, problem.output_shape(), x.dtype())?;
    let (input, weight, output) = (x.gpu_handle(device)?, w.gpu_handle(device)?, y.gpu_handle(device)?);
    let bias = b.map(|b| b.gpu_handle(device)).transpose()?;
    let residual = epilogue.residual.map(|r| r.gpu_handle(device)).transpose()?;
    let (b, residual) = (bias.as_ref(), residual.as_ref());
    let buffers = gpu::Conv3dHandles { x: &input, w: &weight, b, residual, y: &output };
    let plan = gpu::chosen_plan(device, x.dtype(), problem, algorithm)?;
    device.run(|client| client.conv3d_planned(x.dtype(), buffers, epilogue.slope, problem, &plan))?;
    Ok(y)
}
