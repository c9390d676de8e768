//! The blocks that nnU-Net's networks are made of.
//!
//! Each intermediate tensor is freed as soon as the next one exists. For that the blocks take their inputs by value, which saves two
//! copies of a full-resolution activation.

use crate::error::Result;
use crate::ops::{
    Conv3dParams, ConvBlockNorm, ConvBlockWeights, ConvEpilogue, ConvTranspose3dParams, Pool3dParams, add_leaky_relu,
    avg_pool3d, batch_norm, concat, conv_blocks, conv_transpose3d, conv3d, conv3d_then, gated_residual, instance_norm,
};
use crate::tensor::Tensor;

/// A convolution and its weights.
#[derive(Debug, Clone)]
pub struct ConvLayer {
    /// The weight, [co, ci, kd, kh, kw].
    pub weight: Tensor,
    /// The bias, f32 [1, co, 1, 1, 1].
    pub bias: Option<Tensor>,
    /// Stride, padding, dilation and groups.
    pub params: Conv3dParams,
}

impl ConvLayer {
    /// The convolution of x [n, ci, d, h, w], as [n, co, ..].
    ///
    /// # Errors
    /// As [`conv3d`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        conv3d(x, &self.weight, self.bias.as_ref(), &self.params)
    }

    fn forward_then(&self, x: &Tensor, residual: Option<&Tensor>, slope: f32) -> Result<Tensor> {
        let epilogue = ConvEpilogue { residual, slope };
        conv3d_then(x, &self.weight, self.bias.as_ref(), &self.params, &epilogue)
    }
}

/// A norm and its weights, each f32 [1, c, 1, 1, 1].
#[derive(Debug, Clone)]
pub enum NormLayer {
    /// None, or one that was folded into the convolution's weights.
    None,
    /// Instance norm.
    Instance {
        /// Multiplies the normalised value; 1 where absent.
        weight: Option<Tensor>,
        /// Added last; 0 where absent.
        bias: Option<Tensor>,
        /// Added to the variance.
        eps: f32,
    },
    /// By fixed statistics.
    Running {
        /// Multiplies the normalised value; 1 where absent.
        weight: Option<Tensor>,
        /// Added last; 0 where absent.
        bias: Option<Tensor>,
        /// The mean, which is subtracted first, and the variance, whose square root divides.
        statistics: Box<[Tensor; 2]>,
        /// Added to the variance.
        eps: f32,
    },
}

impl NormLayer {
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(x),
            Self::Instance { weight, bias, eps } => instance_norm(&x, weight.as_ref(), bias.as_ref(), *eps),
            Self::Running { weight, bias, statistics, eps } => {
                let [mean, var] = statistics.as_ref();
                batch_norm(&x, weight.as_ref(), bias.as_ref(), mean, var, *eps)
            }
        }
    }
}

/// Convolution, norm and leaky ReLU, the last two in either order.
#[derive(Debug, Clone)]
pub struct ConvBlock {
    /// The convolution.
    pub conv: ConvLayer,
    /// The norm of its output, or of its activation.
    pub norm: NormLayer,
    /// Slope of the leaky ReLU below 0; 1 for no activation.
    pub slope: f32,
    /// Whether the activation comes before the norm.
    pub nonlin_first: bool,
}

impl ConvBlock {
    /// The weights of the fused operation, which convolves, applies an instance norm and activates.
    fn fused(&self) -> Option<ConvBlockWeights<'_>> {
        match &self.norm {
            NormLayer::Instance { weight, bias, eps } if !self.nonlin_first => {
                let norm = ConvBlockNorm { weight: weight.as_ref(), bias: bias.as_ref(), eps: *eps, slope: self.slope };
                let ConvLayer { weight, bias, params } = &self.conv;
                Some(ConvBlockWeights { w: weight, b: bias.as_ref(), params: *params, norm })
            }
            _ => None,
        }
    }

    /// Where the block is not the fused operation: the activation, if it comes first or nothing follows it, in the
    /// convolution's store.
    fn unfused(&self, x: &Tensor) -> Result<Tensor> {
        match &self.norm {
            NormLayer::None => self.conv.forward_then(x, None, self.slope),
            norm if self.nonlin_first => norm.forward(self.conv.forward_then(x, None, self.slope)?),
            norm => {
                let normed = norm.forward(self.conv.forward(x)?)?;
                if self.slope == 1.0 { Ok(normed) } else { crate::ops::leaky_relu(&normed, self.slope) }
            }
        }
    }
}

/// Applies blocks one after the other to the concatenation of the channels of `xs`, [n, ci, d, h, w], and returns [n, co, ..]. The
/// inputs are freed as soon as they are no longer needed.
///
/// # Errors
/// As [`conv_blocks`] and [`conv3d`].
pub fn forward_blocks(xs: Vec<Tensor>, blocks: &[ConvBlock]) -> Result<Tensor> {
    if let Some(fused) = blocks.iter().map(ConvBlock::fused).collect::<Option<Vec<_>>>() {
        return conv_blocks(xs, &fused);
    }
    let mut x = if let [only] = xs.as_slice() { only.clone() } else { concat(&xs.iter().collect::<Vec<_>>())? };
    drop(xs);
    for block in blocks {
        x = match block.fused() {
            Some(fused) => conv_blocks(vec![x], &[fused])?,
            None => block.unfused(&x)?,
        };
    }
    Ok(x)
}

