//! Devices: where tensors are stored and kernels run. One binary contains every backend and chooses at run time.

mod adapters;
#[cfg(feature = "gpu")]
pub(crate) mod client;
#[cfg(feature = "gpu")]
mod dump;
#[cfg(feature = "gpu")]
mod faults;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod options;
#[cfg(feature = "cuda")]
mod rates;
#[cfg(all(test, feature = "gpu"))]
pub(crate) mod test_gpus;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use adapters::{AdapterReport, BackendReport, backends};

#[cfg(feature = "gpu")]
pub use gpu::Gpu;
pub use options::{Autotune, DeviceOptions};

use crate::error::{Error, Result};
use crate::tensor::DType;

/// The name of a device, parsed from `auto`, `cpu`, `cuda[:n]` or `vulkan[:n]`. Later versions may add backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// CUDA, else a hardware Vulkan adapter, else the CPU.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// The n-th NVIDIA GPU, counted from 0; the first where no number is given.
    Cuda(Option<usize>),
    /// The n-th Vulkan adapter in the order of [`backends`], which lists hardware first; the first where no number is given.
    Vulkan(Option<usize>),
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = |expected| Error::UnknownDevice { text: text.to_owned(), expected };
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => {
                let index = index.parse().map_err(|_| unknown("the part after ':' must be a whole number"))?;
                (kind, Some(index))
            }
            None => (text, None),
        };
        match (kind, index) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", index) => Ok(Self::Cuda(index)),
            ("vulkan", index) => Ok(Self::Vulkan(index)),
            _ => Err(unknown("expected auto, cpu, cuda[:n] or vulkan[:n]")),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, index) = match self {
            Self::Auto => ("auto", &None),
            Self::Cpu => ("cpu", &None),
            Self::Cuda(index) => ("cuda", index),
            Self::Vulkan(index) => ("vulkan", index),
        };
        match index {
            Some(index) => write!(f, "{kind}:{index}"),
            None => f.write_str(kind),
        }
    }
}

/// An opened device. Cloning is cheap; two clones are the same device.
#[derive(Clone, Debug, PartialEq)]
pub enum Device {
    /// The CPU: rayon and SIMD, f32 storage.
    Cpu,
    /// A GPU reached through CubeCL.
    #[cfg(feature = "gpu")]
    Gpu(Gpu),
}

impl Device {
    /// Opens the device that `spec` names, with default options.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason where it is not available; [`DeviceSpec::Auto`] never fails.
    pub fn open(spec: DeviceSpec) -> Result<Self> {
        Self::open_with(spec, DeviceOptions::default())
    }

    /// Opens the device that `spec` names.
    ///
    /// # Errors
    /// [`Error::Device`] with the reason where it is not available ([`DeviceSpec::Auto`] falls back to the CPU); a kernel dump into
    /// a folder that cannot be made, or of a device that was opened before.
    pub fn open_with(spec: DeviceSpec, options: DeviceOptions) -> Result<Self> {
        match spec {
            DeviceSpec::Cpu => Ok(Self::Cpu),
            DeviceSpec::Auto => Self::first_of_all(options),
            #[cfg(feature = "cuda")]
            DeviceSpec::Cuda(index) => gpu::open_cuda(index.unwrap_or(0), options).map(Self::Gpu),
            #[cfg(feature = "vulkan")]
            DeviceSpec::Vulkan(index) => gpu::open_vulkan(index, options).map(Self::Gpu),
            #[allow(unreachable_patterns)]
            other => Err(Error::Device {
                device: other.to_string(),
                reason: "this build of nephron was compiled without that backend".into(),
            }),
        }
    }

    /// A device from the application's CubeCL client, of any runtime: its tensors are buffers of that client, and its ops launch
    /// with it. `name` is its name in errors. Clone the device rather than making a second one of the same client, which would
    /// count as a different device.
    ///
    /// CubeCL uses a stream for each host thread, unless its configuration sets `streaming.max_streams` to 1, as nephron does for
    /// devices that it opens itself. Without that setting, use the device from one thread only.
    ///
    /// The device has default options; [`Device::with_options`] changes them.
    ///
    /// # Errors
    /// [`Error::Device`] for a client whose device does not respond.
    #[cfg(feature = "gpu")]
    pub fn from_client<R: cubecl::Runtime>(name: &str, client: cubecl::client::ComputeClient<R>) -> Result<Self> {
        Gpu::from_client(name, client).map(Self::Gpu)
    }

