//! What all matrix products of this crate share: tiles in shared memory and their addresses ([`layout`]), the products of
//! fragments that a plane holds in registers ([`fragments`]), and the epilogue and store of its sums ([`store`]).
//!
//! C[m, n] = sum over k of A[m, k] * B[n, k]. A cube computes a tile of C, and its planes divide the tile among them. A
//! plane's part is made of blocks of 16 x 8, the shape that `mma.sync` leaves in the registers of its lanes. What A and B
//! are, how they come into shared memory and where C goes is the kernels' own.

pub mod fragments;
pub mod layout;
pub mod store;

/// The instruction that multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// CUDA's `mma.sync` m16n8k16 (f16 and bf16, f32 sums), with operands loaded by `ldmatrix`; sm_80 and later.
    Mma,
    /// `mma.sync` m16n8k8 over f32 rounded to tf32 (8 bits of exponent, 10 of mantissa), f32 sums; sm_80 and later.
    Tf32,
    /// Ordinary arithmetic over the same tiles.
    Plain,
}

/// How planes divide a cube's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Planes {
    /// Number of planes along m.
    pub m: usize,
    /// Number of planes along n.
    pub n: usize,
}

/// Units of a plane.
pub const PLANE: usize = 32;
/// Outputs of a block along m and n, and terms of a step: the shape of `mma.sync` for 16-bit floats.
pub(crate) const BLOCK: [usize; 3] = [16, 8, 16];
