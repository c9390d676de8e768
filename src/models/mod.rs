//! The networks: nnU-Net's plain convolutional U-Net and torchvision's ResNets, and reading their weights.

mod json;
pub mod resnet;
mod unet;

pub use unet::{Normalization, OrientationRule, SeparateAxis, UNet, UNetArchitecture, UNetPlan};
