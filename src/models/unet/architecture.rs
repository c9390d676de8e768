//! The shape of nnU-Net's networks: a plain or a residual encoder and a convolutional decoder.

use crate::error::{Error, Result};

/// Limits that no planner comes near; past them sizes would overflow before memory runs out.
pub(super) const MAX_STAGES: usize = 16;
const MAX_CHANNELS: usize = 1 << 16;
const MAX_KERNEL: usize = 31;
/// Blocks or convolutions of a stage.
const MAX_REPEATS: usize = 64;

/// A U-Net of nnU-Net v2: an encoder of stages, the first convolution of each strided; a decoder of transposed convolutions
/// with kernel = stride, concatenation (upsampled, skip) and convolutions; a 1x1x1 head. 2D networks have depth 1.
///
/// Axes are the network's (z, y, x). Source: dynamic-network-architectures, `PlainConvUNet` and `ResidualEncoderUNet`.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetArchitecture {
    /// Channels of the image.
    pub input_channels: usize,
    /// Channels of the logits.
    pub classes: usize,
    /// Channels of each stage.
    pub features: Vec<usize>,
    /// Kernel of each stage, odd along every axis; padding is (k - 1) / 2.
    pub kernels: Vec<[usize; 3]>,
    /// Stride into each stage; the first is 1.
    pub strides: Vec<[usize; 3]>,
    /// What an encoder stage is made of.
    pub encoder: UNetEncoder,
    /// Convolutions of each decoder stage, the lowest first: one fewer than stages.
    pub decoder_convs: Vec<usize>,
    /// Whether convolutions have a bias; the head always has one, a residual block's projection never.
    pub conv_bias: bool,
    /// The normalisation of each convolution's output.
    pub norm: UNetNorm,
    /// Slope of the leaky ReLU below 0: 0 for a ReLU, 1 for no activation.
    pub slope: f32,
    /// Whether the activation of the convolution blocks comes before the norm instead of after it.
    pub nonlin_first: bool,
    /// Whether the network is two-dimensional: its weights are stored without the first kernel axis.
    pub planar: bool,
}

/// The encoder of a [`UNetArchitecture`].
#[derive(Debug, Clone, PartialEq)]
pub enum UNetEncoder {
    /// Blocks of convolution, norm and activation; their number in each stage.
    Plain(Vec<usize>),
    /// A stem and residual blocks.
    Residual(ResidualEncoder),
}

/// A stem block, which keeps the image's size, and stages of residual blocks (He et al. 2019, ResNet-D).
///
/// A block is the activation of the sum of its convolutions' output, without activation after the last norm, and its input:
/// as it is, or average-pooled by the stride, or projected by a 1x1x1 convolution and norm where the channels change. A
/// squeeze-excitation, where there is one, multiplies the convolutions' output before the sum.
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualEncoder {
    /// Blocks of each stage.
    pub blocks: Vec<usize>,
    /// Channels of the stem.
    pub stem: usize,
    /// Channels of the middle convolution in each stage, for bottlenecks of a 1x1x1, a strided and a 1x1x1 convolution; None
    /// for blocks of two convolutions, the first strided.
    pub bottleneck: Option<Vec<usize>>,
    /// Channels of a squeeze-excitation relative to those of its block; None for blocks without.
    pub squeeze_excitation: Option<f64>,
}

impl ResidualEncoder {
    /// Channels between the two convolutions of a squeeze-excitation of `features` channels: a multiple of 8, at least 8.
    ///
    /// Source: dynamic-network-architectures, `make_divisible` with a divisor of 8 and a limit of 0.
    pub(super) fn squeezed(features: usize, ratio: f64) -> usize {
        const DIVISOR: usize = 8;
        let rounded = (features as f64 * ratio + DIVISOR as f64 / 2.0) as usize / DIVISOR * DIVISOR;
        rounded.max(DIVISOR)
    }
}

/// The normalisation behind a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UNetNorm {
    /// None.
    None,
    /// Instance norm over the tile.
    Instance {
        /// Whether it has a weight and a bias.
        affine: bool,
        /// Added to the variance.
        eps: f32,
    },
    /// By the mean and variance that training has collected: batch norm, or an instance norm that tracks them.
    Running {
        /// Whether it has a weight and a bias.
        affine: bool,
        /// Added to the variance.
        eps: f32,
    },
}

