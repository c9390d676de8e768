//! The weights of a U-Net by name: read from a file, or random.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::nn::{ConvLayer, InstanceNorm, UpLayer};
use crate::ops::Conv3dParams;
use crate::tensor::{DType, Tensor};

use super::architecture::UNetArchitecture;

/// A weight with its name and PyTorch's shape.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) tensor: Tensor,
}

/// The source of the values.
pub(super) enum Source<'a> {
    File(&'a Weights),
    Drawn(Box<ChaCha8Rng>),
}

impl Source<'_> {
    pub(super) fn seeded(seed: u64) -> Self {
        Self::Drawn(Box::new(ChaCha8Rng::seed_from_u64(seed)))
    }
}

/// The initial value of a random parameter.
enum Initial {
    /// Normal with mean 0 and variance 2 / ((1 + slope^2) fan_in) (He et al. 2015).
    He {
        fan_in: usize,
    },
    Constant(f32),
}

/// Creates layers in the order of the network and collects their weights.
pub(super) struct Loader<'a> {
    pub(super) device: &'a Device,
    pub(super) dtype: DType,
    pub(super) architecture: &'a UNetArchitecture,
    pub(super) source: Source<'a>,
    pub(super) parameters: Vec<Parameter>,
}

impl Loader<'_> {
    fn values(&mut self, name: &str, shape: &[usize], initial: Initial) -> Result<Vec<f32>> {
        match &mut self.source {
            Source::File(weights) => {
                let (found, values) = weights.get(name)?;
                if found != shape {
                    let reason = format!("tensor '{name}': expected shape {shape:?}, found {found:?}");
                    return Err(Error::file(weights.path(), reason));
                }
                if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                    let reason = format!("tensor '{name}': expected finite values, found {bad}");
                    return Err(Error::file(weights.path(), reason));
                }
                Ok(values)
            }
            Source::Drawn(rng) => {
                let len = shape.iter().product();
                Ok(match initial {
                    Initial::Constant(value) => vec![value; len],
                    Initial::He { fan_in } => {
                        let slope = f64::from(self.architecture.slope);
                        let sd = (2.0 / ((1.0 + slope * slope) * fan_in as f64)).sqrt();
                        (0..len)
                            .map(|_| {
                                let value: f64 = StandardNormal.sample(rng);
                                (sd * value) as f32
                            })
                            .collect()
                    }
                })
            }
        }
    }

    fn kernel(&mut self, name: String, shape: [usize; 5], fan_in: usize) -> Result<Tensor> {
        let values = self.values(&name, &shape, Initial::He { fan_in })?;
        let tensor = Tensor::from_ncdhw(self.device, shape, self.dtype, &values)?;
        self.parameters.push(Parameter { name, shape: shape.to_vec(), tensor: tensor.clone() });
        Ok(tensor)
    }

    fn vector(&mut self, name: String, len: usize, initial: f32) -> Result<Tensor> {
        let values = self.values(&name, &[len], Initial::Constant(initial))?;
        let tensor = Tensor::vector(self.device, &values)?;
        self.parameters.push(Parameter { name, shape: vec![len], tensor: tensor.clone() });
        Ok(tensor)
    }

    /// The convolution `name`, padded by (k - 1) / 2, with a bias where `bias` is true.
    pub(super) fn conv(
        &mut self,
        name: &str,
        channels: [usize; 2],
        kernel: [usize; 3],
        stride: [usize; 3],
        bias: bool,
    ) -> Result<ConvLayer> {
        let [input, output] = channels;
        let [kd, kh, kw] = kernel;
        let weight = self.kernel(format!("{name}.weight"), [output, input, kd, kh, kw], input * kd * kh * kw)?;
        let bias = if bias { Some(self.vector(format!("{name}.bias"), output, 0.0)?) } else { None };
        let params = Conv3dParams { stride, padding: kernel.map(|k| (k - 1) / 2), ..Default::default() };
        Ok(ConvLayer { weight, bias, params })
    }

    /// The transposed convolution `name`, whose kernel equals its stride.
    pub(super) fn up(&mut self, name: &str, channels: [usize; 2], stride: [usize; 3]) -> Result<UpLayer> {
        let [input, output] = channels;
        let [kd, kh, kw] = stride;
        // Each output voxel is reached by one input voxel.
        let weight = self.kernel(format!("{name}.weight"), [input, output, kd, kh, kw], input)?;
        let bias =
            if self.architecture.conv_bias { Some(self.vector(format!("{name}.bias"), output, 0.0)?) } else { None };
        Ok(UpLayer { weight, bias, stride })
    }

    /// The norm `name`.
    pub(super) fn norm(&mut self, name: &str, channels: usize) -> Result<InstanceNorm> {
        let (weight, bias) = if self.architecture.norm_affine {
            let weight = self.vector(format!("{name}.weight"), channels, 1.0)?;
            (Some(weight), Some(self.vector(format!("{name}.bias"), channels, 0.0)?))
        } else {
            (None, None)
        };
        Ok(InstanceNorm { weight, bias, eps: self.architecture.norm_eps })
    }
}
