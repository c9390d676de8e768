//! The head of a fully convolutional network: a 3x3 convolution to a quarter of the channels with batch norm and ReLU, and a 1x1 convolution
//! to the classes.

use super::{Channels, Features, relu};
use crate::error::Result;
use crate::models::folded::{Conv, ConvSpec, Reader};
use crate::ops::ConvEpilogue;
use crate::tensor::Tensor;

pub(super) struct Fcn {
    narrow: Conv,
    classes: Conv,
}

impl Fcn {
    pub(super) fn read(reader: &Reader<'_>, features: Channels, classes: usize) -> Result<Self> {
        let (ci, narrow) = (features.high, features.high / 4);
        Ok(Self {
            narrow: reader.conv_bn("0", "1", ConvSpec::new([narrow, ci, 3, 3]))?,
            classes: reader.biased_conv("4", ConvSpec::new([classes, narrow, 1, 1]))?,
        })
    }

    pub(super) fn forward(&self, features: &Features) -> Result<Tensor> {
        self.classes.forward(&relu(&self.narrow, &features.high)?, &ConvEpilogue::NONE)
    }
}
