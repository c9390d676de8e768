//! Steps that several kernels share.

pub mod cube_sum;
pub mod coordinates;
pub mod interpolation;
pub mod packed;
