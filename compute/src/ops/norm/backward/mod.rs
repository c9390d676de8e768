//! The gradients of instance and batch normalisation followed by a leaky ReLU.
//!
//! With xhat = (x - mean) / sd, v = xhat * weight + bias and dy' = dy where v > 0, slope * dy otherwise:
//! dbias = sum dy', dweight = sum dy' * xhat, and dx = weight / sd * (dy' - mean(dy') - xhat * mean(dy' * xhat)), the means over
//! the positions that share the statistics (Ioffe and Szegedy 2015, section 3). Two passes: one of sums, one that applies them. Nothing of
//! the forward pass but x is needed: the statistics and the signs of v are computed again.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

#[cfg(feature = "gpu")]
use super::on_gpu;
use super::{NormProblem, ensure_several, host, validate};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::span::op_span;
use crate::ops::{ensure_operands, ensure_shape};
use crate::tensor::{DType, Tensor};

/// The gradients of a normalisation.
#[derive(Debug, Clone)]
pub struct NormGradients {
    /// Gradient by the input, shape and dtype of x.
    pub dx: Tensor,
    /// Gradient by the weight, f32 [1, c, 1, 1, 1].
    pub dweight: Tensor,
    /// Gradient by the bias, f32 [1, c, 1, 1, 1].
    pub dbias: Tensor,
}

/// Gradients of sum(dy * leaky_relu([`instance_norm`](super::instance_norm())`(x, weight, bias, eps)`, slope)) for x and dy
/// [n, c, d, h, w] of one float type; a slope of 1 is no activation. Where the activation's argument is exactly 0 (or NaN) its derivative is
/// the slope, as PyTorch's. The gradients by weight and bias are also those at the weight 1 and the bias 0 that stand for absent
/// ones. Sums are in a fixed order.
///
/// # Errors
/// As [`instance_norm`](super::instance_norm()); a `dy` of another shape, type or device than `x`; a slope that is not finite.
pub fn instance_norm_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
    slope: f32,
    dy: &Tensor,
) -> Result<NormGradients> {
    let _span = op_span!("instance_norm_backward", &[x, dy]);
    ensure_valid("instance_norm_backward", x, [weight, bias], eps, slope, dy)?;
    gradients(x, [weight, bias], eps, slope, dy, NormProblem::per_image(x))
}

/// Gradients of sum(dy * leaky_relu([`batch_norm_train`](super::batch_norm_train())`(x, weight, bias, eps).y`, slope)), as
/// [`instance_norm_backward`]: through the statistics of the batch too.
///
/// # Errors
/// As [`instance_norm_backward`]; fewer than two values per channel.
pub fn batch_norm_train_backward(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
    slope: f32,
    dy: &Tensor,
) -> Result<NormGradients> {
    let _span = op_span!("batch_norm_train_backward", &[x, dy]);
    ensure_valid("batch_norm_train_backward", x, [weight, bias], eps, slope, dy)?;
    let problem = NormProblem::per_batch(x);
    ensure_several("batch_norm_train_backward", x, problem)?;
    gradients(x, [weight, bias], eps, slope, dy, problem)
}

fn ensure_valid(
    what: &str,
    x: &Tensor,
    [weight, bias]: [Option<&Tensor>; 2],
    eps: f32,
    slope: f32,
    dy: &Tensor,
) -> Result<()> {
    validate(what, x, weight, bias, eps)?;
    ensure_operands(what, x, &[("dy", dy)])?;
    ensure_shape(format!("{what}: dy"), x.shape(), dy)?;
    if !slope.is_finite() {
        return Err(Error::argument(format!("{what}: slope"), "a finite number", slope));
    }
    Ok(())
}

fn gradients(
    x: &Tensor,
    [weight, bias]: [Option<&Tensor>; 2],
    eps: f32,
    slope: f32,
    dy: &Tensor,
    problem: NormProblem,
) -> Result<NormGradients> {
    let vector = [1, problem.channels, 1, 1, 1];
    if x.is_empty() {
        let none = Tensor::zeros(&x.device(), vector, DType::F32)?;
        return Ok(NormGradients { dx: x.clone(), dweight: none.clone(), dbias: none });
    }
    match x.device() {
        Device::Cpu => {
            let (weight, bias) = (host(weight)?, host(bias)?);
            let norm = cpu::Norm { weight, bias, eps, slope, problem };
            let cpu::Gradients { dx, dweight, dbias } = cpu::backward(x.host_floats()?, dy.host_floats()?, &norm);
            let [dweight, dbias] = [dweight, dbias].map(|values| Tensor::host_f32(vector, values));
            Ok(NormGradients { dx: Tensor::host_f32(x.shape(), dx), dweight, dbias })
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            crate::ops::launch::ensure_addressable("norm backward", &[x.shape()])?;
            let dx = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let dweight = Tensor::gpu_alloc(&device, vector, DType::F32)?;
            let dbias = Tensor::gpu_alloc(&device, vector, DType::F32)?;
            let buffers = gpu::NormBackwardHandles {
                x: x.gpu_handle(&device)?,
                dy: dy.gpu_handle(&device)?,
                dx: dx.gpu_handle(&device)?,
                dweight: dweight.gpu_handle(&device)?,
                dbias: dbias.gpu_handle(&device)?,
            };
            let affine = super::gpu::Affine { weight: on_gpu(weight, &device)?, bias: on_gpu(bias, &device)? };
            device.run(|client| client.norm_backward(x.dtype(), &buffers, &affine, problem, eps, slope))?;
            Ok(NormGradients { dx, dweight, dbias })
        }
    }
}
