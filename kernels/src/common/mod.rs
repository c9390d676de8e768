//! Steps that several kernels share.

pub mod coordinates;
pub mod cube_sum;
pub mod interpolation;
pub mod leaky;
pub mod packed;
