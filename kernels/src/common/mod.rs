//! Steps that several kernels share.

pub mod packed;
