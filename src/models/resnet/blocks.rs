//! The residual blocks of a ResNet: their convolutions, and the blocks with weights.

use crate::error::Result;
use crate::models::folded::{Conv, ConvSpec, Reader};
use crate::ops::ConvEpilogue;
use crate::tensor::Tensor;

use super::ResNetConfig;

/// The convolutions of a residual block.
pub(crate) struct BlockLayout {
    /// The name before those of its parameters, such as `layer1.0`.
    pub(crate) name: String,
    /// `conv1`, `conv2`, ..., each with a batch norm of the same number.
    pub(crate) convs: Vec<ConvSpec>,
    /// `downsample.0`, where size or channels change.
    pub(crate) projection: Option<ConvSpec>,
    /// Number of output channels.
    pub(crate) out: usize,
}

/// Every block of each of the four stages `layer1` to `layer4`. `dilated` tells for layer2 to layer4 whether dilation replaces the stride, as
/// torchvision's `replace_stride_with_dilation`: the stage then has stride 1, its first block keeps the dilation before it, and from its
/// second block on every 3x3 convolution has twice that dilation.
///
/// # Errors
/// As [`ResNetConfig::ensure_valid`].
pub(crate) fn stages(config: &ResNetConfig, dilated: [bool; 3]) -> Result<[Vec<BlockLayout>; 4]> {
    config.ensure_valid()?;
    let (mut channels, mut dilation) = (config.width, 1);
    let mut stages: [Vec<BlockLayout>; 4] = Default::default();
    for (stage, count) in config.blocks()?.into_iter().enumerate() {
        let width = config.width << stage;
        let replaced = stage > 0 && dilated[stage - 1];
        let before = dilation;
        if replaced {
            dilation *= 2;
        }
        for block in 0..count {
            let stride = if block == 0 && stage > 0 && !replaced { 2 } else { 1 };
            let out = config.outputs(width);
            let convs = convs(config, [channels, width], stride, if block == 0 { before } else { dilation });
            let projection = ConvSpec::new([out, channels, 1, 1]).strided(stride);
            stages[stage].push(BlockLayout {
                name: format!("layer{}.{block}", stage + 1),
                convs,
                projection: (stride != 1 || channels != out).then_some(projection),
                out,
            });
            channels = out;
        }
    }
    Ok(stages)
}

/// The convolutions of a block. A bottleneck is 1x1, 3x3 with stride and dilation, and 1x1 to four times as many channels. A basic block is
/// two 3x3 convolutions, the first with the stride.
fn convs(config: &ResNetConfig, [channels, width]: [usize; 2], stride: usize, dilation: usize) -> Vec<ConvSpec> {
    let out = config.outputs(width);
    if config.bottlenecks() {
        let middle = ConvSpec::new([width, width, 3, 3]).strided(stride).dilated(dilation);
        vec![ConvSpec::new([width, channels, 1, 1]), middle, ConvSpec::new([out, width, 1, 1])]
    } else {
        let first = ConvSpec::new([width, channels, 3, 3]).strided(stride).dilated(dilation);
        vec![first, ConvSpec::new([out, width, 3, 3]).dilated(dilation)]
    }
}

/// A residual block: convolutions with ReLUs between them, whose result is added to the input or to its strided 1x1 projection.
pub(in crate::models) struct Block {
    convs: Vec<Conv>,
    projection: Option<Conv>,
}

impl Block {
    /// A block of the parameters of its name.
    ///
    /// # Errors
    /// A parameter that is missing or has another shape.
    pub(in crate::models) fn read(reader: &Reader<'_>, layout: &BlockLayout) -> Result<Self> {
        let name = &layout.name;
        let projection = layout
            .projection
            .map(|spec| reader.conv_bn(&format!("{name}.downsample.0"), &format!("{name}.downsample.1"), spec));
        let conv =
            |(spec, i): (&ConvSpec, usize)| reader.conv_bn(&format!("{name}.conv{i}"), &format!("{name}.bn{i}"), *spec);
        let convs = layout.convs.iter().zip(1..).map(conv).collect::<Result<_>>()?;
        Ok(Self { convs, projection: projection.transpose()? })
    }

    pub(in crate::models) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let projected = self.projection.as_ref().map(|p| p.forward(x, &ConvEpilogue::NONE)).transpose()?;
        let residual = projected.as_ref().unwrap_or(x);
        let mut y = x.clone();
        for (i, conv) in self.convs.iter().enumerate() {
            let last = i + 1 == self.convs.len();
            y = conv.forward(&y, &ConvEpilogue { residual: last.then_some(residual), ..ConvEpilogue::RELU })?;
        }
        Ok(y)
    }
}
