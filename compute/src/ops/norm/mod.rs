//! Instance and batch normalisation: y = (x - mean) / sqrt(var + eps) * weight + bias, per channel.
//!
//! Instance norm takes mean and variance over the voxels of each image and channel, batch norm over the batch too
//! (training) or from running statistics (inference). The variance that divides is the biased one. Sources: Ioffe and
//! Szegedy 2015; Ulyanov, Vedaldi and Lempitsky 2016; conventions as PyTorch's `instance_norm` and `batch_norm`.

mod backward;
pub(in crate::ops) mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;

#[cfg(feature = "gpu")]
pub use backward::gpu as backward_gpu;
pub use backward::reference as backward_reference;
pub use backward::{NormGradients, batch_norm_train_backward, instance_norm_backward};

use super::span::op_span;
use super::{ensure_float, ensure_vector};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// x seen as [groups, positions, channels]: statistics are per group and channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormProblem {
    /// Images for instance norm, 1 for batch norm.
    pub groups: usize,
    /// Voxels of a group.
    pub positions: usize,
    /// Channels, the fastest axis.
    pub channels: usize,
}

impl NormProblem {
    fn per_image(x: &Tensor) -> Self {
        let [n, c, d, h, w] = x.shape();
        Self { groups: n, positions: d * h * w, channels: c }
    }

    fn per_batch(x: &Tensor) -> Self {
        let [n, c, d, h, w] = x.shape();
        Self { groups: 1, positions: n * d * h * w, channels: c }
    }
}

/// What [`batch_norm_train`] returns.
#[derive(Debug, Clone)]
pub struct BatchNormOutput {
    /// The normalised batch, shape and dtype of x.
    pub y: Tensor,
    /// Batch mean, f32 [1, c, 1, 1, 1].
    pub mean: Tensor,
    /// Unbiased batch variance, f32 [1, c, 1, 1, 1]: what PyTorch's running variance is updated with.
    pub var: Tensor,
}

/// Instance normalisation of x [n, c, d, h, w]: mean and biased variance over (d, h, w) of each image and channel; weight
/// and bias f32 [1, c, 1, 1, 1], 1 and 0 where absent. A channel of one voxel (variance 0) gives its bias.
///
/// # Errors
/// A dtype that is not a float type, a parameter of another shape, dtype or device, a negative or non-finite eps; a
/// device that fails.
pub fn instance_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Result<Tensor> {
    let _span = op_span!("instance_norm", &[x]);
    validate("instance_norm", x, weight, bias, eps)?;
    Ok(normalise(x, weight, bias, eps, NormProblem::per_image(x))?.y)
}

/// Batch normalisation of x [n, c, d, h, w] in inference: with the running mean and variance; all parameters f32
/// [1, c, 1, 1, 1].
///
/// # Errors
/// As [`instance_norm`].
pub fn batch_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    mean: &Tensor,
    var: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    let _span = op_span!("batch_norm", &[x]);
    validate("batch_norm", x, weight, bias, eps)?;
    let [_, channels, ..] = x.shape();
    ensure_vector("batch_norm: mean", x, mean, channels)?;
    ensure_vector("batch_norm: var", x, var, channels)?;
    if x.is_empty() {
        return Ok(x.clone());
    }
    let problem = NormProblem::per_batch(x);
    match x.device() {
        Device::Cpu => {
            let var = var.host_floats()?.iter().map(|&v| v.into()).collect();
            let mean = mean.host_floats()?.iter().map(|&v| v.into()).collect();
            let statistics = cpu::Statistics { mean, var };
            let (weight, bias) = (host(weight)?, host(bias)?);
            Ok(Tensor::host_f32(x.shape(), cpu::apply(x.host_floats()?, &statistics, weight, bias, eps, problem)))
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("batch_norm", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let inverse_sd = device.alloc(channels * size_of::<f32>())?;
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let (mean, var) = (mean.gpu_handle(&device)?, var.gpu_handle(&device)?);
            let affine = gpu::Affine { weight: on_gpu(weight, &device)?, bias: on_gpu(bias, &device)? };
            device.run(|client| {
                client.inverse_sd(&var, &inverse_sd, channels, eps)?;
                client.norm_apply(x.dtype(), &input, &mean, &inverse_sd, &affine, &output, problem)
            })?;
            Ok(y)
        }
    }
}

