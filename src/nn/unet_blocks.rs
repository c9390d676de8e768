//! The blocks a plain convolutional U-Net is made of.
//!
//! A network frees each intermediate tensor as soon as the next one exists, so the blocks overwrite their variable or take
//! what they consume by value: two live copies of a full-resolution activation less.

use crate::error::Result;
use crate::ops::{
    Conv3dParams, ConvBlockNorm, ConvBlockWeights, ConvTranspose3dParams, conv_blocks, conv_transpose3d, conv3d,
};
use crate::tensor::Tensor;

/// A convolution and its weights.
#[derive(Debug, Clone)]
pub struct ConvLayer {
    /// [co, ci, kd, kh, kw].
    pub weight: Tensor,
    /// f32 [1, co, 1, 1, 1].
    pub bias: Option<Tensor>,
    /// Stride, padding, dilation, groups.
    pub params: Conv3dParams,
}

impl ConvLayer {
    /// x [n, ci, d, h, w] to [n, co, ..].
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
    /// f32 [1, c, 1, 1, 1].
    pub weight: Option<Tensor>,
    /// f32 [1, c, 1, 1, 1].
    pub bias: Option<Tensor>,
    /// Added to the variance.
    pub eps: f32,
}

/// Convolution, instance norm, leaky ReLU.
#[derive(Debug, Clone)]
pub struct ConvBlock {
    /// The convolution.
    pub conv: ConvLayer,
    /// The norm behind it.
    pub norm: InstanceNorm,
    /// Slope of the leaky ReLU below 0.
    pub slope: f32,
}

impl ConvBlock {
    fn weights(&self) -> ConvBlockWeights<'_> {
        let InstanceNorm { weight, bias, eps } = &self.norm;
        let norm = ConvBlockNorm { weight: weight.as_ref(), bias: bias.as_ref(), eps: *eps, slope: self.slope };
        ConvBlockWeights { w: &self.conv.weight, b: self.conv.bias.as_ref(), params: self.conv.params, norm }
    }
}

/// Blocks in a row: the channels of all `xs`, one after the other [n, ci, d, h, w], to [n, co, ..]. The inputs are freed on
/// the way.
///
/// # Errors
/// As [`conv_blocks`].
pub fn forward_blocks(xs: Vec<Tensor>, blocks: &[ConvBlock]) -> Result<Tensor> {
    conv_blocks(xs, &blocks.iter().map(ConvBlock::weights).collect::<Vec<_>>())
}

/// A transposed convolution whose kernel is its stride, and its weights.
#[derive(Debug, Clone)]
pub struct UpLayer {
    /// [ci, co, kd, kh, kw].
    pub weight: Tensor,
    /// f32 [1, co, 1, 1, 1].
    pub bias: Option<Tensor>,
    /// Stride (z, y, x).
    pub stride: [usize; 3],
}

impl UpLayer {
    /// x [n, ci, d, h, w] to [n, co, d * stride, ..].
    ///
    /// # Errors
    /// As [`conv_transpose3d`].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let params = ConvTranspose3dParams { stride: self.stride, ..Default::default() };
        conv_transpose3d(x, &self.weight, self.bias.as_ref(), &params)
    }
}

/// One level of a decoder: upsample, put the skip behind it, convolve.
#[derive(Debug, Clone)]
pub struct DecoderBlock {
    /// From the level below.
    pub up: UpLayer,
    /// The convolutions of this level.
    pub convs: Vec<ConvBlock>,
}

impl DecoderBlock {
    /// The level below [n, c_below, ..] and the skip [n, c, ..] of this level to [n, c, ..]. Both are freed on the way.
    ///
    /// # Errors
    /// As the ops.
    pub fn forward(&self, below: Tensor, skip: Tensor) -> Result<Tensor> {
        let x = self.up.forward(&below)?;
        drop(below);
        forward_blocks(vec![x, skip], &self.convs)
    }
}
