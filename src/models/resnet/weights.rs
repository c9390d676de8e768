//! Folded convolutions from parameters with torchvision's names, and seeded weights with the same names.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{BATCH_NORM_EPS, Block, BlockLayout, Conv, FUSION, ResNetConfig};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::ops::Conv3dParams;
use crate::shown;
use crate::tensor::{DType, Tensor};

/// Reads parameters whose names have a prefix, and stores them on a device.
pub(super) struct Reader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    dtype: DType,
    prefix: &'static str,
    used: RefCell<BTreeSet<String>>,
}

/// The prefix of names in the authors' files.
pub(crate) const PREFIX: &str = "resnet.";
/// The ending of PyTorch's counters of batches, which inference does not use.
const COUNT: &str = ".num_batches_tracked";

impl<'a> Reader<'a> {
    pub(super) fn new(weights: &'a Weights, device: &'a Device, dtype: DType) -> Self {
        let prefix = if weights.names().any(|name| name.starts_with(PREFIX)) { PREFIX } else { "" };
        Self { weights, device, dtype, prefix, used: RefCell::default() }
    }

    /// Checks that every weight was used.
    ///
    /// # Errors
    /// [`Error::File`] for a weight that the network does not have.
    pub(super) fn nothing_left(&self, depth: usize) -> Result<()> {
        let used = self.used.borrow();
        match self.weights.names().find(|name| !used.contains(*name) && !name.ends_with(COUNT)) {
            None => Ok(()),
            Some(name) => {
                let reason = format!("expected only the weights of a ResNet-{depth}, found '{}' too", shown(name));
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

    /// A convolution with the weight [co, ci, kh, kw] and padding (k - 1) / 2.
    fn conv(&self, [co, ci, kh, kw]: [usize; 4], weight: &[f32], bias: Option<&[f32]>, stride: usize) -> Result<Conv> {
        Ok(Conv {
            weight: Tensor::from_ncdhw(self.device, [co, ci, 1, kh, kw], self.dtype, weight)?,
            bias: bias.map(|b| Tensor::vector(self.device, b)).transpose()?,
            params: Conv3dParams {
                stride: [1, stride, stride],
                padding: [0, (kh - 1) / 2, (kw - 1) / 2],
                ..Conv3dParams::default()
            },
        })
    }

    /// A convolution without a batch norm, whose name has no prefix.
    pub(super) fn plain_conv(&self, name: &str, shape: [usize; 4]) -> Result<Conv> {
        self.conv(shape, &self.read(name, &shape)?, None, 1)
    }

    /// A convolution with the batch norm after it folded in.
    pub(super) fn conv_bn(&self, conv: &str, norm: &str, shape: [usize; 4], stride: usize) -> Result<Conv> {
        let prefix = self.prefix;
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
        self.conv(shape, &weight, Some(&bias), stride)
    }

    /// A residual block.
    pub(super) fn block(&self, block: &BlockLayout) -> Result<Block> {
        let name = &block.name;
        let projection = block.projection.map(|(shape, stride)| {
            self.conv_bn(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), shape, stride)
        });
        let projection = projection.transpose()?;
        let conv = |(&(shape, stride), i): (&([usize; 4], usize), usize)| {
            self.conv_bn(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), shape, stride)
        };
        let convs = block.convs.iter().zip(1..).map(conv).collect::<Result<_>>()?;
        Ok(Block { convs, projection })
    }

    pub(super) fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<(Tensor, Tensor)> {
        let weight = self.read(&format!("{}{name}.weight", self.prefix), &[outputs, inputs])?;
        let bias = self.read(&format!("{}{name}.bias", self.prefix), &[outputs])?;
        let weight = Tensor::from_ncdhw(self.device, [outputs, inputs, 1, 1, 1], self.dtype, &weight)?;
        Ok((weight, Tensor::vector(self.device, &bias)?))
    }
}

/// Random weights from a seed, with torchvision's names: convolutions are normal after He (fan out); batch norms are the identity,
/// except that the last one of each block has a gain of 0.2, which keeps 33 residual additions from overflowing f16.
///
/// # Errors
/// As [`ResNetConfig::ensure_valid`].
pub fn seeded_weights(config: &ResNetConfig, seed: u64) -> Result<Weights> {
    let mut draw = Draw { rng: ChaCha8Rng::seed_from_u64(seed), weights: Weights::default() };
    let prefix = if config.fusion { PREFIX } else { "" };
    if config.fusion {
        // The fusion convolution is close to the identity, where training starts.
        let identity: [f32; 9] = std::array::from_fn(|i| if i % 4 == 0 { 1.0 } else { 0.0 });
        draw.weights.insert(FUSION, vec![3, 3, 1, 1], &identity)?;
    }
    draw.conv_bn(&format!("{prefix}conv1"), &format!("{prefix}bn1"), config.stem(), 1.0)?;
    let layout = config.layout()?;
    for block in &layout {
        let (name, last) = (format!("{prefix}{}", block.name), block.convs.len());
        for ((shape, _), i) in block.convs.iter().zip(1..) {
            let gain = if i == last { 0.2 } else { 1.0 };
            draw.conv_bn(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), *shape, gain)?;
        }
        if let Some((shape, _)) = block.projection {
            draw.conv_bn(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), shape, 1.0)?;
        }
    }
    let channels = layout.last().map_or(config.width, |block| block.out);
    let sd = 1.0 / (channels as f64).sqrt();
    draw.normal(&format!("{prefix}fc.weight"), vec![config.classes, channels], sd)?;
    draw.weights.insert(format!("{prefix}fc.bias"), vec![config.classes], &vec![0.0; config.classes])?;
    Ok(draw.weights)
}

struct Draw {
    rng: ChaCha8Rng,
    weights: Weights,
}

impl Draw {
    fn normal(&mut self, name: &str, shape: Vec<usize>, sd: f64) -> Result<()> {
        let len = shape.iter().product();
        let data: Vec<f32> =
            (0..len).map(|_| (Distribution::<f64>::sample(&StandardNormal, &mut self.rng) * sd) as f32).collect();
        self.weights.insert(name, shape, &data)
    }

    fn conv_bn(&mut self, conv: &str, norm: &str, shape: [usize; 4], gain: f32) -> Result<()> {
        let [co, _, kh, kw] = shape;
        self.normal(&format!("{conv}.weight"), shape.to_vec(), (2.0 / (co * kh * kw) as f64).sqrt())?;
        for (part, value) in [("weight", gain), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            self.weights.insert(format!("{norm}.{part}"), vec![co], &vec![value; co])?;
        }
        Ok(())
    }
}
