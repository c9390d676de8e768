//! 3D convolution and its gradients (2D is depth 1).

pub mod backward;
pub mod direct;
pub mod finish;
pub mod halo;
pub mod implicit_gemm;
pub mod pointwise;
pub mod register_blocked;
pub mod staging;
pub mod stem;

use cubecl::prelude::*;

/// One axis of a convolution: extents in voxels, and how the kernel moves.
#[derive(CubeType, CubeLaunch)]
pub struct Window {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub dilation: usize,
}

/// A convolution's sizes. Channels are those of one group.
#[derive(CubeType, CubeLaunch)]
pub struct Geometry {
    pub z: Window,
    pub y: Window,
    pub x: Window,
    pub ci: usize,
    pub co: usize,
    pub groups: usize,
}

/// a - b, or 0.
#[cube]
pub fn minus_or_zero(a: usize, b: usize) -> usize {
    select(a > b, a - min(a, b), 0usize)
}

/// Does a coordinate counted from the first padding voxel lie in the input?
#[cube]
pub fn is_inside(axis: &Window, padded: usize) -> bool {
    padded >= axis.padding && padded < axis.padding + axis.input
}
