//! One integration binary, a file an op. `support` holds the devices, drawn inputs and derived bounds they share.

mod support;

mod activation;
mod affine_dice;
mod arithmetic;
mod bad_input;
mod bench;
mod bspline;
mod cli;
mod conv3d;
mod conv_block;
mod conv_transpose3d;
mod devices;
mod dice;
mod golden;
mod grid_sample;
mod interpolate;
mod io;
mod layering;
mod linear;
mod norm;
mod npy;
mod phantom;
mod pipeline;
mod pool;
mod profiling;
mod registration;
mod resample;
mod resnet;
mod softmax;
mod tile;
mod transformations;
mod unet;
mod volume;
mod warp;
mod weights;