/// Batch normalisation of x [n, c, d, h, w] in training: with the batch's own mean and biased variance over (n, d, h, w),
/// which it returns (the variance unbiased) for updating running statistics.
///
/// # Errors
/// As [`instance_norm`]; fewer than two values per channel, whose unbiased variance does not exist.
pub fn batch_norm_train(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
) -> Result<BatchNormOutput> {
    let _span = op_span!("batch_norm_train", &[x]);
    validate("batch_norm_train", x, weight, bias, eps)?;
    let problem = NormProblem::per_batch(x);
    ensure_several("batch_norm_train", x, problem)?;
    normalise(x, weight, bias, eps, problem)
}

/// Statistics of each group, then x normalised with them. The statistics returned are those of [`BatchNormOutput`] for one
/// group; for more, [groups * c] values in the same shape.
fn normalise(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f32,
    problem: NormProblem,
) -> Result<BatchNormOutput> {
    let vector = [1, problem.groups * problem.channels, 1, 1, 1];
    if x.is_empty() {
        let none = Tensor::zeros(&x.device(), vector, DType::F32)?;
        return Ok(BatchNormOutput { y: x.clone(), mean: none.clone(), var: none });
    }
    match x.device() {
        Device::Cpu => {
            let (data, weight, bias) = (x.host_floats()?, host(weight)?, host(bias)?);
            let statistics = cpu::statistics(data, problem);
            let y = Tensor::host_f32(x.shape(), cpu::apply(data, &statistics, weight, bias, eps, problem));
            let unbiased = problem.positions as f64 / problem.positions.saturating_sub(1).max(1) as f64;
            let mean: Vec<_> = statistics.mean.iter().map(|&m| m as f32).collect();
            let var: Vec<_> = statistics.var.iter().map(|&v| (v * unbiased) as f32).collect();
            Ok(BatchNormOutput { y, mean: Tensor::host_f32(vector, mean), var: Tensor::host_f32(vector, var) })
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            super::launch::ensure_addressable("norm", &[x.shape()])?;
            let y = Tensor::gpu_alloc(&device, x.shape(), x.dtype())?;
            let mean = Tensor::gpu_alloc(&device, vector, DType::F32)?;
            let var = Tensor::gpu_alloc(&device, vector, DType::F32)?;
            let statistics = gpu::Statistics {
                mean: mean.gpu_handle(&device)?,
                inverse_sd: device.alloc(vector[1] * size_of::<f32>())?,
                variance: var.gpu_handle(&device)?,
            };
            let (input, output) = (x.gpu_handle(&device)?, y.gpu_handle(&device)?);
            let affine = gpu::Affine { weight: on_gpu(weight, &device)?, bias: on_gpu(bias, &device)? };
            device.run(|client| {
                client.norm_statistics(x.dtype(), &input, &statistics, problem, eps)?;
                let gpu::Statistics { mean, inverse_sd, .. } = &statistics;
                client.norm_apply(x.dtype(), &input, mean, inverse_sd, &affine, &output, problem)
            })?;
            Ok(BatchNormOutput { y, mean, var })
        }
    }
}

/// The unbiased variance exists.
fn ensure_several(what: &str, x: &Tensor, problem: NormProblem) -> Result<()> {
    if problem.positions < 2 {
        let found = format!("{} in shape {:?}", problem.positions, x.shape());
        return Err(Error::shape(what, "at least 2 values per channel", found));
    }
    Ok(())
}

fn validate(what: &str, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f32) -> Result<()> {
    ensure_float(what, x)?;
    ensure_parameters(what, x, x.shape()[1], [weight, bias], eps)
}

/// Weight and bias have a value per channel on the device of `x`, eps can be added to a variance.
pub(in crate::ops) fn ensure_parameters(
    what: &str,
    x: &Tensor,
    channels: usize,
    weight_bias: [Option<&Tensor>; 2],
    eps: f32,
) -> Result<()> {
    for (name, parameter) in ["weight", "bias"].into_iter().zip(weight_bias) {
        if let Some(parameter) = parameter {
            ensure_vector(&format!("{what}: {name}"), x, parameter, channels)?;
        }
    }
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(Error::argument(format!("{what}: eps"), "a finite number, 0 or more", eps));
    }
    Ok(())
}

fn host(parameter: Option<&Tensor>) -> Result<Option<&[f32]>> {
    parameter.map(Tensor::host_floats).transpose()
}

#[cfg(feature = "gpu")]
fn on_gpu(parameter: Option<&Tensor>, device: &crate::device::Gpu) -> Result<Option<cubecl::server::Handle>> {
    parameter.map(|p| p.gpu_handle(device)).transpose()
}
