//! Steps that several kernels share.

pub mod coordinates;
pub mod interpolation;
pub mod packed;
