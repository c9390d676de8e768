//! What convolutions are asked to do: shapes and parameters, validated once. Every later index computation trusts them.

mod forward;
mod transposed;

pub use forward::{Conv3dParams, Conv3dProblem};
pub use transposed::{ConvTranspose3dParams, ConvTranspose3dProblem};
