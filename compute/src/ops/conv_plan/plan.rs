//! Plans: all that is decided before a convolution is launched.

use std::fmt;
use std::hash::Hash;

use cubecl::prelude::*;

use super::algorithm::{Conv3dAlgorithm, ConvTranspose3dAlgorithm};
use super::capabilities::DeviceCaps;
use super::gemm_tiling::{GemmTile, RegisterBlockedTile};
use super::halo_tiling::HaloTile;
use super::stem_tiling::StemTile;
use super::transposed_tiling::TransposedTile;
use crate::error::{Error, Result};
use crate::ops::launch::{BLOCK, cube_grid};
use crate::tensor::Shape;

/// A problem that [`plan`] finds a kernel for: that of a forward or of a transposed convolution.
pub(crate) trait Convolution: Copy + Eq + Hash {
    /// The kernels that can compute it.
    type Algorithm: Copy + Eq + fmt::Display;
    /// A kernel with all that it is launched with.
    type Plan: Copy + PartialEq + fmt::Display;
    /// Name of the operation in messages.
    const OP: &'static str;

    /// The algorithm that a plan uses.
    fn algorithm_of(plan: &Self::Plan) -> Self::Algorithm;

    /// What keeps `algorithm` from computing this problem on a device of these capabilities.
    fn unsupported_by(&self, algorithm: Self::Algorithm, caps: &DeviceCaps) -> Option<Error>;

    /// The plans that can compute this problem, the best first: those of `algorithm`, or of all algorithms that may be
    /// chosen without being asked for.
    fn candidates(&self, caps: &DeviceCaps, algorithm: Option<Self::Algorithm>) -> Vec<Self::Plan>;

    /// Shapes of input, weight and output.
    fn shapes(&self) -> [Shape; 3];

    /// Rows, columns and terms of the matrix product that the convolution is.
    fn product(&self) -> [usize; 3];

    /// All that a choice depends on beside the device, as text.
    fn key(&self, caps: &DeviceCaps) -> String;
}

/// The best plan of `algorithm`, or of all.
///
/// # Errors
/// A problem that `algorithm` cannot do on such a device.
pub(crate) fn plan<C: Convolution>(problem: &C, caps: &DeviceCaps, algorithm: Option<C::Algorithm>) -> Result<C::Plan> {
    if let Some(refused) = algorithm.and_then(|a| problem.unsupported_by(a, caps)) {
        return Err(refused);
    }
    let best = problem.candidates(caps, algorithm).into_iter().next();
    best.ok_or_else(|| Error::argument(format!("{}: {CUBE_LIMITS}", C::OP), ROOM_FOR_A_TILE, caps.limits()))
}

/// What is wrong and what is expected where no tile of an algorithm fits a device.
pub(super) const CUBE_LIMITS: &str = "what a cube may have on this device";
pub(super) const ROOM_FOR_A_TILE: &str = "enough for a tile";

/// The cubes of a launch, and the threads of each (CubeCL's units).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Number of cubes.
    pub(crate) cubes: usize,
    /// Threads of a cube.
    pub(crate) units: usize,
}

impl Grid {
    /// A grid of at least `threads` threads, in cubes of the size that every adapter allows.
    pub(super) fn of_threads(threads: usize) -> Self {
        Self { cubes: threads.div_ceil(BLOCK as usize), units: BLOCK as usize }
    }

    /// The grid as CubeCL takes it.
    ///
    /// # Errors
    /// More cubes than a launch may have.
    pub(crate) fn dimensions(&self) -> Result<(CubeCount, CubeDim)> {
        Ok((cube_grid(self.cubes)?, CubeDim::new_1d(self.units as u32)))
    }
}

/// Output channels that a thread of the direct kernels computes: the largest number they know that divides a group's.
pub(crate) fn output_channels_per_thread(channels: usize) -> usize {
    [4, 2].into_iter().find(|c| channels.is_multiple_of(*c)).unwrap_or(1)
}

