//! The planner of both convolutions: which kernel computes a problem on a device, with which tiles, vectors and grid.
//!
//! `plan` is a pure function of a problem, the capabilities of a device and an algorithm that the caller may name. It
//! takes the first of a ranked list of candidates. Forward convolutions are ranked by a cost model, transposed ones by a
//! rule. `choose_conv3d` and `choose_conv_transpose3d` are `plan` for an opened device: they follow the device's
//! options, may rank by timing instead, and remember what was planned. Launches read a plan and decide nothing.
//!
//! Files in the order in which they build on one another: `algorithm`, `capabilities`, the tiles of each kernel
//! (`gemm_tiling`, `halo_tiling`, `stem_tiling`, `transposed_tiling`), `plan`, `cost`, the two kinds of problem (`forward`,
//! `transposed`), `choices`, `autotune`, `choose`.

mod algorithm;
mod autotune;
mod capabilities;
pub mod choices;
mod choose;
mod cost;
mod forward;
mod gemm_tiling;
mod halo_tiling;
mod plan;
mod stem_tiling;
mod transposed;
mod transposed_tiling;

pub use algorithm::{Conv3dAlgorithm, ConvTranspose3dAlgorithm};
pub(crate) use capabilities::ConvPlanLaunches;
pub use capabilities::DeviceCaps;
pub(super) use choose::{choose_conv_transpose3d, choose_conv3d};
pub(super) use gemm_tiling::{GemmTile, RegisterBlockedTile};
pub(super) use halo_tiling::HaloTile;
pub(super) use plan::{
    Conv3dKernel, Conv3dPlan, ConvTranspose3dKernel, ConvTranspose3dPlan, output_channels_per_thread, plan,
};
pub(super) use stem_tiling::StemTile;
pub(super) use transposed_tiling::TransposedTile;
