//! The blocks of a plain convolutional U-Net.
//!
//! Each intermediate tensor is freed as soon as the next one exists. For that the blocks take their inputs by value, which saves two
//! copies of a full-resolution activation.

use crate::error::Result;
use crate::ops::{
    Conv3dParams, ConvBlockNorm, ConvBlockWeights, ConvTranspose3dParams, conv_blocks, conv_transpose3d, conv3d,
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
}

/// An instance norm and its weights.
#[derive(Debug, Clone)]
pub struct InstanceNorm {
    /// The weight, f32 [1, c, 1, 1, 1].
    pub weight: Option<Tensor>,
    /// The bias, f32 [1, c, 1, 1, 1].
    pub bias: Option<Tensor>,
    /// The value that is added to the variance.
    pub eps: f32,
}

/// A convolution, an instance norm and a leaky ReLU.
#[derive(Debug, Clone)]
pub struct ConvBlock {
    /// The convolution.
    pub conv: ConvLayer,
    /// The norm of the convolution's output.
    pub norm: InstanceNorm,
    /// The slope of the leaky ReLU below 0.
    pub slope: f32,
}

impl ConvBlock {
    fn weights(&self) -> ConvBlockWeights<'_> {
        let InstanceNorm { weight, bias, eps } = &self.norm;
        let norm = ConvBlockNorm { weight: weight.as_ref(), bias: bias.as_ref(), eps: *eps, slope: self.slope };
        ConvBlockWeights { w: &self.conv.weight, b: self.conv.bias.as_ref(), params: self.conv.params, norm }
    }
}

/// Applies blocks one after the other to the concatenation of the channels of `xs`, [n, ci, d, h, w], and returns [n, co, ..]. The
/// inputs are freed as soon as they are no longer needed.
///
/// # Errors
/// As [`conv_blocks`].
pub fn forward_blocks(xs: Vec<Tensor>, blocks: &[ConvBlock]) -> Result<Tensor> {
    conv_blocks(xs, &blocks.iter().map(ConvBlock::weights).collect::<Vec<_>>())
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

/// One level of the decoder: upsampling, concatenation with the skip connection, convolutions.
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
