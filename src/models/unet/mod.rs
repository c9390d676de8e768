//! The U-Nets of nnU-Net v2.

mod architecture;
mod labels;
mod loader;
mod memory;
mod plan;
mod plan_data;
mod plans_architecture;
mod previous_stage;

use std::path::Path;

use tracing::debug_span;

pub use architecture::{ResidualEncoder, UNetArchitecture, UNetEncoder, UNetNorm};
pub use labels::{Target, TargetLabels};
use loader::{BlockShape, Loader, Parameter, ParameterValue, Source};
pub use plan::UNetPlan;
pub(crate) use plan::channel_names;
pub(crate) use plan_data::reader_by_name;
pub use plan_data::{
    ChannelNormalization, ImageReader, Normalization, Order, OrientationRule, Resampling, SeparateAxis,
};
pub use previous_stage::PreviousStage;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::{self, Storage, TrainingNotes, Weights};
use crate::nn::{ConvBlock, ConvLayer, DecoderBlock, ResidualBlock, SqueezeExcitation, forward_blocks};
use crate::ops::ensure_same_device;
use crate::ops::span::{self, OpSpan};
use crate::tensor::{DType, Tensor};

/// A U-Net with its weights on a device.
///
/// Weights carry nnU-Net's own names (`encoder.stages.0.0.convs.0.conv.weight`, `encoder.stages.0.blocks.0.conv1.conv.weight`,
/// `decoder.transpconvs.0.weight`, ...). Of the deep-supervision heads only the last, at full resolution, is read. Source:
/// Isensee et al., Nature Methods 18, 2021.
#[derive(Debug, Clone)]
pub struct UNet {
    architecture: UNetArchitecture,
    dtype: DType,
    /// The residual encoder's first block.
    stem: Option<ConvBlock>,
    encoder: Vec<EncoderStage>,
    /// The lowest level first.
    decoder: Vec<DecoderBlock>,
    head: ConvLayer,
    /// All weights in the order of the network. They share their data with the layers.
    parameters: Vec<Parameter>,
}

/// The blocks of a stage.
#[derive(Debug, Clone)]
enum EncoderStage {
    Plain(Vec<ConvBlock>),
    Residual(Vec<ResidualBlock>),
}

impl UNet {
    /// Weights from a safetensors file or a checkpoint of PyTorch (nnU-Net's own), held on `device` as `dtype` (norm weights and
    /// biases always f32).
    ///
    /// # Errors
    /// An impossible architecture; a file that cannot be read; a tensor that is missing, belongs to no layer, has another shape
    /// or a value that is not finite (the message names file, tensor, expected and found); a dtype the device lacks.
    pub fn load(architecture: &UNetArchitecture, path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        Self::from_weights(architecture, &Weights::read(path)?, device, dtype)
    }

    /// As [`UNet::load`], from weights that were read before.
    ///
    /// # Errors
    /// As [`UNet::load`].
    pub fn from_weights(a: &UNetArchitecture, weights: &Weights, device: &Device, dtype: DType) -> Result<Self> {
        Self::build(a, Source::file(weights), device, dtype)
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
        let mut stem = None;
        if let UNetEncoder::Residual(residual) = &a.encoder {
            let shape = loader.shape([channels, residual.stem], a.kernels[0], [1; 3]);
            stem = Some(loader.block("encoder.stem.convs.0", &shape)?);
            channels = residual.stem;
        }
        let mut encoder = Vec::new();
        for (stage, &features) in a.features.iter().enumerate() {
            let (kernel, stride) = (a.kernels[stage], a.strides[stage]);
            encoder.push(match &a.encoder {
                UNetEncoder::Plain(convs) => {
                    let name = format!("encoder.stages.{stage}.0");
                    EncoderStage::Plain(loader.blocks(&name, convs[stage], [channels, features], kernel, stride)?)
                }
                UNetEncoder::Residual(residual) => {
                    EncoderStage::Residual(loader.residual_stage(residual, stage, channels)?)
                }
            });
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
        let shape = BlockShape { bias: true, slope: 1.0, ..loader.shape([channels, a.classes], [1; 3], [1; 3]) };
        let head = loader.conv(&name, &shape)?;
        loader.expect_nothing_left()?;
        let parameters = loader.parameters;
        Ok(Self { architecture: architecture.clone(), dtype, stem, encoder, decoder, head, parameters })
    }

    /// The logits [n, classes, d, h, w] of images x [n, channels, d, h, w] in the network's dtype.
    ///
    /// # Errors
    /// Another device, dtype or number of channels than the network's; a size that is no multiple of the strides
    /// ([`UNetArchitecture::multiple`]); a device that fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [_, channels, d, h, w] = x.shape();
        ensure_same_device("U-Net", &self.head.weight, x)?;
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
        if let Some(stem) = &self.stem {
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "stem"), &device);
            x = forward_blocks(vec![x], std::slice::from_ref(stem))?;
        }
        for (stage, blocks) in self.encoder.iter().enumerate() {
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "encoder stage", stage), &device);
            x = match blocks {
                EncoderStage::Plain(blocks) => forward_blocks(vec![x], blocks)?,
                EncoderStage::Residual(blocks) => blocks.iter().try_fold(x, |x, block| block.forward(x))?,
            };
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
        self.parameters.iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Writes the weights as f32 to a safetensors file, with nnU-Net's names.
    ///
    /// # Errors
    /// A file that cannot be written; a device that fails.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.save_as(path, &TrainingNotes::default(), Storage::F32)
    }

    /// As [`UNet::save`], with what is known of the weights' training, in a type of choice.
    ///
    /// # Errors
    /// As [`UNet::save`]; a weight that f16 cannot hold.
    pub fn save_as(&self, path: &Path, training: &TrainingNotes, storage: Storage) -> Result<()> {
        let values = self
            .parameters
            .iter()
            .map(|p| match &p.value {
                ParameterValue::Tensor(tensor) => tensor.to_ncdhw(),
                ParameterValue::Folded(values) => Ok(values.clone()),
            })
            .collect::<Result<Vec<_>>>()?;
        let tensors: Vec<(&str, &[usize], &[f32])> = self
            .parameters
            .iter()
            .zip(&values)
            .map(|(p, values)| (p.name.as_str(), p.shape.as_slice(), values.as_slice()))
            .collect();
        weights::write_as(path, &tensors, training, storage)
    }
}

