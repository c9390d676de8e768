//! The operations on every device, one file for each. `support` holds devices, drawn inputs and derived bounds.

use nephron_testing as support;

mod activation;
mod affine_dice;
mod affine_dice_channels;
mod affine_dice_optimizer;
mod arithmetic;
mod bspline;
mod conv3d;
mod conv3d_backward;
mod conv3d_compiled;
mod conv_algorithms;
mod conv_block;
mod conv_epilogue;
mod conv_transpose3d;
mod devices;
mod dice;
mod gate;
mod grid_sample;
mod interpolate;
mod linear;
mod norm;
mod own_client;
mod pool;
mod resample;
mod softmax;
mod tile;
mod warp;
