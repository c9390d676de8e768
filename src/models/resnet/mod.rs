//! torchvision's ResNets (18 and 34 with basic blocks; 50, 101 and 152 with bottlenecks), optionally after the authors' 1x1 fusion
//! convolution.
//!
//! Images are [n, 3, 1, h, w] with one phase in each channel. The networks are for inference only: every batch norm is folded into
//! the convolution before it. Sources: He et al., CVPR 2016, for residual networks; torchvision for the names of parameters and the
//! stride on the 3x3 convolution.

mod blocks;
mod weights;

use tracing::debug_span;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::models::folded::{Conv, ConvSpec, Reader};
use crate::ops::span::{self, OpSpan};
use crate::ops::{self, ConvEpilogue, Pool3dParams};
use crate::tensor::{DType, Tensor};

pub(super) use blocks::Block;
pub(crate) use blocks::{BlockLayout, stages};
pub(crate) use weights::PREFIX;
pub use weights::seeded_weights;

/// The configuration of a ResNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResNetConfig {
    /// The depth: 18, 34, 50, 101 or 152.
    pub depth: usize,
    /// Number of channels of the 3x3 convolutions of the first stage, 1 to 1024; each stage has twice as many as the one before. 64 in
    /// torchvision.
    pub width: usize,
    /// Number of outputs of the last layer.
    pub classes: usize,
    /// Whether there is a 1x1 convolution from 3 to 3 channels without bias before the first layer, [`FUSION`].
    pub fusion: bool,
}

/// The name of the fusion convolution's weight. In the authors' files every other name has the prefix `resnet.`, in torchvision's
/// none has; both are read.
pub const FUSION: &str = "fusion.weight";

/// The width of torchvision's networks.
pub const TORCHVISION_WIDTH: usize = 64;
/// Largest width.
const MAX_WIDTH: usize = 1024;
/// The max pooling behind the first convolution: 3x3, stride 2.
pub(super) const STEM_POOL: Pool3dParams = Pool3dParams { kernel: [1, 3, 3], stride: [1, 2, 2], padding: [0, 1, 1] };

impl ResNetConfig {
    /// Checks depth and width.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not in the family, or a width that is out of range.
    pub fn ensure_valid(&self) -> Result<()> {
        self.blocks()?;
        if (1..=MAX_WIDTH).contains(&self.width) {
            return Ok(());
        }
        Err(Error::argument("resnet: width", format!("1 to {MAX_WIDTH}"), self.width))
    }

    /// Number of blocks of each stage.
    ///
    /// # Errors
    /// [`Error::Argument`] for another depth.
    pub fn blocks(&self) -> Result<[usize; 4]> {
        match self.depth {
            18 => Ok([2, 2, 2, 2]),
            34 | 50 => Ok([3, 4, 6, 3]),
            101 => Ok([3, 4, 23, 3]),
            152 => Ok([3, 8, 36, 3]),
            other => Err(Error::argument("resnet: depth", "18, 34, 50, 101 or 152", other)),
        }
    }

    /// Every block in the order of the network.
    ///
    /// # Errors
    /// As [`ResNetConfig::ensure_valid`].
    pub(crate) fn layout(&self) -> Result<Vec<BlockLayout>> {
        Ok(stages(self, [false; 3])?.into_iter().flatten().collect())
    }

    /// The first convolution.
    pub(crate) fn stem(&self) -> ConvSpec {
        ConvSpec::new([self.width, 3, 7, 7]).strided(2)
    }

    /// Whether blocks are bottlenecks; else they are basic blocks.
    fn bottlenecks(&self) -> bool {
        self.depth >= 50
    }

    /// Number of output channels of a block of `width`.
    fn outputs(&self, width: usize) -> usize {
        if self.bottlenecks() { 4 * width } else { width }
    }
}

/// The fusion convolution.
pub(crate) fn fusion_conv() -> ConvSpec {
    ConvSpec::new([3, 3, 1, 1])
}

/// A network on a device, ready for inference.
pub struct ResNet {
    device: Device,
    dtype: DType,
    fusion: Option<Conv>,
    stem: Conv,
    blocks: Vec<Block>,
    head: (Tensor, Tensor),
}

impl ResNet {
    /// A network from weights, which are stored on `device` as `dtype` with batch norms folded in.
    ///
    /// # Errors
    /// [`Error::File`] for a parameter that is missing or has another shape, and for one that this network does not use, so that the
    /// file of a deeper network is not accepted; as [`ResNetConfig::ensure_valid`].
    pub fn new(config: &ResNetConfig, weights: &Weights, device: &Device, dtype: DType) -> Result<Self> {
        config.ensure_valid()?;
        let prefix = if weights.names().any(|name| name.starts_with(PREFIX)) { PREFIX } else { "" };
        let reader = Reader::new(weights, device, dtype, prefix);
        let fusion = config.fusion.then(|| reader.plain_conv(FUSION, fusion_conv())).transpose()?;
        let stem = reader.conv_bn("conv1", "bn1", config.stem())?;
        let layout = config.layout()?;
        let blocks = layout.iter().map(|block| Block::read(&reader, block)).collect::<Result<_>>()?;
        let channels = layout.last().map_or(config.width, |block| block.out);
        let head = reader.linear("fc", config.classes, channels)?;
        reader.rest(&format!("a ResNet-{}", config.depth), None)?;
        Ok(Self { device: device.clone(), dtype, fusion, stem, blocks, head })
    }

    /// The logits [n, classes, 1, 1, 1] of images [n, 3, 1, h, w].
    ///
    /// # Errors
    /// Images of another shape; a device that fails.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let [_, channels, depth, _, _] = images.shape();
        if (channels, depth) != (3, 1) {
            return Err(Error::shape("resnet: images", "[n, 3, 1, h, w]", format!("{:?}", images.shape())));
        }
        self.device.on_device_thread(|| self.layers(images))
    }

    fn layers(&self, images: &Tensor) -> Result<Tensor> {
        let mut x = match &self.fusion {
            Some(fusion) => fusion.forward(images, &ConvEpilogue::NONE)?,
            None => images.clone(),
        };
        x = self.stem.forward(&x, &ConvEpilogue::RELU)?;
        x = ops::max_pool3d(&x, &STEM_POOL)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let _span = OpSpan::enter(debug_span!(target: span::TARGET, "block", i), &self.device);
            x = block.forward(&x)?;
        }
        let [_, _, _, h, w] = x.shape();
        x = ops::avg_pool3d(&x, &Pool3dParams { kernel: [1, h, w], stride: [1, 1, 1], padding: [0; 3] })?;
        ops::linear(&x, &self.head.0, Some(&self.head.1))
    }

    /// The softmax of the logits: one row of class probabilities for each image. `images` are f32 in PyTorch's order [n, 3, h, w].
    ///
    /// # Errors
    /// As [`ResNet::forward`].
    pub fn probabilities(&self, images: &[f32], [n, h, w]: [usize; 3]) -> Result<Vec<Vec<f32>>> {
        let x = Tensor::from_ncdhw(&self.device, [n, 3, 1, h, w], self.dtype, images)?;
        let rows = ops::softmax(&self.forward(&x)?)?;
        let classes = rows.shape()[1];
        Ok(rows.to_ndhwc()?.chunks(classes.max(1)).map(<[f32]>::to_vec).collect())
    }
}
