//! Atrous spatial pyramid pooling (Chen et al., arXiv:1706.05587): the same features through a 1x1 convolution, three dilated 3x3
//! convolutions and the mean over the image, side by side, and a 1x1 convolution of them all.
//!
//! Each branch has a batch norm and a ReLU. The mean goes through a 1x1 convolution and is repeated at every pixel, which is what
//! bilinear resizing of a single pixel gives. Where a rate is larger than the features only the middle tap of the 3x3 meets voxels.

use super::{relu, resize_like};
use crate::error::Result;
use crate::models::folded::{Conv, ConvSpec, Reader};
use crate::ops;
use crate::tensor::Tensor;

/// Number of channels of each branch and of the result, which torchvision and the authors have.
pub(super) const CHANNELS: usize = 256;

pub(super) struct Aspp {
    /// The 1x1 convolution and the dilated ones.
    branches: Vec<Conv>,
    pooled: Conv,
    project: Conv,
}

impl Aspp {
    /// The pyramid of parameters whose names begin with `name` and a dot.
    pub(super) fn read(reader: &Reader<'_>, name: &str, ci: usize, rates: [usize; 3]) -> Result<Self> {
        let branch = |i: usize, spec| {
            let name = format!("{name}.convs.{i}");
            reader.conv_bn(&format!("{name}.0"), &format!("{name}.1"), spec)
        };
        let pointwise = ConvSpec::new([CHANNELS, ci, 1, 1]);
        let mut branches = vec![branch(0, pointwise)?];
        for (i, rate) in (1..).zip(rates) {
            branches.push(branch(i, ConvSpec::new([CHANNELS, ci, 3, 3]).dilated(rate))?);
        }
        // Behind the mean, which is layer 0 of its branch.
        let pooled = reader.conv_bn(&format!("{name}.convs.4.1"), &format!("{name}.convs.4.2"), pointwise)?;
        let all = CHANNELS * (branches.len() + 1);
        let project = ConvSpec::new([CHANNELS, all, 1, 1]);
        let project = reader.conv_bn(&format!("{name}.project.0"), &format!("{name}.project.1"), project)?;
        Ok(Self { branches, pooled, project })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut parts = self.branches.iter().map(|branch| relu(branch, x)).collect::<Result<Vec<_>>>()?;
        let mean = ops::adaptive_avg_pool3d(x, [1; 3])?;
        parts.push(resize_like(&relu(&self.pooled, &mean)?, x)?);
        relu(&self.project, &ops::concat(&parts.iter().collect::<Vec<_>>())?)
    }
}
