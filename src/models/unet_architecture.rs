//! The shape of a plain convolutional U-Net, as nnU-Net v2 writes it down.

use super::json::Node;
use crate::error::{Error, Result};

/// Limits no planner comes near; past them sizes would overflow before memory runs out.
const MAX_STAGES: usize = 16;
const MAX_CHANNELS: usize = 1 << 16;
const MAX_KERNEL: usize = 31;

/// A PlainConvUNet: stages of (convolution, instance norm, leaky ReLU), the first convolution of each strided; a decoder of
/// transposed convolutions with kernel = stride, concatenation (upsampled, skip) and convolutions; a 1x1x1 head.
///
/// Axes are the network's (z, y, x). Source: dynamic-network-architectures, PlainConvUNet.
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
    /// Convolutions of each encoder stage.
    pub encoder_convs: Vec<usize>,
    /// Convolutions of each decoder stage, the lowest first: one fewer than stages.
    pub decoder_convs: Vec<usize>,
    /// Do convolutions have a bias? The head always has one.
    pub conv_bias: bool,
    /// Do norms have weights?
    pub norm_affine: bool,
    /// Added to the norms' variance.
    pub norm_eps: f32,
    /// Slope of the leaky ReLU.
    pub slope: f32,
}

impl UNetArchitecture {
    /// The network of nnU-Net's plan for kidneys at 1.5 x 1.5 x 3 mm (pipeline, 1): six stages, 32 to 320 features.
    pub fn kidney(input_channels: usize, classes: usize) -> Self {
        let mut strides = vec![[1; 3], [1, 2, 2]];
        strides.extend([[2; 3]; 4]);
        let mut kernels = vec![[1, 3, 3]];
        kernels.extend([[3; 3]; 5]);
        Self {
            input_channels,
            classes,
            features: vec![32, 64, 128, 256, 320, 320],
            kernels,
            strides,
            encoder_convs: vec![2; 6],
            decoder_convs: vec![2; 5],
            conv_bias: true,
            norm_affine: true,
            norm_eps: 1e-5,
            slope: 0.01,
        }
    }

    /// From a configuration's `architecture` object.
    pub(super) fn read(architecture: &Node<'_>, input_channels: usize, classes: usize) -> Result<Self> {
        let class = architecture.key("network_class_name")?;
        let name = class.text()?;
        if !name.ends_with(".PlainConvUNet") && name != "PlainConvUNet" {
            return Err(match name.rsplit('.').next() {
                Some("ResidualEncoderUNet") => class.refuse("PlainConvUNet (ResidualEncoderUNet is not supported yet)"),
                _ => class.refuse("PlainConvUNet"),
            });
        }
        let kwargs = architecture.key("arch_kwargs")?;
        for (key, wanted) in [("conv_op", "Conv3d"), ("norm_op", "InstanceNorm3d"), ("nonlin", "LeakyReLU")] {
            let node = kwargs.key(key)?;
            if node.text().ok().and_then(|name| name.rsplit('.').next()) != Some(wanted) {
                return Err(node.refuse(format!("a module named {wanted}")));
            }
        }
        let stages = kwargs.key("n_stages")?.count()?;

        let number = |node: Option<Node<'_>>, default: f32| node.map_or(Ok(default), |n| Ok(n.number()? as f32));
        let architecture = Self {
            input_channels,
            classes,
            features: per_stage(&kwargs.key("features_per_stage")?, stages, Node::count)?,
            kernels: per_stage(&kwargs.key("kernel_sizes")?, stages, axes)?,
            strides: per_stage(&kwargs.key("strides")?, stages, axes)?,
            encoder_convs: per_stage(&kwargs.key("n_conv_per_stage")?, stages, Node::count)?,
            decoder_convs: per_stage(&kwargs.key("n_conv_per_stage_decoder")?, stages.saturating_sub(1), Node::count)?,
            conv_bias: kwargs.key("conv_bias")?.boolean()?,
            // PyTorch's own defaults, where the plans leave a setting out.
            norm_affine: setting(&kwargs, "norm_op_kwargs", "affine").map_or(Ok(false), |n| n.boolean())?,
            norm_eps: number(setting(&kwargs, "norm_op_kwargs", "eps"), 1e-5)?,
            slope: number(setting(&kwargs, "nonlin_kwargs", "negative_slope"), 0.01)?,
        };
        architecture.validate().map_err(|e| kwargs.refuse(e))?;
        Ok(architecture)
    }

