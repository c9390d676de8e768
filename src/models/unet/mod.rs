//! The plain convolutional U-Net of nnU-Net v2.

mod architecture;
mod memory;
mod parameters;
mod plan;

pub use architecture::UNetArchitecture;
pub use plan::{Normalization, OrientationRule, SeparateAxis, UNetPlan};

use std::path::Path;

use parameters::{Loader, Parameter, Source};
use tracing::debug_span;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::{self, Weights};
use crate::nn::{ConvBlock, ConvLayer, DecoderBlock, forward_blocks};
use crate::ops::expect_same_device;
use crate::ops::span::{self, OpSpan};
use crate::tensor::{DType, Tensor};

/// A U-Net with its weights on a device.
///
/// Weights have nnU-Net's names (`encoder.stages.0.0.convs.0.conv.weight`, `decoder.transpconvs.0.weight`, ...). Of the heads for
/// deep supervision only the last one, at full resolution, is read. Source: Isensee et al., Nature Methods 18, 2021.
#[derive(Debug, Clone)]
pub struct UNet {
    architecture: UNetArchitecture,
    dtype: DType,
    encoder: Vec<Vec<ConvBlock>>,
    /// The levels of the decoder, the lowest first.
    decoder: Vec<DecoderBlock>,
    head: ConvLayer,
    /// All weights in the order of the network. They share their data with the layers.
    parameters: Vec<Parameter>,
}

impl UNet {
    /// Reads weights from a safetensors file or a checkpoint of PyTorch (such as nnU-Net's) and stores them on `device` as `dtype`;
    /// weights of norms and biases are always f32. Tensors that the network does not use are ignored.
    ///
    /// # Errors
    /// An invalid architecture; a file that cannot be read; a tensor that is missing, has another shape or a value that is not
    /// finite; a dtype that the device does not support.
    pub fn load(architecture: &UNetArchitecture, path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        Self::from_weights(architecture, &Weights::read(path)?, device, dtype)
    }

    /// As [`UNet::load`], from weights that were read before.
    ///
    /// # Errors
    /// As [`UNet::load`].
    pub fn from_weights(a: &UNetArchitecture, weights: &Weights, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(a, Source::File(weights), device, dtype)
    }

    /// A network with random weights from `seed` (ChaCha8): convolutions are normal after He et al. 2015, biases 0, weights of norms
    /// 1. A seed gives the same weights on every machine.
    ///
    /// # Errors
    /// An invalid architecture; a dtype that the device does not support.
    pub fn seeded(architecture: &UNetArchitecture, seed: u64, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(architecture, Source::seeded(seed), device, dtype)
    }

    fn build(architecture: &UNetArchitecture, source: Source<'_>, device: &Device, dtype: DType) -> Result<Self> {
        architecture.ensure_valid()?;
        if !dtype.is_float() || !device.supports(dtype) {
            return Err(Error::argument("U-Net: dtype", format!("a float type of {}", device.name()), dtype));
        }
        let a = architecture;
        let mut loader = Loader { device, dtype, architecture, source, parameters: Vec::new() };
        let mut channels = a.input_channels;
        let mut encoder = Vec::new();
        for (stage, &features) in a.features.iter().enumerate() {
            let name = format!("encoder.stages.{stage}.0");
            let kernel = a.kernels[stage];
            encoder.push(loader.blocks(
                &name,
                a.encoder_convs[stage],
                [channels, features],
                kernel,
                a.strides[stage],
            )?);
            channels = features;
        }
        let mut decoder = Vec::new();
        for (level, &convs) in a.decoder_convs.iter().enumerate() {
            let stage = a.features.len() - 2 - level;
            let features = a.features[stage];
            let stride = a.strides[stage + 1];
            let up = loader.up(&format!("decoder.transpconvs.{level}"), [channels, features], stride)?;
            let name = format!("decoder.stages.{level}");
            let convs = loader.blocks(&name, convs, [2 * features, features], a.kernels[stage], [1; 3])?;
            decoder.push(DecoderBlock { up, convs });
            channels = features;
        }
        let name = format!("decoder.seg_layers.{}", a.decoder_convs.len() - 1);
        let head = loader.conv(&name, [channels, a.classes], [1; 3], [1; 3], true)?;
        let parameters = loader.parameters;
        Ok(Self { architecture: architecture.clone(), dtype, encoder, decoder, head, parameters })
    }

