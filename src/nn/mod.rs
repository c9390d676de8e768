//! Layers and blocks of networks, composed of ops.

mod unet_blocks;

pub use unet_blocks::{ConvBlock, ConvLayer, DecoderBlock, InstanceNorm, UpLayer, forward_blocks};