    /// Runs `f` on the thread that serves the device, so that the ops in it need not wait for that thread one by one. Use it for a
    /// sequence of many small ops, such as the forward pass of a network. On the CPU `f` is simply called. A panic of `f` is
    /// resumed in the caller.
    ///
    /// # Errors
    /// An error that `f` returns; a device whose thread has ended.
    pub fn on_device_thread<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Self::Cpu => f(),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.on_device_thread(f)?,
        }
    }

    /// Opens CUDA, else a hardware Vulkan adapter, else the CPU, with default options.
    pub fn auto() -> Self {
        Self::first_of_all(DeviceOptions::default()).unwrap_or(Self::Cpu)
    }

    /// Only a device that is not available is passed over, and the reason is logged; options that a device refuses are an error.
    #[cfg_attr(not(any(feature = "cuda", feature = "vulkan")), expect(unused_variables))]
    fn first_of_all(options: DeviceOptions) -> Result<Self> {
        #[cfg(feature = "cuda")]
        match gpu::open_cuda(0, options.clone()) {
            Err(Error::Device { device, reason }) => tracing::debug!(target: "nephron::device", "{device}: {reason}"),
            opened => return opened.map(Self::Gpu),
        }
        #[cfg(feature = "vulkan")]
        match adapters::first_hardware_adapter().map(|index| gpu::open_vulkan(Some(index), options)) {
            None => tracing::debug!(target: "nephron::device", "vulkan: no hardware adapter"),
            Some(Err(Error::Device { device, reason })) => {
                tracing::debug!(target: "nephron::device", "{device}: {reason}");
            }
            Some(opened) => return opened.map(Self::Gpu),
        }
        Ok(Self::Cpu)
    }

    /// The same device with other options. An op may mix tensors of both, and follows the options of its first operand's device.
    ///
    /// # Errors
    /// [`Error::Argument`] for another kernel dump than the device was opened with.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables))]
    pub fn with_options(&self, options: DeviceOptions) -> Result<Self> {
        match self {
            Self::Cpu => Ok(Self::Cpu),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.with_options(options).map(Self::Gpu),
        }
    }

    /// The options of this device; on the CPU the defaults.
    pub fn options(&self) -> Cow<'_, DeviceOptions> {
        match self {
            Self::Cpu => Cow::Owned(DeviceOptions::default()),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => Cow::Borrowed(gpu.options()),
        }
    }

    /// Writes the kernels that were compiled since this device was opened with a
    /// [`kernel_dump`](DeviceOptions::kernel_dump): a source file for each (`.cu`, `.wgsl`, `.spvasm`), and `kernels.csv`, which
    /// on CUDA contains their registers, local and shared memory and occupancy. Returns the number of kernels, 0 on the CPU.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn finish_kernel_dump(&self) -> Result<usize> {
        match self {
            Self::Cpu => Ok(0),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.finish_kernel_dump(),
        }
    }

    /// The name of the device, such as `cpu`, `cuda:0` or `vulkan:1`, as [`DeviceSpec`] parses it.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".into(),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.name().into(),
        }
    }

    /// Whether tensors of this type can be stored and computed with on this device.
    pub fn supports(&self, dtype: DType) -> bool {
        match self {
            Self::Cpu => matches!(dtype, DType::F32 | DType::U8 | DType::I16),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.supports(dtype),
        }
    }

    /// The size of the largest buffer in bytes.
    pub fn max_buffer_bytes(&self) -> u64 {
        match self {
            Self::Cpu => isize::MAX as u64,
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.max_buffer_bytes(),
        }
    }

    /// Number of times that the host has waited for the device since it was opened; 0 for the CPU. Each wait costs a round trip,
    /// so code that should keep a GPU busy must not wait once for every item.
    pub fn waits(&self) -> u64 {
        match self {
            Self::Cpu => 0,
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.waits(),
        }
    }

    /// Waits for everything launched so far.
    ///
    /// # Errors
    /// [`Error::Kernel`] for the first launch among it that failed.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.synchronize(),
        }
    }
}
