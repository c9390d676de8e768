//! 2D convolutions of torchvision's networks, each with the batch norm behind it folded in, out of parameters by name.
//!
//! For inference only: w' = w g / sqrt(var + eps) and b' = beta - mean g / sqrt(var + eps) with eps = 1e-5, in f64.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::ops::{self, Conv3dParams, ConvEpilogue};
use crate::shown;
use crate::tensor::{DType, Tensor};

/// PyTorch's default, which torchvision's networks use.
pub(crate) const BATCH_NORM_EPS: f64 = 1e-5;
/// The ending of PyTorch's counters of batches, which inference does not use.
const COUNT: &str = ".num_batches_tracked";

/// A 2D convolution of odd kernels, padded so that stride 1 keeps the size: by dilation * (k - 1) / 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvSpec {
    /// The shape of the weight, [co, ci, kh, kw].
    pub(crate) shape: [usize; 4],
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
}

impl ConvSpec {
    /// Stride and dilation 1.
    pub(crate) fn new(shape: [usize; 4]) -> Self {
        Self { shape, stride: 1, dilation: 1 }
    }

    pub(crate) fn strided(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(crate) fn dilated(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    pub(crate) fn params(&self) -> Conv3dParams {
        let [_, _, kh, kw] = self.shape;
        Conv3dParams {
            stride: [1, self.stride, self.stride],
            padding: [0, self.dilation * (kh - 1) / 2, self.dilation * (kw - 1) / 2],
            dilation: [1, self.dilation, self.dilation],
            ..Conv3dParams::default()
        }
    }
}

/// A convolution with its batch norm folded in.
pub(super) struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    params: Conv3dParams,
}

impl Conv {
    pub(super) fn forward(&self, x: &Tensor, then: &ConvEpilogue<'_>) -> Result<Tensor> {
        ops::conv3d_then(x, &self.weight, self.bias.as_ref(), &self.params, then)
    }
}

/// Reads parameters whose names have a prefix, and stores them on a device.
pub(super) struct Reader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    dtype: DType,
    prefix: &'static str,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a Weights, device: &'a Device, dtype: DType, prefix: &'static str) -> Self {
        Self { weights, device, dtype, prefix, used: RefCell::default() }
    }

    /// The same file read under another prefix, with the parameters that were used.
    pub(super) fn under(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    /// Checks that every parameter was used, but those whose names begin with `optional`, and returns these. `network` names what was read
    /// in the error.
    ///
    /// # Errors
    /// [`Error::File`] for a parameter that the network does not have.
    pub(super) fn rest(&self, network: &str, optional: Option<&str>) -> Result<Vec<String>> {
        let used = self.used.borrow();
        let left = self.weights.names().filter(|name| !used.contains(*name));
        let known = |name: &&str| optional.is_some_and(|prefix| name.starts_with(prefix));
        let (rest, unknown): (Vec<&str>, Vec<&str>) = left.partition(known);
        match unknown.into_iter().find(|name| !name.ends_with(COUNT)) {
            None => Ok(rest.into_iter().map(str::to_owned).collect()),
            Some(name) => {
                let reason = format!("expected only the weights of {network}, found '{}' too", shown(name));
                Err(Error::file(self.weights.path(), reason))
            }
        }
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let (shape, data) = self.weights.get(name)?;
        self.used.borrow_mut().insert(name.to_owned());
        if shape != expected {
            let reason = format!("tensor '{name}': expected shape {expected:?}, found {shape:?}");
            return Err(Error::file(self.weights.path(), reason));
        }
        Ok(data)
    }

    fn conv(&self, spec: ConvSpec, weight: &[f32], bias: Option<&[f32]>) -> Result<Conv> {
        let [co, ci, kh, kw] = spec.shape;
        Ok(Conv {
            weight: Tensor::from_ncdhw(self.device, [co, ci, 1, kh, kw], self.dtype, weight)?,
            bias: bias.map(|b| Tensor::vector(self.device, b)).transpose()?,
            params: spec.params(),
        })
    }

    /// A convolution with neither batch norm nor bias, whose name has no prefix.
    pub(super) fn plain_conv(&self, name: &str, spec: ConvSpec) -> Result<Conv> {
        self.conv(spec, &self.read(name, &spec.shape)?, None)
    }

    /// A convolution with a bias and no batch norm.
    pub(super) fn biased_conv(&self, name: &str, spec: ConvSpec) -> Result<Conv> {
        let name = format!("{}{name}", self.prefix);
        let weight = self.read(&format!("{name}.weight"), &spec.shape)?;
        let bias = self.read(&format!("{name}.bias"), &spec.shape[..1])?;
        self.conv(spec, &weight, Some(&bias))
    }

    /// A convolution with the batch norm after it folded in.
    pub(super) fn conv_bn(&self, conv: &str, norm: &str, spec: ConvSpec) -> Result<Conv> {
        let (prefix, shape) = (self.prefix, spec.shape);
        let mut weight = self.read(&format!("{prefix}{conv}.weight"), &shape)?;
        let per_channel = |part: &str| self.read(&format!("{prefix}{norm}.{part}"), &shape[..1]);
        let (gain, beta) = (per_channel("weight")?, per_channel("bias")?);
        let (mean, var) = (per_channel("running_mean")?, per_channel("running_var")?);
        let mut bias = Vec::with_capacity(shape[0]);
        for (channel, row) in weight.chunks_mut(shape[1] * shape[2] * shape[3]).enumerate() {
            let spread = f64::from(var[channel]) + BATCH_NORM_EPS;
            if spread.is_nan() || spread <= 0.0 {
                let reason = format!("'{prefix}{norm}.running_var': expected 0 or more, found {}", var[channel]);
                return Err(Error::file(self.weights.path(), reason));
            }
            let scale = f64::from(gain[channel]) / spread.sqrt();
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            bias.push((f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32);
        }
        self.conv(spec, &weight, Some(&bias))
    }

    /// Weight [outputs, inputs, 1, 1, 1] and bias of a fully connected layer.
    pub(super) fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<(Tensor, Tensor)> {
        let weight = self.read(&format!("{}{name}.weight", self.prefix), &[outputs, inputs])?;
        let bias = self.read(&format!("{}{name}.bias", self.prefix), &[outputs])?;
        let weight = Tensor::from_ncdhw(self.device, [outputs, inputs, 1, 1, 1], self.dtype, &weight)?;
        Ok((weight, Tensor::vector(self.device, &bias)?))
    }
}