impl UNetArchitecture {
    /// The network of nnU-Net's plan for kidneys at 1.5 x 1.5 x 3 mm (Uhm et al. 2021): six stages, 32 to 320 features.
    pub fn kidney(input_channels: usize, classes: usize) -> Self {
        let mut strides = vec![[1; 3], [1, 2, 2]];
        strides.extend([[2; 3]; 4]);
        let mut kernels = vec![[1, 3, 3]];
        kernels.extend([[3; 3]; 5]);
        Self {
            features: vec![32, 64, 128, 256, 320, 320],
            kernels,
            strides,
            ..Self::plain(input_channels, classes, vec![2; 6], vec![2; 5])
        }
    }

    /// A plain network with nnU-Net's defaults (biases, instance norm with weights and eps 1e-5, leaky ReLU of slope 0.01), so
    /// many convolutions in each stage of encoder and decoder, 8 features, 3x3x3 kernels and strides of 2 throughout.
    pub fn plain(input_channels: usize, classes: usize, convs: Vec<usize>, decoder_convs: Vec<usize>) -> Self {
        let stages = convs.len();
        let strides = (0..stages).map(|stage| if stage == 0 { [1; 3] } else { [2; 3] }).collect();
        Self {
            input_channels,
            classes,
            features: vec![8; stages],
            kernels: vec![[3; 3]; stages],
            strides,
            encoder: UNetEncoder::Plain(convs),
            decoder_convs,
            conv_bias: true,
            norm: UNetNorm::Instance { affine: true, eps: 1e-5 },
            slope: 0.01,
            nonlin_first: false,
            planar: false,
        }
    }

    /// Refuses what is no U-Net: lists of unequal length, even kernels, a strided first stage, zeros, absurd sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] with both values.
    pub fn ensure_valid(&self) -> Result<()> {
        let refused =
            |what: &str, expected: &str, found: String| Err(Error::argument(format!("U-Net: {what}"), expected, found));
        let stages = self.features.len();
        if !(2..=MAX_STAGES).contains(&stages) {
            return refused("stages", &format!("2 to {MAX_STAGES}"), stages.to_string());
        }
        let (repeats, mut channels) = match &self.encoder {
            UNetEncoder::Plain(convs) => (convs, Vec::new()),
            UNetEncoder::Residual(residual) => {
                let inner = residual.bottleneck.clone().unwrap_or(vec![1; stages]);
                if inner.len() != stages {
                    let expected = format!("one entry for each of {stages} stages");
                    return refused("bottleneck channels", &expected, format!("{inner:?}"));
                }
                let ratio = residual.squeeze_excitation;
                if ratio.is_some_and(|ratio| !(ratio.is_finite() && ratio > 0.0)) {
                    let found = format!("{}", ratio.unwrap_or_default());
                    return refused("reduction ratio of the squeeze-excitation", "a finite number above 0", found);
                }
                let squeezed = self.features.iter().filter_map(|&f| Some(ResidualEncoder::squeezed(f, ratio?)));
                (&residual.blocks, inner.into_iter().chain(squeezed).chain([residual.stem]).collect())
            }
        };
        let lengths = [self.kernels.len(), self.strides.len(), repeats.len(), self.decoder_convs.len() + 1];
        if lengths != [stages; 4] {
            let found = format!("kernels, strides, encoder and decoder (+1) convolutions of {lengths:?}");
            return refused("lists", &format!("one entry for each of {stages} stages"), found);
        }
        channels.extend([self.input_channels, self.classes]);
        channels.extend(&self.features);
        if channels.iter().any(|c| !(1..=MAX_CHANNELS).contains(c)) {
            return refused("channels", &format!("1 to {MAX_CHANNELS}"), format!("{channels:?}"));
        }
        if self.kernels.iter().flatten().any(|k| k % 2 == 0 || *k > MAX_KERNEL) {
            return refused("kernels", &format!("odd sizes up to {MAX_KERNEL}"), format!("{:?}", self.kernels));
        }
        if self.strides[0] != [1; 3] {
            return refused("stride of the first stage", "[1, 1, 1]", format!("{:?}", self.strides[0]));
        }
        if self.strides.iter().flatten().any(|s| !(1..=MAX_KERNEL).contains(s)) {
            return refused("strides", &format!("1 to {MAX_KERNEL}"), format!("{:?}", self.strides));
        }
        if self.planar && self.kernels.iter().chain(&self.strides).any(|size| size[0] != 1) {
            let found = format!("{:?} and {:?}", self.kernels, self.strides);
            return refused("kernels and strides of a 2D network", "1 along z", found);
        }
        if repeats.iter().chain(&self.decoder_convs).any(|n| !(1..=MAX_REPEATS).contains(n)) {
            let found = format!("{repeats:?} and {:?}", self.decoder_convs);
            return refused("convolutions a stage", &format!("1 to {MAX_REPEATS}"), found);
        }
        let eps = match self.norm {
            UNetNorm::None => 0.0,
            UNetNorm::Instance { eps, .. } | UNetNorm::Running { eps, .. } => eps,
        };
        if !(eps.is_finite() && eps >= 0.0 && self.slope.is_finite()) {
            let found = format!("{eps} and {}", self.slope);
            return refused("norm eps and leaky ReLU slope", "finite numbers, eps of at least 0", found);
        }
        Ok(())
    }

