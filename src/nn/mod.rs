//! Layers and blocks of networks, composed of ops.

mod unet_blocks;

pub use unet_blocks::{
    ConvBlock, ConvLayer, DecoderBlock, NormLayer, ResidualBlock, SqueezeExcitation, UpLayer, forward_blocks,
};