impl Loader<'_> {
    /// A convolution block with the network's bias and activation.
    fn shape(&self, channels: [usize; 2], kernel: [usize; 3], stride: [usize; 3]) -> BlockShape {
        BlockShape { channels, kernel, stride, bias: self.architecture.conv_bias, slope: self.architecture.slope }
    }

    /// `count` blocks under `name`: the first from channels[0] to channels[1] with the stride, the others as wide.
    fn blocks(
        &mut self,
        name: &str,
        count: usize,
        channels: [usize; 2],
        kernel: [usize; 3],
        stride: [usize; 3],
    ) -> Result<Vec<ConvBlock>> {
        let [input, output] = channels;
        let block = |i: usize| {
            let (input, stride) = if i == 0 { (input, stride) } else { (output, [1; 3]) };
            let shape = self.shape([input, output], kernel, stride);
            self.block(&format!("{name}.convs.{i}"), &shape)
        };
        (0..count).map(block).collect()
    }

    /// The residual blocks of a stage, the first from `channels` with the stage's stride.
    fn residual_stage(
        &mut self,
        residual: &ResidualEncoder,
        stage: usize,
        channels: usize,
    ) -> Result<Vec<ResidualBlock>> {
        let a = self.architecture;
        let (features, kernel) = (a.features[stage], a.kernels[stage]);
        let block = |i: usize| {
            let name = format!("encoder.stages.{stage}.blocks.{i}");
            let (input, stride) = if i == 0 { (channels, a.strides[stage]) } else { (features, [1; 3]) };
            let mut shapes = match &residual.bottleneck {
                None => vec![
                    self.shape([input, features], kernel, stride),
                    self.shape([features, features], kernel, [1; 3]),
                ],
                Some(inner) => vec![
                    self.shape([input, inner[stage]], [1; 3], [1; 3]),
                    self.shape([inner[stage]; 2], kernel, stride),
                    self.shape([inner[stage], features], [1; 3], [1; 3]),
                ],
            };
            if let Some(last) = shapes.last_mut() {
                last.slope = 1.0;
            }
            let convs = shapes
                .iter()
                .zip(1..)
                .map(|(shape, number)| self.block(&format!("{name}.conv{number}"), shape))
                .collect::<Result<Vec<_>>>()?;
            let squeeze = |ratio| self.squeeze_excitation(&format!("{name}.squeeze_excitation"), features, ratio);
            let squeeze_excitation = residual.squeeze_excitation.map(squeeze).transpose()?;
            let pool = (stride != [1; 3]).then_some(stride);
            let projection = if input == features {
                None
            } else {
                // nnU-Net numbers the modules of the skip: the pooling, if there is one, then the projection.
                let name = format!("{name}.skip.{}", usize::from(pool.is_some()));
                let shape = BlockShape { bias: false, slope: 1.0, ..self.shape([input, features], [1; 3], [1; 3]) };
                Some(self.block(&name, &shape)?)
            };
            Ok(ResidualBlock { convs, pool, projection, squeeze_excitation, slope: a.slope })
        };
        (0..residual.blocks[stage]).map(block).collect()
    }

    /// The two convolutions of a squeeze-excitation of so many channels.
    fn squeeze_excitation(&mut self, name: &str, features: usize, ratio: f64) -> Result<SqueezeExcitation> {
        let mut conv = |part: &str, channels| {
            let shape = BlockShape { bias: true, slope: 1.0, ..self.shape(channels, [1; 3], [1; 3]) };
            self.conv(&format!("{name}.{part}"), &shape)
        };
        let squeezed = ResidualEncoder::squeezed(features, ratio);
        let (reduce, expand) = (conv("fc1", [features, squeezed])?, conv("fc2", [squeezed, features])?);
        Ok(SqueezeExcitation { reduce, expand, planar: self.architecture.planar })
    }
}
