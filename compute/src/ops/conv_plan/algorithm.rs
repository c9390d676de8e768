//! The algorithms of both convolutions on a GPU.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The ways to convolve on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conv3dAlgorithm {
    /// One thread per output element. It is what the other algorithms are measured against, and runs only on request.
    Naive,
    /// One thread per output element, or per few neighbouring channels of one. Any shape.
    Direct,
    /// For few input channels: each thread computes a register block of voxels and channels, over the input in shared
    /// memory.
    Stem,
    /// For kernels of 1x1x1 to few output channels: one thread per voxel.
    Pointwise,
    /// A matrix product over tiles in shared memory, by ordinary multiply-adds.
    RegisterBlocked,
    /// The same by matrix instructions. Devices without them run the same tiles by ordinary arithmetic, which is slow.
    ImplicitGemm,
    /// By matrix instructions, with the inputs of all taps of a tile kept in shared memory. Stride and dilation 1, one
    /// group, kernels of 1 or 3 along z and y and 3 along x.
    Halo,
}

impl Conv3dAlgorithm {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Naive, Self::Direct, Self::Pointwise, Self::Stem, Self::RegisterBlocked, Self::ImplicitGemm, Self::Halo];

    /// The error of this algorithm for a problem that it cannot do.
    pub(super) fn refuse(self, what: &str, expected: impl ToString, found: impl ToString) -> Option<Error> {
        Some(Error::argument(format!("conv3d by {self}: {what}"), expected, found))
    }
}

impl fmt::Display for Conv3dAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Naive => "naive",
            Self::Direct => "direct",
            Self::Stem => "stem",
            Self::Pointwise => "pointwise",
            Self::RegisterBlocked => "register_blocked",
            Self::ImplicitGemm => "implicit_gemm",
            Self::Halo => "halo",
        })
    }
}

impl FromStr for Conv3dAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|a| a.to_string() == text).ok_or_else(|| {
            let names = Self::ALL.map(|a| a.to_string()).join(", ");
            Error::argument("conv3d algorithm", format!("one of {names}"), format!("'{text}'"))
        })
    }
}

/// The ways to convolve transposed on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConvTranspose3dAlgorithm {
    /// One thread per output element, or per few neighbouring channels of one. Any shape.
    Direct,
    /// One matrix product, for kernels that are as large as their stride.
    Gemm,
}

impl ConvTranspose3dAlgorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Gemm];

    /// The error of this algorithm for a problem that it cannot do.
    pub(super) fn refuse(self, what: &str, expected: impl ToString, found: impl ToString) -> Option<Error> {
        Some(Error::argument(format!("conv_transpose3d by {self}: {what}"), expected, found))
    }
}

impl fmt::Display for ConvTranspose3dAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Gemm => "gemm",
        })
    }
}

impl FromStr for ConvTranspose3dAlgorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|a| a.to_string() == text);
        found.ok_or_else(|| Error::argument("conv_transpose3d algorithm", "direct or gemm", format!("'{text}'")))
    }
}
