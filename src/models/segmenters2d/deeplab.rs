//! The heads of DeepLab: v3, a pyramid and two convolutions; v3+, a pyramid whose result is joined with features of a quarter of the
//! image's size.

use super::aspp::{Aspp, CHANNELS};
use super::{Channels, Features, relu, resize_like};
use crate::error::Result;
use crate::models::folded::{Conv, ConvSpec, Reader};
use crate::ops::{self, ConvEpilogue};
use crate::tensor::Tensor;

/// The rates of the pyramid at output stride 8.
const RATES_8: [usize; 3] = [12, 24, 36];
/// The rates of the pyramid at output stride 16.
const RATES_16: [usize; 3] = [6, 12, 18];
/// Number of channels to which v3+ reduces the features of layer1, so that they do not outweigh the pyramid.
const LOW_CHANNELS: usize = 48;

/// Pyramid, 3x3 convolution with batch norm and ReLU, 1x1 convolution to the classes.
pub(super) struct DeepLabV3 {
    pyramid: Aspp,
    conv: Conv,
    classes: Conv,
}

impl DeepLabV3 {
    pub(super) fn read(reader: &Reader<'_>, features: Channels, classes: usize) -> Result<Self> {
        Ok(Self {
            pyramid: Aspp::read(reader, "0", features.high, RATES_8)?,
            conv: reader.conv_bn("1", "2", ConvSpec::new([CHANNELS, CHANNELS, 3, 3]))?,
            classes: reader.biased_conv("4", ConvSpec::new([classes, CHANNELS, 1, 1]))?,
        })
    }

    pub(super) fn forward(&self, features: &Features) -> Result<Tensor> {
        let x = relu(&self.conv, &self.pyramid.forward(&features.high)?)?;
        self.classes.forward(&x, &ConvEpilogue::NONE)
    }
}

/// Pyramid, resized to the size of layer1's output and concatenated with its reduced channels in this order, which is that of the
/// authors' code; two 3x3 convolutions with batch norm and ReLU; 1x1 convolution to the classes. The convolutions are plain, as in the
/// paper's experiments on ResNet-101; those on Xception have separable ones.
pub(super) struct DeepLabV3Plus {
    pyramid: Aspp,
    low_level: Conv,
    decoder: [Conv; 2],
    classes: Conv,
}

impl DeepLabV3Plus {
    pub(super) fn read(reader: &Reader<'_>, features: Channels, classes: usize) -> Result<Self> {
        let low_level = ConvSpec::new([LOW_CHANNELS, features.low, 1, 1]);
        let first = ConvSpec::new([CHANNELS, CHANNELS + LOW_CHANNELS, 3, 3]);
        let second = ConvSpec::new([CHANNELS, CHANNELS, 3, 3]);
        Ok(Self {
            pyramid: Aspp::read(reader, "aspp", features.high, RATES_16)?,
            low_level: reader.conv_bn("low_level.0", "low_level.1", low_level)?,
            decoder: [
                reader.conv_bn("decoder.0", "decoder.1", first)?,
                reader.conv_bn("decoder.3", "decoder.4", second)?,
            ],
            classes: reader.biased_conv("decoder.6", ConvSpec::new([classes, CHANNELS, 1, 1]))?,
        })
    }

    pub(super) fn forward(&self, features: &Features) -> Result<Tensor> {
        let low = relu(&self.low_level, &features.low)?;
        let high = resize_like(&self.pyramid.forward(&features.high)?, &low)?;
        let mut x = ops::concat(&[&high, &low])?;
        for conv in &self.decoder {
            x = relu(conv, &x)?;
        }
        self.classes.forward(&x, &ConvEpilogue::NONE)
    }
}
