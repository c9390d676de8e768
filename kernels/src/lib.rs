//! Device code of nephron: CubeCL kernels only. No runtime, no launch, no allocation; the operations of `nephron-compute` launch them.
//!
//! Conventions: tensors are channels-last [n, d, h, w, c]; arrays are passed with their logical length, so `len()` is
//! the bound; u8 and i16 data comes as `Array<u32>` words (see [`common::packed`]), which every backend can load.
//! Arithmetic is f32 whatever the storage type.
// The macro makes a module per kernel whose items cannot carry docs.
#![allow(missing_docs)]
// `&&` does not short-circuit in device code: nested ifs are how a bound is checked before a load.
#![allow(clippy::collapsible_if)]

pub mod activation;
pub mod adaptive_pool;
pub mod affine_dice;
pub mod arithmetic;
pub mod bspline;
pub mod common;
pub mod conv3d;
pub mod conv_transpose3d;
pub mod dice;
pub mod gate;
pub mod gemm;
pub mod grid_sample;
pub mod interpolate;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod resample;
pub mod sgd;
pub mod softmax;
pub mod tile;
pub mod warp;
