//! Transposed 3D convolution, which is also a convolution's gradient by its input.

pub mod direct;
pub mod gemm;

use cubecl::prelude::*;

/// Where outputs lie in a channels-last buffer that may be wider than they are.
#[derive(CubeType, CubeLaunch)]
pub struct Placement {
    /// Channels of the buffer.
    pub pitch: usize,
    /// The first of them that is written.
    pub offset: usize,
}
