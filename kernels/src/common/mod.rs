//! Steps that several kernels share.

pub mod cube_sum;
pub mod packed;
