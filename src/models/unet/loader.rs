//! A U-Net's weights by name: read from a file, or drawn.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::architecture::{UNetArchitecture, UNetNorm};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::nn::{ConvBlock, ConvLayer, NormLayer, UpLayer};
use crate::ops::Conv3dParams;
use crate::shown;
use crate::tensor::{DType, Tensor};

/// A weight under nnU-Net's name, with PyTorch's shape.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) value: ParameterValue,
}

/// Where a weight's values are.
#[derive(Debug, Clone)]
pub(super) enum ParameterValue {
    /// The layer's own tensor.
    Tensor(Tensor),
    /// On the host: the layer holds what became of it when a norm was folded in.
    Folded(Vec<f32>),
}

/// Where values come from.
pub(super) enum Source<'a> {
    /// A file, and the names read so far.
    File(&'a Weights, BTreeSet<String>),
    /// A generator.
    Drawn(Box<ChaCha8Rng>),
}

impl<'a> Source<'a> {
    pub(super) fn seeded(seed: u64) -> Self {
        Self::Drawn(Box::new(ChaCha8Rng::seed_from_u64(seed)))
    }

    pub(super) fn file(weights: &'a Weights) -> Self {
        Self::File(weights, BTreeSet::new())
    }
}

/// What to draw where there is no file.
enum Initial {
    /// Normal with mean 0 and variance 2 / ((1 + slope^2) * fan-in) (He et al. 2015).
    He {
        fan_in: usize,
    },
    Constant(f32),
}

/// What a file may hold beside a network's own weights: the same tensors under a second name, the heads of deep supervision,
/// and what batch norm counts.
const REPEATED: [&str; 2] = [".all_modules.", "decoder.encoder."];
const HEADS: &str = "decoder.seg_layers.";
const COUNT: &str = ".num_batches_tracked";

/// A block's place in the network.
pub(super) struct BlockShape {
    /// Channels in and out.
    pub(super) channels: [usize; 2],
    pub(super) kernel: [usize; 3],
    pub(super) stride: [usize; 3],
    /// Whether the convolution has a bias.
    pub(super) bias: bool,
    /// Slope of the activation; 1 for none.
    pub(super) slope: f32,
}

/// A norm's statistics and weights on the host.
struct RunningNorm {
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    mean: Vec<f32>,
    var: Vec<f32>,
    eps: f32,
}

/// Hands out layers in the network's order and remembers their weights.
pub(super) struct Loader<'a> {
    pub(super) device: &'a Device,
    pub(super) dtype: DType,
    pub(super) architecture: &'a UNetArchitecture,
    pub(super) source: Source<'a>,
    pub(super) parameters: Vec<Parameter>,
}

