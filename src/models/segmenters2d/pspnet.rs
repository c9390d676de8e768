//! The head of PSPNet: means of the features over 1, 2, 3 and 6 bins along each axis, each through a 1x1 convolution to a quarter of the
//! channels and resized back, behind the features themselves; a 3x3 convolution of them all, and a 1x1 convolution to the classes.
//!
//! Every convolution but the last has a batch norm and a ReLU. Resizing is bilinear with `align_corners = false`, as in the other heads and
//! in torchvision: a bin's mean then stands at the centre of the voxels that it was taken over. The authors' Caffe layer and their
//! PyTorch code align corners, which puts the means of the outer bins on the border; their weights give slightly different logits here.

use super::{Channels, Features, relu, resize_like};
use crate::error::Result;
use crate::models::folded::{Conv, ConvSpec, Reader};
use crate::ops::{self, ConvEpilogue};
use crate::tensor::Tensor;

/// Number of bins along each axis.
const BINS: [usize; 4] = [1, 2, 3, 6];

pub(super) struct PspNet {
    /// One convolution for each of [`BINS`].
    stages: Vec<Conv>,
    project: Conv,
    classes: Conv,
}

impl PspNet {
    pub(super) fn read(reader: &Reader<'_>, features: Channels, classes: usize) -> Result<Self> {
        let (ci, narrow) = (features.high, features.high / 4);
        // Behind the mean, which is layer 0 of its stage.
        let stage = |i: usize| {
            let spec = ConvSpec::new([narrow, ci, 1, 1]);
            reader.conv_bn(&format!("stages.{i}.1"), &format!("stages.{i}.2"), spec)
        };
        let project = ConvSpec::new([narrow, ci + BINS.len() * narrow, 3, 3]);
        Ok(Self {
            stages: (0..BINS.len()).map(stage).collect::<Result<_>>()?,
            project: reader.conv_bn("project.0", "project.1", project)?,
            classes: reader.biased_conv("project.4", ConvSpec::new([classes, narrow, 1, 1]))?,
        })
    }

    pub(super) fn forward(&self, features: &Features) -> Result<Tensor> {
        let x = &features.high;
        let mut parts = vec![x.clone()];
        for (conv, bins) in self.stages.iter().zip(BINS) {
            let means = ops::adaptive_avg_pool3d(x, [1, bins, bins])?;
            parts.push(resize_like(&relu(conv, &means)?, x)?);
        }
        let joined = ops::concat(&parts.iter().collect::<Vec<_>>())?;
        self.classes.forward(&relu(&self.project, &joined)?, &ConvEpilogue::NONE)
    }
}