/// A kernel of the forward convolution with its tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Conv3dKernel {
    /// One thread per output element.
    Naive,
    /// One thread per some neighbouring channels of an output voxel.
    Direct {
        /// Output channels of a thread, a divisor of a group's.
        channels: usize,
    },
    /// A register block per thread over the input in shared memory.
    Stem(StemTile),
    /// One thread per voxel.
    Pointwise {
        /// Input channels that a thread loads at once.
        width: usize,
    },
    /// A tiled matrix product by ordinary multiply-adds.
    RegisterBlocked(RegisterBlockedTile),
    /// A tiled matrix product by matrix instructions.
    ImplicitGemm(GemmTile),
    /// A matrix product by matrix instructions over a tile of input with its halo.
    Halo(HaloTile),
}

/// All that is decided about a forward convolution before its launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Conv3dPlan {
    /// The kernel and its tile.
    pub(crate) kernel: Conv3dKernel,
    /// What is launched.
    pub(crate) grid: Grid,
    /// Elements that a thread changes at once in the pass that adds residual and activation behind a kernel which does not
    /// do so itself.
    pub(crate) finish_width: usize,
}

impl Conv3dPlan {
    /// The algorithm of the kernel.
    pub(crate) fn algorithm(&self) -> Conv3dAlgorithm {
        match self.kernel {
            Conv3dKernel::Naive => Conv3dAlgorithm::Naive,
            Conv3dKernel::Direct { .. } => Conv3dAlgorithm::Direct,
            Conv3dKernel::Stem(_) => Conv3dAlgorithm::Stem,
            Conv3dKernel::Pointwise { .. } => Conv3dAlgorithm::Pointwise,
            Conv3dKernel::RegisterBlocked(_) => Conv3dAlgorithm::RegisterBlocked,
            Conv3dKernel::ImplicitGemm(_) => Conv3dAlgorithm::ImplicitGemm,
            Conv3dKernel::Halo(_) => Conv3dAlgorithm::Halo,
        }
    }

    /// Whether the kernel, or the sum of its parts, stores the output with residual and activation applied.
    pub(crate) fn fuses_epilogue(&self) -> bool {
        matches!(self.kernel, Conv3dKernel::RegisterBlocked(_) | Conv3dKernel::ImplicitGemm(_) | Conv3dKernel::Halo(_))
    }
}

impl fmt::Display for Conv3dPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.algorithm().fmt(f)?;
        match self.kernel {
            Conv3dKernel::Naive | Conv3dKernel::Direct { .. } | Conv3dKernel::Pointwise { .. } => Ok(()),
            Conv3dKernel::Stem(t) => write!(f, " {t}"),
            Conv3dKernel::RegisterBlocked(t) => write!(f, " {t}"),
            Conv3dKernel::ImplicitGemm(t) => write!(f, " {t}"),
            Conv3dKernel::Halo(t) => write!(f, " {t}"),
        }
    }
}

/// A kernel of the transposed convolution with its tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ConvTranspose3dKernel {
    /// One thread per some neighbouring channels of an output voxel.
    Direct {
        /// Output channels of a thread, a divisor of a group's.
        channels: usize,
    },
    /// A tiled matrix product.
    Gemm(TransposedTile),
}

/// All that is decided about a transposed convolution before its launch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ConvTranspose3dPlan {
    /// The kernel and its tile.
    pub(crate) kernel: ConvTranspose3dKernel,
    /// What is launched.
    pub(crate) grid: Grid,
}

impl ConvTranspose3dPlan {
    /// The algorithm of the kernel.
    pub(crate) fn algorithm(&self) -> ConvTranspose3dAlgorithm {
        match self.kernel {
            ConvTranspose3dKernel::Direct { .. } => ConvTranspose3dAlgorithm::Direct,
            ConvTranspose3dKernel::Gemm(_) => ConvTranspose3dAlgorithm::Gemm,
        }
    }
}

impl fmt::Display for ConvTranspose3dPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.algorithm().fmt(f)?;
        match self.kernel {
            ConvTranspose3dKernel::Direct { .. } => Ok(()),
            ConvTranspose3dKernel::Gemm(t) => write!(f, " {t}"),
        }
    }
}
