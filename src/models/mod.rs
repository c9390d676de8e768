//! The networks: nnU-Net's plain and residual U-Nets and torchvision's ResNets, and reading their weights.

mod json;
pub mod resnet;
mod unet;

pub(crate) use json::{JsonFile, Node};
pub use unet::{
    ChannelNormalization, ImageReader, Normalization, Order, OrientationRule, PreviousStage, Resampling,
    ResidualEncoder, SeparateAxis, Target, TargetLabels, UNet, UNetArchitecture, UNetEncoder, UNetNorm, UNetPlan,
};
pub(crate) use unet::{channel_names, reader_by_name};
