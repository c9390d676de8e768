//! The operations on every device, one file for each. `support` holds devices, drawn inputs and derived bounds.

use nephron_testing as support;

mod activation;
mod adaptive_pool;
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
mod conv_transpose3d_backward;
mod devices;
mod dice;
mod gate;
mod golden_gradients;
mod grid_sample;
mod interpolate;
mod linear;
mod linear_backward;
mod norm;
mod norm_backward;
mod own_client;
mod pool;
mod pool_backward;
mod resample;
mod segmentation_loss;
mod sgd;
mod softmax;
mod tile;
mod warp;