/// Squeeze-excitation (Hu, Shen and Sun, CVPR 2018): a factor for each channel out of the channels' means, by two 1x1x1
/// convolutions with a ReLU between them and a sigmoid behind them.
///
/// The means are those of dynamic-network-architectures, whose `SqueezeExcite` takes them over the first two spatial axes whatever
/// the number of axes: over y and x in a 2D network, but over z and y alone in a 3D network, where each position along x has
/// factors of its own. Weights are trained with that.
#[derive(Debug, Clone)]
pub struct SqueezeExcitation {
    /// To fewer channels, [rd, c, 1, 1, 1].
    pub reduce: ConvLayer,
    /// Back to all, [c, rd, 1, 1, 1].
    pub expand: ConvLayer,
    /// Whether the network is two-dimensional.
    pub planar: bool,
}

impl SqueezeExcitation {
    /// The factors before the sigmoid of x [n, c, d, h, w], as [n, c, 1, 1, w], or [n, c, d, 1, 1] in a 2D network.
    ///
    /// # Errors
    /// As [`avg_pool3d`] and [`conv3d`].
    pub fn gate(&self, x: &Tensor) -> Result<Tensor> {
        let [_, _, d, h, w] = x.shape();
        // One axis after the other: a thread per output has then at most a row or a slice's column to add.
        let kernels = if self.planar { [[1, h, 1], [1, 1, w]] } else { [[1, h, 1], [d, 1, 1]] };
        let mut means = None;
        for kernel in kernels {
            let params = Pool3dParams { kernel, stride: [1; 3], padding: [0; 3] };
            means = Some(avg_pool3d(means.as_ref().unwrap_or(x), &params)?);
        }
        let reduced = self.reduce.forward_then(means.as_ref().unwrap_or(x), None, 0.0)?;
        drop(means);
        self.expand.forward(&reduced)
    }
}

/// A residual block: the activation of the sum of its convolutions' output and its input, which is pooled and projected
/// where size or channels change.
#[derive(Debug, Clone)]
pub struct ResidualBlock {
    /// The convolutions with activations between them; the last one has none.
    pub convs: Vec<ConvBlock>,
    /// Kernel and stride of the input's average pooling.
    pub pool: Option<[usize; 3]>,
    /// The projection of the pooled input, without an activation.
    pub projection: Option<ConvBlock>,
    /// What the convolutions' output, behind its norm, is multiplied by before the input is added.
    pub squeeze_excitation: Option<SqueezeExcitation>,
    /// Slope of the leaky ReLU after the sum; 1 for no activation.
    pub slope: f32,
}

impl ResidualBlock {
    /// x [n, ci, d, h, w] to [n, co, ..]; freed on the way.
    ///
    /// # Errors
    /// As the ops.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let Some((last, first)) = self.convs.split_last() else { return Ok(x) };
        let y = if first.is_empty() { x.clone() } else { forward_blocks(vec![x.clone()], first)? };
        let mut residual = x;
        if let Some(stride) = self.pool {
            residual = avg_pool3d(&residual, &Pool3dParams { kernel: stride, stride, padding: [0; 3] })?;
        }
        if let Some(projection) = &self.projection {
            residual = forward_blocks(vec![residual], std::slice::from_ref(projection))?;
        }
        if let (NormLayer::None, None) = (&last.norm, &self.squeeze_excitation) {
            return last.conv.forward_then(&y, Some(&residual), self.slope);
        }
        let y = forward_blocks(vec![y], std::slice::from_ref(last))?;
        if let Some(squeeze_excitation) = &self.squeeze_excitation {
            return gated_residual(&y, &squeeze_excitation.gate(&y)?, &residual, self.slope);
        }
        add_leaky_relu(&y, &residual, self.slope)
    }
}

/// A transposed convolution whose kernel equals its stride, and its weights.
#[derive(Debug, Clone)]
pub struct UpLayer {
    /// The weight, [ci, co, kd, kh, kw].
    pub weight: Tensor,
    /// The bias, f32 [1, co, 1, 1, 1].
    pub bias: Option<Tensor>,
    /// The stride along (z, y, x).
    pub stride: [usize; 3],
}

impl UpLayer {
    /// The transposed convolution of x [n, ci, d, h, w], as [n, co, d * stride, ..].
    ///
    /// # Errors
    /// As [`conv_transpose3d`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let params = ConvTranspose3dParams { stride: self.stride, ..Default::default() };
        conv_transpose3d(x, &self.weight, self.bias.as_ref(), &params)
    }
}

/// One level of a decoder: upsample, concatenate the skip, convolve.
#[derive(Debug, Clone)]
pub struct DecoderBlock {
    /// The upsampling from the level below.
    pub up: UpLayer,
    /// The convolutions of this level.
    pub convs: Vec<ConvBlock>,
}

impl DecoderBlock {
    /// Combines the level below, [n, c_below, ..], with this level's skip connection, [n, c, ..], to [n, c, ..]. Both inputs are
    /// freed as soon as they are no longer needed.
    ///
    /// # Errors
    /// As [`conv_transpose3d`] and [`conv_blocks`].
    pub fn forward(&self, below: Tensor, skip: Tensor) -> Result<Tensor> {
        let x = self.up.forward(&below)?;
        drop(below);
        forward_blocks(vec![x, skip], &self.convs)
    }
}
