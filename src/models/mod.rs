//! U-Net and ResNet, and reading their weights.

mod json;
pub mod resnet;
mod unet;
mod unet_architecture;
mod unet_memory;
mod unet_parameters;
mod unet_plan;

pub use unet::UNet;
pub use unet_architecture::UNetArchitecture;
pub use unet_plan::{Normalization, OrientationRule, SeparateAxis, UNetPlan};
