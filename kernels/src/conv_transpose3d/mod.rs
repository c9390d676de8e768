//! Transposed 3D convolution, which is also a convolution's gradient by its input.

pub mod direct;
