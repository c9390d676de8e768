//! Options of a device. They belong to the opened device and to every tensor on it, never to the process: two devices with
//! different options can be used at the same time.

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
    /// Whether convolutions of f32 tensors may round their operands to tf32 (10 bits of mantissa instead of 23) where a GPU
    /// multiplies those much faster; sums stay f32. As PyTorch's `torch.backends.cudnn.allow_tf32`, but off by default.
    pub tf32: bool,
    /// Whether the first convolution of each shape times the most promising kernels and uses the fastest from then on.
    pub autotune: Autotune,
    /// The algorithm of every convolution. Where it does not support a convolution, a warning is logged once for each shape and
    /// the cost model decides.
    #[cfg(feature = "gpu")]
    pub conv3d: Option<Conv3dAlgorithm>,
    /// The algorithm of every transposed convolution, with the same fallback.
    #[cfg(feature = "gpu")]
    pub conv_transpose3d: Option<ConvTranspose3dAlgorithm>,
    /// Whether the span of every op (see the crate's front page) ends only after the device has finished the op, so that its
    /// duration is that of the op. Launches are then not queued, and the sum of all spans is longer than a normal run.
    pub synchronous_spans: bool,
    /// The folder to which [`Device::finish_kernel_dump`](super::Device::finish_kernel_dump) writes the source of every kernel that
    /// was compiled. Only possible for a GPU that this process opens for the first time, because CubeCL fixes its compilation log
    /// when a client is made. That log belongs to the process: it contains the kernels of devices that are opened later too.
    pub kernel_dump: Option<PathBuf>,
    /// For tests: whether new buffers are filled with a pattern that is NaN in every float type, and followed by guard bytes that
    /// are checked when the buffer is read.
    pub guard_buffers: bool,
}

/// How convolution kernels are chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Autotune {
    /// By the cost model: the same choice, and therefore the same bits, in every run.
    #[default]
    Off,
    /// By timing; the choices are kept as long as the device is open.
    InMemory,
    /// By timing; the choices are kept in this JSON file for later runs, by device, driver and version of this crate.
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
