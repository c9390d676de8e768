//! 3D convolution and its gradients (2D is depth 1).

#[cfg(feature = "gpu")]
mod algorithm;
#[cfg(feature = "gpu")]
mod bricks;
pub(in crate::ops) mod cpu;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod facts;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gpu")]
pub mod gpu_backward;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod halo;
#[cfg(feature = "gpu")]
mod matrix_product;
#[cfg(feature = "gpu")]
mod pointwise;
pub(in crate::ops) mod problem;
pub mod reference;
#[cfg(feature = "gpu")]
mod stem;
#[cfg(feature = "gpu")]
mod tiling;
#[cfg(feature = "gpu")]
pub(in crate::ops) mod tune;

#[cfg(feature = "gpu")]
pub use algorithm::Algorithm;
#[cfg(feature = "gpu")]
pub(in crate::ops) use algorithm::Plan;
pub use problem::{Conv3dParams, Conv3dProblem};

use super::conv_transpose3d::{ConvTranspose3dProblem, gathered};
use super::span::op_span;
use super::{expect_float, expect_same_device, expect_vector};
use crate::device::Device;
#[cfg(feature = "gpu")]
use crate::device::gpu::Gpu;
use crate::error::{Error, Result};
#[cfg(feature = "gpu")]
use crate::tensor::DType;
use crate::tensor::Tensor;

/// What is done to the output of a convolution before it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Of the output's shape and type; added to it.
    pub residual: Option<&'a Tensor>,
    /// Of the leaky ReLU behind that: 0 is the ReLU, 1 leaves values as they are.
    pub slope: f32,
}

impl Epilogue<'_> {
    /// Nothing.
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
/// As [`conv3d`]; tensors on the CPU, which has one algorithm; a problem that the algorithm cannot do (groups by any but
/// [`Algorithm::Direct`], for one).
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
    expect_operands("conv3d", x, &[("weight", w)])?;
    if let Some(b) = b {
        expect_vector("conv3d: bias", x, b, w.shape()[0])?;
    }
    if let Some(residual) = epilogue.residual {
        expect_operands("conv3d", x, &[("residual", residual)])?;
        if residual.shape() != problem.output_shape() {
            let [expected, found] = [problem.output_shape(), residual.shape()].map(|s| format!("{s:?}"));
            return Err(Error::shape("conv3d: residual", expected, found));
        }
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
    let plan = tune::plan(device, x.dtype(), problem, algorithm)?;
    device.run(|client| client.conv3d_planned(x.dtype(), buffers, epilogue.slope, problem, &plan))?;
    Ok(y)
}

/// The gradients of a convolution.
#[derive(Debug, Clone)]
pub struct Conv3dGradients {
    /// By the input, [n, ci, d, h, w].
    pub dx: Tensor,
    /// By the weight, [co, ci / groups, kd, kh, kw].
    pub dw: Tensor,
    /// By the bias, f32 [1, co, 1, 1, 1].
    pub db: Tensor,
}

/// Gradients of sum(dy * [`conv3d`]`(x, w, b)`): dx is the transposed convolution of `dy`, dw[co, ci, k] = sum over n
/// and o of dy[n, co, o] * x[n, ci, o * stride + k * dilation - padding], db[co] = sum of dy[:, co].
///
/// `dy` [n, co, od, oh, ow] has the type of `x` and `w`, as have `dx` and `dw`. Sums are f32 in a fixed order.
///
/// # Errors
/// As [`conv3d`]; a `dy` that is not of the output's shape.
pub fn conv3d_backward(x: &Tensor, w: &Tensor, dy: &Tensor, params: &Conv3dParams) -> Result<Conv3dGradients> {
    let _span = op_span!("conv3d_backward", &[x, w]);
    let problem = Conv3dProblem::new(x.shape(), w.shape(), *params)?;
    expect_operands("conv3d_backward", x, &[("weight", w), ("dy", dy)])?;
    let output = problem.output_shape();
    if dy.shape() != output {
        return Err(Error::shape("conv3d_backward: dy", format!("{output:?}"), format!("{:?}", dy.shape())));
    }
    let dx = gathered(&ConvTranspose3dProblem::data_gradient(&problem), dy, w, None)?;
    match x.device() {
        Device::Cpu => {
            let (x, dy) = (x.host_floats()?, dy.host_floats()?);
            let dw = Tensor::host_f32(w.shape(), cpu::weight_gradient(&problem, x, dy));
            let db = Tensor::host_f32([1, output[1], 1, 1, 1], cpu::bias_gradient(dy, output[1]));
            Ok(Conv3dGradients { dx, dw, db })
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("conv3d_backward", &[x.shape(), w.shape(), output])?;
            let dw = Tensor::gpu_alloc(&device, w.shape(), w.dtype())?;
            let db = Tensor::gpu_alloc(&device, [1, output[1], 1, 1, 1], DType::F32)?;
            let (input, gradient) = (x.gpu_handle(&device)?, dy.gpu_handle(&device)?);
            let (weight, bias) = (dw.gpu_handle(&device)?, db.gpu_handle(&device)?);
            device.run(|client| {
                client.conv3d_backward_weight(x.dtype(), &input, &gradient, &weight, &problem)?;
                client.conv3d_backward_bias(x.dtype(), &gradient, &bias, &problem)
            })?;
            Ok(Conv3dGradients { dx, dw, db })
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
