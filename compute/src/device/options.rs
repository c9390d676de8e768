//! What a device is opened with. Options belong to the opened device and to every tensor on it, never to the process: two
//! devices with different options work side by side.

use std::path::PathBuf;

#[cfg(feature = "gpu")]
use crate::ops::{Conv3dAlgorithm, ConvTranspose3dAlgorithm};

/// Options of an opened device. The CPU backend has none of its own: it runs in the rayon pool of its caller
/// (`ThreadPool::install`), and its results do not depend on the number of threads.
///
/// ```
/// use nephron_compute::{Device, DeviceOptions, DeviceSpec};
///
/// let device = Device::open_with(DeviceSpec::Auto, DeviceOptions::default().with_tf32(true))?;
/// # Ok::<(), nephron_compute::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceOptions {
    /// Convolutions of f32 tensors may round their operands to tf32 (10 bits of mantissa instead of 23) where a GPU
    /// multiplies those much faster; sums stay f32. As PyTorch's `torch.backends.cudnn.allow_tf32`, but off by default.
    pub tf32: bool,
    /// Whether the first convolution of each shape times the likely kernels and keeps the fastest.
    pub autotune: Autotune,
    /// The kernel that every convolution runs by where it can; where it cannot, a warning is logged once a shape and the
    /// cost model decides.
    #[cfg(feature = "gpu")]
    pub conv3d: Option<Conv3dAlgorithm>,
    /// The same for transposed convolutions.
    #[cfg(feature = "gpu")]
    pub conv_transpose3d: Option<ConvTranspose3dAlgorithm>,
    /// The span of every op (see the crate's front page) ends after the device has finished it, so that its length is the
    /// op's. Launches are then no longer queued behind one another: the sum of all spans is longer than an undisturbed run.
    pub synchronous_spans: bool,
    /// The folder for the source of every kernel that is compiled, written by [`Device::finish_kernel_dump`]
    /// (super::Device::finish_kernel_dump). Only for a GPU that this process opens for the first time: CubeCL fixes its
    /// compilation log when a client is made. It has one for the process: kernels of devices opened later are in it too.
    pub kernel_dump: Option<PathBuf>,
    /// For tests: fresh buffers are filled with a pattern that is NaN in every float type, and end in a tail that is
    /// checked on reading.
    pub guard_buffers: bool,
}

/// Choosing convolution kernels by timing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Autotune {
    /// The cost model decides: the same choice, and so the same bits, in every run.
    #[default]
    Off,
    /// By timing, remembered as long as the device is open.
    InMemory,
    /// By timing, kept in this file for later runs: JSON by device, driver and version of this crate.
    Cached(PathBuf),
}

impl DeviceOptions {
    /// Sets [`DeviceOptions::tf32`].
    #[must_use]
    pub fn with_tf32(self, tf32: bool) -> Self {
        Self { tf32, ..self }
    }

    /// Sets [`DeviceOptions::autotune`].
    #[must_use]
    pub fn with_autotune(self, autotune: Autotune) -> Self {
        Self { autotune, ..self }
    }

    /// Sets [`DeviceOptions::conv3d`].
    #[cfg(feature = "gpu")]
    #[must_use]
    pub fn with_conv3d(self, conv3d: Option<Conv3dAlgorithm>) -> Self {
        Self { conv3d, ..self }
    }

    /// Sets [`DeviceOptions::conv_transpose3d`].
    #[cfg(feature = "gpu")]
    #[must_use]
    pub fn with_conv_transpose3d(self, conv_transpose3d: Option<ConvTranspose3dAlgorithm>) -> Self {
        Self { conv_transpose3d, ..self }
    }

    /// Sets [`DeviceOptions::synchronous_spans`].
    #[must_use]
    pub fn with_synchronous_spans(self, synchronous_spans: bool) -> Self {
        Self { synchronous_spans, ..self }
    }

    /// Sets [`DeviceOptions::kernel_dump`].
    #[must_use]
    pub fn with_kernel_dump(self, kernel_dump: Option<PathBuf>) -> Self {
        Self { kernel_dump, ..self }
    }

    /// Sets [`DeviceOptions::guard_buffers`].
    #[must_use]
    pub fn with_guard_buffers(self, guard_buffers: bool) -> Self {
        Self { guard_buffers, ..self }
    }
}
