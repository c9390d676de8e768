//! The architecture of a plain convolutional U-Net, as nnU-Net v2 describes it.

use crate::error::{Error, Result};
use crate::models::json::Node;

/// Limits far above any plan; beyond them sizes would overflow before memory is exhausted.
const MAX_STAGES: usize = 16;
const MAX_CHANNELS: usize = 1 << 16;
const MAX_KERNEL: usize = 31;

/// A PlainConvUNet: stages of (convolution, instance norm, leaky ReLU), the first convolution of each strided; a decoder of
/// transposed convolutions with kernel = stride, concatenation (upsampled, skip) and convolutions; a 1x1x1 head.
///
/// Axes are the network's (z, y, x). Source: dynamic-network-architectures, PlainConvUNet.
#[derive(Debug, Clone, PartialEq)]
pub struct UNetArchitecture {
    /// Number of channels of the image.
    pub input_channels: usize,
    /// Number of channels of the logits.
    pub classes: usize,
    /// Number of channels of each stage.
    pub features: Vec<usize>,
    /// The kernel of each stage, odd along every axis; the padding is (k - 1) / 2.
    pub kernels: Vec<[usize; 3]>,
    /// The stride into each stage; that of the first stage is 1.
    pub strides: Vec<[usize; 3]>,
    /// Number of convolutions of each encoder stage.
    pub encoder_convs: Vec<usize>,
    /// Number of convolutions of each decoder stage, the lowest first; there is one decoder stage less than encoder stages.
    pub decoder_convs: Vec<usize>,
    /// Whether convolutions have a bias. The head always has one.
    pub conv_bias: bool,
    /// Whether norms have a weight and a bias.
    pub norm_affine: bool,
    /// The value that norms add to the variance.
    pub norm_eps: f32,
    /// The slope of the leaky ReLU below 0.
    pub slope: f32,
}

impl UNetArchitecture {
    /// The network of nnU-Net's plan for kidneys at 1.5 x 1.5 x 3 mm: six stages, 32 to 320 features.
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

    /// Reads the `architecture` object of a configuration.
    pub(super) fn read(architecture: &Node<'_>, input_channels: usize, classes: usize) -> Result<Self> {
        let class = architecture.key("network_class_name")?;
        let name = class.text()?;
        if !name.ends_with(".PlainConvUNet") && name != "PlainConvUNet" {
            return Err(match name.rsplit('.').next() {
                Some("ResidualEncoderUNet") => {
                    class.mismatch("PlainConvUNet (ResidualEncoderUNet is not supported yet)")
                }
                _ => class.mismatch("PlainConvUNet"),
            });
        }
        let kwargs = architecture.key("arch_kwargs")?;
        for (key, wanted) in [("conv_op", "Conv3d"), ("norm_op", "InstanceNorm3d"), ("nonlin", "LeakyReLU")] {
            let node = kwargs.key(key)?;
            if node.text().ok().and_then(|name| name.rsplit('.').next()) != Some(wanted) {
                return Err(node.mismatch(format!("a module named {wanted}")));
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
            // Where the plans omit a setting, PyTorch's default applies.
            norm_affine: setting(&kwargs, "norm_op_kwargs", "affine").map_or(Ok(false), |n| n.boolean())?,
            norm_eps: number(setting(&kwargs, "norm_op_kwargs", "eps"), 1e-5)?,
            slope: number(setting(&kwargs, "nonlin_kwargs", "negative_slope"), 0.01)?,
        };
        architecture.ensure_valid().map_err(|e| kwargs.mismatch(e))?;
        Ok(architecture)
    }

    /// Checks that the fields describe a U-Net.
    ///
    /// # Errors
    /// [`Error::Argument`] for lists of unequal length, even kernels, a strided first stage, zeros and sizes above the limits.
    pub fn ensure_valid(&self) -> Result<()> {
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
            return refused("convolutions of a stage", &format!("1 to {MAX_STAGES}"), found);
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0 && self.slope.is_finite()) {
            let found = format!("{} and {}", self.norm_eps, self.slope);
            return refused("norm eps and leaky ReLU slope", "finite numbers, eps of at least 0", found);
        }
        Ok(())
    }

    /// The sizes (z, y, x) of which an input's size must be a multiple: the products of the strides.
    pub fn multiple(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.strides.iter().fold(1usize, |product, s| product.saturating_mul(s[a])))
    }

    /// Checks that an input size (z, y, x) is a multiple of [`Self::multiple`]; otherwise the skip connections would not fit.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size.
    pub fn ensure_size(&self, what: &str, size: [usize; 3]) -> Result<()> {
        let multiple = self.multiple();
        if (0..3).any(|a| size[a] == 0 || !size[a].is_multiple_of(multiple[a])) {
            return Err(Error::shape(what, format!("multiples of {multiple:?} (z, y, x)"), format!("{size:?}")));
        }
        Ok(())
    }

    /// Number of floating-point operations (multiplications and additions) of all convolutions in a forward pass over one image of
    /// `size` voxels (z, y, x).
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
            // Each output of the transposed convolution has one tap.
            let inputs = (2 + convs - 1) * features;
            products += voxels[stage] * (channels * features) as f64;
            products += voxels[stage] * taps(self.kernels[stage]) * (inputs * features) as f64;
            channels = features;
        }
        2.0 * (products + voxels[0] * (channels * self.classes) as f64)
    }
}

/// An optional setting in an optional object.
fn setting<'a>(kwargs: &Node<'a>, object: &str, key: &str) -> Option<Node<'a>> {
    kwargs.optional(object)?.optional(key)
}

/// Reads a list with one entry for each of `stages`, or one value for all of them.
fn per_stage<'a, T: Clone>(node: &Node<'a>, stages: usize, read: impl Fn(&Node<'a>) -> Result<T>) -> Result<Vec<T>> {
    if stages > MAX_STAGES {
        return Err(node.mismatch(format!("at most {MAX_STAGES} stages, not the {stages} of n_stages")));
    }
    if !node.is_list() {
        return Ok(vec![read(node)?; stages]);
    }
    let values = node.list()?.iter().map(read).collect::<Result<Vec<T>>>()?;
    if values.len() != stages {
        return Err(node.mismatch(format!("{stages} entries (n_stages, one fewer in the decoder)")));
    }
    Ok(values)
}

/// Reads one size for all three axes, or a list of three.
fn axes(node: &Node<'_>) -> Result<[usize; 3]> {
    if node.is_list() { node.triple(Node::count) } else { Ok([node.count()?; 3]) }
}