    /// Sizes that an input must be a multiple of, (z, y, x): the products of the strides.
    pub fn multiple(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.strides.iter().fold(1usize, |product, s| product.saturating_mul(s[a])))
    }

    /// Refuses an input size that the strides do not divide: the skips would not fit.
    ///
    /// # Errors
    /// [`Error::Shape`] with both values.
    pub fn ensure_size(&self, what: &str, size: [usize; 3]) -> Result<()> {
        let multiple = self.multiple();
        if (0..3).any(|a| size[a] == 0 || !size[a].is_multiple_of(multiple[a])) {
            return Err(Error::shape(what, format!("multiples of {multiple:?} (z, y, x)"), format!("{size:?}")));
        }
        Ok(())
    }

    /// The size of each stage for an input of `size`, at least 1 along each axis.
    pub(super) fn sizes(&self, size: [usize; 3]) -> Vec<[u64; 3]> {
        let mut scale = [1usize; 3];
        let stage = |stride: &[usize; 3]| {
            scale = std::array::from_fn(|a| scale[a].saturating_mul(stride[a]));
            std::array::from_fn(|a| (size[a] / scale[a]).max(1) as u64)
        };
        self.strides.iter().map(stage).collect()
    }

    /// Voxels of each stage for an input of `size`, at least 1.
    pub(super) fn voxels(&self, size: [usize; 3]) -> Vec<u64> {
        self.sizes(size).iter().map(|size| size.iter().product()).collect()
    }

    /// Multiplications and additions of the convolutions of a forward pass over one image of `size`.
    pub fn flops(&self, size: [usize; 3]) -> f64 {
        let voxels: Vec<f64> = self.voxels(size).into_iter().map(|v| v as f64).collect();
        let taps = |stage: usize| self.kernels[stage].iter().product::<usize>() as f64;
        let (mut products, mut channels) = (0.0, self.input_channels);
        match &self.encoder {
            UNetEncoder::Plain(convs) => {
                for (stage, &features) in self.features.iter().enumerate() {
                    let inputs = channels + (convs[stage] - 1) * features;
                    products += voxels[stage] * taps(stage) * (inputs * features) as f64;
                    channels = features;
                }
            }
            UNetEncoder::Residual(residual) => {
                products += voxels[0] * taps(0) * (channels * residual.stem) as f64;
                channels = residual.stem;
                for (stage, &features) in self.features.iter().enumerate() {
                    for block in 0..residual.blocks[stage] {
                        let read = voxels[if block == 0 { stage.saturating_sub(1) } else { stage }];
                        products += self.block_products(residual, stage, channels, [read, voxels[stage]]);
                        channels = features;
                    }
                }
            }
        }
        for (level, &convs) in self.decoder_convs.iter().enumerate() {
            let stage = self.features.len() - 2 - level;
            let features = self.features[stage];
            // An output of the transposed convolution has one tap.
            let inputs = (2 + convs - 1) * features;
            products += voxels[stage] * (channels * features) as f64;
            products += voxels[stage] * taps(stage) * (inputs * features) as f64;
            channels = features;
        }
        2.0 * (products + voxels[0] * (channels * self.classes) as f64)
    }

    /// Products of a residual block over so many voxels read and written.
    fn block_products(
        &self,
        residual: &ResidualEncoder,
        stage: usize,
        channels: usize,
        [read, written]: [f64; 2],
    ) -> f64 {
        let (features, taps) = (self.features[stage], self.kernels[stage].iter().product::<usize>());
        let projection = if channels == features { 0 } else { channels * features };
        let (first, rest) = match &residual.bottleneck {
            None => (0, taps * (channels + features) * features),
            // The stride is the middle convolution's.
            Some(inner) => (channels * inner[stage], inner[stage] * (taps * inner[stage] + features)),
        };
        read * first as f64 + written * (rest + projection) as f64
    }
}