impl Loader<'_> {
    /// Refuses a file with weights that the network has not asked for: they belong to another network.
    pub(super) fn expect_nothing_left(&self) -> Result<()> {
        let Source::File(weights, used) = &self.source else { return Ok(()) };
        let left = |name: &&str| {
            !used.contains(*name)
                && !REPEATED.iter().any(|part| name.contains(part))
                && !name.starts_with(HEADS)
                && !name.ends_with(COUNT)
        };
        match weights.names().find(left) {
            None => Ok(()),
            Some(name) => {
                let reason = format!(
                    "tensor '{}' belongs to no layer of the plans' network: expected the weights of that network alone",
                    shown(name)
                );
                Err(Error::file(weights.path(), reason))
            }
        }
    }

    fn values(&mut self, name: &str, shape: &[usize], initial: Initial) -> Result<Vec<f32>> {
        match &mut self.source {
            Source::File(weights, used) => {
                let (found, values) = weights.get(name)?;
                if found != shape {
                    let reason = format!("tensor '{name}': expected shape {shape:?}, found {found:?}");
                    return Err(Error::file(weights.path(), reason));
                }
                if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                    let reason = format!("tensor '{name}': expected finite values, found {bad}");
                    return Err(Error::file(weights.path(), reason));
                }
                used.insert(name.to_owned());
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

    /// A kernel's shape as PyTorch has it: without the depth of 1 in a 2D network.
    fn stored_shape(&self, shape: [usize; 5]) -> Vec<usize> {
        let [a, b, _, h, w] = shape;
        if self.architecture.planar { vec![a, b, h, w] } else { shape.to_vec() }
    }

    fn kernel(&mut self, name: String, shape: [usize; 5], fan_in: usize) -> Result<Tensor> {
        let stored = self.stored_shape(shape);
        let values = self.values(&name, &stored, Initial::He { fan_in })?;
        let tensor = Tensor::from_ncdhw(self.device, shape, self.dtype, &values)?;
        self.parameters.push(Parameter { name, shape: stored, value: ParameterValue::Tensor(tensor.clone()) });
        Ok(tensor)
    }

    fn vector(&mut self, name: String, len: usize, initial: f32) -> Result<Tensor> {
        let values = self.values(&name, &[len], Initial::Constant(initial))?;
        let tensor = Tensor::vector(self.device, &values)?;
        self.parameters.push(Parameter { name, shape: vec![len], value: ParameterValue::Tensor(tensor.clone()) });
        Ok(tensor)
    }

    /// A weight that is kept on the host.
    fn folded(&mut self, name: String, shape: &[usize], initial: Initial) -> Result<Vec<f32>> {
        let values = self.values(&name, shape, initial)?;
        let value = ParameterValue::Folded(values.clone());
        self.parameters.push(Parameter { name, shape: shape.to_vec(), value });
        Ok(values)
    }

    /// The convolution `name`, padded by (k - 1) / 2.
    pub(super) fn conv(&mut self, name: &str, shape: &BlockShape) -> Result<ConvLayer> {
        let ([input, output], [kd, kh, kw]) = (shape.channels, shape.kernel);
        let weight = self.kernel(format!("{name}.weight"), [output, input, kd, kh, kw], input * kd * kh * kw)?;
        let bias = if shape.bias { Some(self.vector(format!("{name}.bias"), output, 0.0)?) } else { None };
        Ok(ConvLayer { weight, bias, params: params(shape) })
    }

    /// The block `name`: `name.conv` and `name.norm`.
    pub(super) fn block(&mut self, name: &str, shape: &BlockShape) -> Result<ConvBlock> {
        let (slope, nonlin_first) = (shape.slope, self.architecture.nonlin_first && shape.slope != 1.0);
        let conv_name = format!("{name}.conv");
        let (conv, norm) = match self.architecture.norm {
            UNetNorm::Running { affine, eps } if !nonlin_first => {
                (self.folded_conv(&conv_name, &format!("{name}.norm"), shape, affine, eps)?, NormLayer::None)
            }
            UNetNorm::None => (self.conv(&conv_name, shape)?, NormLayer::None),
            UNetNorm::Instance { affine, eps } => {
                let conv = self.conv(&conv_name, shape)?;
                let [weight, bias] = self.affine(&format!("{name}.norm"), shape.channels[1], affine)?;
                (conv, NormLayer::Instance { weight, bias, eps })
            }
            UNetNorm::Running { affine, eps } => {
                let conv = self.conv(&conv_name, shape)?;
                let [weight, bias] = self.affine(&format!("{name}.norm"), shape.channels[1], affine)?;
                let mean = self.vector(format!("{name}.norm.running_mean"), shape.channels[1], 0.0)?;
                let var = self.vector(format!("{name}.norm.running_var"), shape.channels[1], 1.0)?;
                (conv, NormLayer::Running { weight, bias, statistics: Box::new([mean, var]), eps })
            }
        };
        Ok(ConvBlock { conv, norm, slope, nonlin_first })
    }

    fn affine(&mut self, name: &str, channels: usize, affine: bool) -> Result<[Option<Tensor>; 2]> {
        if !affine {
            return Ok([None, None]);
        }
        let weight = self.vector(format!("{name}.weight"), channels, 1.0)?;
        Ok([Some(weight), Some(self.vector(format!("{name}.bias"), channels, 0.0)?)])
    }

    /// A convolution with the norm behind it folded in: w' = w g / sqrt(var + eps) and b' = beta + (b - mean) g / sqrt(var + eps),
    /// in f64.
    fn folded_conv(&mut self, name: &str, norm: &str, shape: &BlockShape, affine: bool, eps: f32) -> Result<ConvLayer> {
        let ([input, output], [kd, kh, kw]) = (shape.channels, shape.kernel);
        let full = [output, input, kd, kh, kw];
        let (stored, fan_in) = (self.stored_shape(full), input * kd * kh * kw);
        let mut weight = self.folded(format!("{name}.weight"), &stored, Initial::He { fan_in })?;
        let vector =
            |loader: &mut Self, name: String, initial: f32| loader.folded(name, &[output], Initial::Constant(initial));
        let bias = if shape.bias { Some(vector(self, format!("{name}.bias"), 0.0)?) } else { None };
        let norm = RunningNorm {
            weight: if affine { Some(vector(self, format!("{norm}.weight"), 1.0)?) } else { None },
            bias: if affine { Some(vector(self, format!("{norm}.bias"), 0.0)?) } else { None },
            mean: vector(self, format!("{norm}.running_mean"), 0.0)?,
            var: vector(self, format!("{norm}.running_var"), 1.0)?,
            eps,
        };
        let mut folded = Vec::with_capacity(output);
        for (channel, row) in weight.chunks_mut(fan_in).enumerate() {
            let spread = f64::from(norm.var[channel]) + f64::from(norm.eps);
            if spread <= 0.0 {
                let reason = format!("'{name}', norm variance: expected 0 or more, found {}", norm.var[channel]);
                return Err(Error::Data(reason));
            }
            let scale = norm.weight.as_ref().map_or(1.0, |w| f64::from(w[channel])) / spread.sqrt();
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            let bias = bias.as_ref().map_or(0.0, |b| f64::from(b[channel])) - f64::from(norm.mean[channel]);
            folded.push((norm.bias.as_ref().map_or(0.0, |b| f64::from(b[channel])) + bias * scale) as f32);
        }
        Ok(ConvLayer {
            weight: Tensor::from_ncdhw(self.device, full, self.dtype, &weight)?,
            bias: Some(Tensor::vector(self.device, &folded)?),
            params: params(shape),
        })
    }

    /// The transposed convolution `name`, its kernel being its stride.
    pub(super) fn up(&mut self, name: &str, channels: [usize; 2], stride: [usize; 3]) -> Result<UpLayer> {
        let [input, output] = channels;
        let [kd, kh, kw] = stride;
        // Each output voxel is reached by one input voxel.
        let weight = self.kernel(format!("{name}.weight"), [input, output, kd, kh, kw], input)?;
        let bias =
            if self.architecture.conv_bias { Some(self.vector(format!("{name}.bias"), output, 0.0)?) } else { None };
        Ok(UpLayer { weight, bias, stride })
    }
}

fn params(shape: &BlockShape) -> Conv3dParams {
    let padding = shape.kernel.map(|k| (k - 1) / 2);
    Conv3dParams { stride: shape.stride, padding, ..Default::default() }
}