    /// Refuses what is no U-Net: lists of unequal length, even kernels, a strided first stage, zeros, absurd sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] with both values.
    pub fn validate(&self) -> Result<()> {
        let refused =
            |what: &str, expected: &str, found: String| Err(Error::argument(format!("U-Net: {what}"), expected, found));
        let stages = self.features.len();
        if !(2..=MAX_STAGES).contains(&stages) {
            return refused("stages", &format!("2 to {MAX_STAGES}"), stages.to_string());
        }
        let lengths = [self.kernels.len(), self.strides.len(), self.encoder_convs.len(), self.decoder_convs.len() + 1];
        if lengths != [stages; 4] {
            let found = format!("kernels, strides, encoder and decoder (+1) convolutions of {lengths:?}");
            return refused("lists", &format!("one entry for each of {stages} stages"), found);
        }
        let channels = [self.input_channels, self.classes];
        if channels.iter().chain(&self.features).any(|c| !(1..=MAX_CHANNELS).contains(c)) {
            let found = format!("{channels:?} around {:?}", self.features);
            return refused("channels", &format!("1 to {MAX_CHANNELS}"), found);
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
        if self.encoder_convs.iter().chain(&self.decoder_convs).any(|n| !(1..=MAX_STAGES).contains(n)) {
            let found = format!("{:?} and {:?}", self.encoder_convs, self.decoder_convs);
            return refused("convolutions a stage", &format!("1 to {MAX_STAGES}"), found);
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0 && self.slope.is_finite()) {
            let found = format!("{} and {}", self.norm_eps, self.slope);
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
    pub fn check_size(&self, what: &str, size: [usize; 3]) -> Result<()> {
        let multiple = self.multiple();
        if (0..3).any(|a| size[a] == 0 || !size[a].is_multiple_of(multiple[a])) {
            return Err(Error::shape(what, format!("multiples of {multiple:?} (z, y, x)"), format!("{size:?}")));
        }
        Ok(())
    }

    /// Multiplications and additions of the convolutions of a forward pass over one image of `size`.
    pub fn flops(&self, size: [usize; 3]) -> f64 {
        let mut scale = [1usize; 3];
        let mut voxels = Vec::new();
        for stride in &self.strides {
            scale = std::array::from_fn(|a| scale[a].saturating_mul(stride[a]));
            voxels.push((0..3).map(|a| (size[a] / scale[a]) as f64).product::<f64>());
        }
        let taps = |kernel: [usize; 3]| kernel.iter().product::<usize>() as f64;
        let (mut products, mut channels) = (0.0, self.input_channels);
        for (stage, &features) in self.features.iter().enumerate() {
            let inputs = channels + (self.encoder_convs[stage] - 1) * features;
            products += voxels[stage] * taps(self.kernels[stage]) * (inputs * features) as f64;
            channels = features;
        }
        for (level, &convs) in self.decoder_convs.iter().enumerate() {
            let stage = self.features.len() - 2 - level;
            let features = self.features[stage];
            // An output of the transposed convolution has one tap.
            let inputs = (2 + convs - 1) * features;
            products += voxels[stage] * (channels * features) as f64;
            products += voxels[stage] * taps(self.kernels[stage]) * (inputs * features) as f64;
            channels = features;
        }
        2.0 * (products + voxels[0] * (channels * self.classes) as f64)
    }
}

/// A member of an object that need not be there.
fn setting<'a>(kwargs: &Node<'a>, object: &str, key: &str) -> Option<Node<'a>> {
    kwargs.optional(object)?.optional(key)
}

/// A list with an entry for each of `stages`, or one value for all.
fn per_stage<'a, T: Clone>(node: &Node<'a>, stages: usize, read: impl Fn(&Node<'a>) -> Result<T>) -> Result<Vec<T>> {
    if stages > MAX_STAGES {
        return Err(node.refuse(format!("at most {MAX_STAGES} stages, not the {stages} of n_stages")));
    }
    if !node.is_list() {
        return Ok(vec![read(node)?; stages]);
    }
    let values = node.list()?.iter().map(read).collect::<Result<Vec<T>>>()?;
    if values.len() != stages {
        return Err(node.refuse(format!("{stages} entries (n_stages, one fewer in the decoder)")));
    }
    Ok(values)
}

/// One size for all three axes, or a list of three.
fn axes(node: &Node<'_>) -> Result<[usize; 3]> {
    if node.is_list() { node.triple(Node::count) } else { Ok([node.count()?; 3]) }
}
