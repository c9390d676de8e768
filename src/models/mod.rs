//! The networks: nnU-Net's plain convolutional U-Net and torchvision's ResNets, and reading their weights.

mod json;
pub mod resnet;
mod unet;

pub use unet::{
    ChannelNormalization, ImageReader, Normalization, Order, OrientationRule, Resampling, ResidualEncoder,
    SeparateAxis, Target, TargetLabels, UNet, UNetArchitecture, UNetEncoder, UNetNorm, UNetPlan,
};
