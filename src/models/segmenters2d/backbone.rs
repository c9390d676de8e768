//! The ResNet below the heads, with dilation in place of the stride of its last stages.

use tracing::debug_span;

use super::{Architecture, Channels, Head};
use crate::error::Result;
use crate::models::folded::{Conv, Reader};
use crate::models::resnet::{Block, ResNetConfig, STEM_POOL, TORCHVISION_WIDTH, stages};
use crate::ops;
use crate::ops::span::{self, OpSpan};
use crate::tensor::Tensor;

/// What heads read.
pub(super) struct Features {
    /// The output of layer1, of a quarter of the image's size.
    pub(super) low: Tensor,
    /// The output of layer4, of the image's size over the output stride.
    pub(super) high: Tensor,
}

/// The stages of a ResNet.
pub(super) struct Backbone {
    stem: Conv,
    stages: [Vec<Block>; 4],
    channels: Channels,
}

impl Backbone {
    pub(super) fn read(reader: &Reader<'_>, architecture: &Architecture) -> Result<Self> {
        let config = ResNetConfig { depth: architecture.depth, width: TORCHVISION_WIDTH, classes: 0, fusion: false };
        let dilated = match architecture.head {
            Head::Fcn | Head::DeepLabV3 | Head::PspNet => [false, true, true],
            Head::DeepLabV3Plus => [false, false, true],
        };
        let stem = reader.conv_bn("conv1", "bn1", config.stem())?;
        let layout = stages(&config, dilated)?;
        let out = |stage: usize| layout[stage].last().map_or(config.width, |block| block.out);
        let channels = Channels { low: out(0), high: out(3) };
        let mut stages: [Vec<Block>; 4] = Default::default();
        for (stage, blocks) in stages.iter_mut().zip(&layout) {
            *stage = blocks.iter().map(|block| Block::read(reader, block)).collect::<Result<_>>()?;
        }
        Ok(Self { stem, stages, channels })
    }

    pub(super) fn channels(&self) -> Channels {
        self.channels
    }

    pub(super) fn forward(&self, images: &Tensor) -> Result<Features> {
        let device = images.device();
        let mut x = ops::max_pool3d(&super::relu(&self.stem, images)?, &STEM_POOL)?;
        let mut low = None;
        for (stage, blocks) in self.stages.iter().enumerate() {
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "stage", stage), &device);
            for block in blocks {
                x = block.forward(&x)?;
            }
            low.get_or_insert_with(|| x.clone());
        }
        Ok(Features { low: low.unwrap_or_else(|| x.clone()), high: x })
    }
}
