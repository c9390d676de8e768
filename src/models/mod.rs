//! The networks: nnU-Net's plain and residual U-Nets, torchvision's ResNets and segmenters of single slices, and reading their weights.

mod folded;
mod json;
pub mod resnet;
pub mod segmenters2d;
mod unet;

pub(crate) use folded::{BATCH_NORM_EPS, ConvSpec};
pub(crate) use json::{JsonFile, Node};
pub use unet::{
    ChannelNormalization, ImageReader, Normalization, Order, OrientationRule, PreviousStage, Resampling,
    ResidualEncoder, SeparateAxis, Target, TargetLabels, UNet, UNetArchitecture, UNetEncoder, UNetNorm, UNetPlan,
};
pub(crate) use unet::{channel_names, reader_by_name};