    /// The logits [n, classes, d, h, w] of images x [n, channels, d, h, w] in the network's dtype.
    ///
    /// # Errors
    /// Another device, dtype or number of channels than the network's; a size that is no multiple of the strides
    /// ([`UNetArchitecture::multiple`]); a device that fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [_, channels, d, h, w] = x.shape();
        expect_same_device("U-Net", &self.head.weight, x)?;
        if x.dtype() != self.dtype {
            return Err(Error::argument("U-Net: dtype", self.dtype, x.dtype()));
        }
        if channels != self.architecture.input_channels {
            return Err(Error::shape("U-Net: channels", self.architecture.input_channels, channels));
        }
        self.architecture.ensure_size("U-Net: input size", [d, h, w])?;
        self.device().on_device_thread(|| self.layers(x.clone()))
    }

    fn layers(&self, mut x: Tensor) -> Result<Tensor> {
        let mut skips = Vec::new();
        let device = self.device();
        for (stage, blocks) in self.encoder.iter().enumerate() {
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "encoder stage", stage), &device);
            x = forward_blocks(vec![x], blocks)?;
            if stage + 1 < self.encoder.len() {
                skips.push(x.clone());
            }
        }
        for block in &self.decoder {
            let Some(skip) = skips.pop() else { break };
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "decoder stage", stage = skips.len()), &device);
            x = block.forward(x, skip)?;
        }
        let _span = OpSpan::enter(debug_span!(target: span::TARGET, "head"), &device);
        self.head.forward(&x)
    }

    /// The architecture of the network.
    pub fn architecture(&self) -> &UNetArchitecture {
        &self.architecture
    }

    /// The storage type of weights and activations.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device of the weights.
    pub fn device(&self) -> Device {
        self.head.weight.device()
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.parameters.iter().map(|p| p.tensor.len()).sum()
    }

    /// Writes the weights as f32 to a safetensors file, with nnU-Net's names.
    ///
    /// # Errors
    /// A file that cannot be written; a device that fails.
    pub fn save(&self, path: &Path) -> Result<()> {
        let values = self.parameters.iter().map(|p| p.tensor.to_ncdhw()).collect::<Result<Vec<_>>>()?;
        let tensors: Vec<(&str, &[usize], &[f32])> = self
            .parameters
            .iter()
            .zip(&values)
            .map(|(p, values)| (p.name.as_str(), p.shape.as_slice(), values.as_slice()))
            .collect();
        weights::write(path, &tensors)
    }
}

impl Loader<'_> {
    /// The `count` blocks of `name`. The first has channels[0] inputs, channels[1] outputs and the stride; the others have channels[1]
    /// inputs and outputs and stride 1.
    fn blocks(
        &mut self,
        name: &str,
        count: usize,
        channels: [usize; 2],
        kernel: [usize; 3],
        stride: [usize; 3],
    ) -> Result<Vec<ConvBlock>> {
        let (bias, slope) = (self.architecture.conv_bias, self.architecture.slope);
        let [input, output] = channels;
        let block = |i: usize| {
            let (input, stride) = if i == 0 { (input, stride) } else { (output, [1; 3]) };
            let conv = self.conv(&format!("{name}.convs.{i}.conv"), [input, output], kernel, stride, bias)?;
            let norm = self.norm(&format!("{name}.convs.{i}.norm"), output)?;
            Ok(ConvBlock { conv, norm, slope })
        };
        (0..count).map(block).collect()
    }
}
