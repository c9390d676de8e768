//! Where tensors live and kernels run: one binary holds every backend and chooses at run time.

#[cfg(feature = "gpu")]
pub(crate) mod client;
#[cfg(feature = "gpu")]
mod dump;
#[cfg(feature = "gpu")]
mod faults;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
mod list;
mod options;
#[cfg(all(test, feature = "gpu"))]
pub(crate) mod test_gpus;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use list::{AdapterReport, BackendReport, report};

#[cfg(feature = "gpu")]
pub use gpu::Gpu;
pub use options::{Autotune, DeviceOptions};

use crate::error::{Error, Result};
use crate::tensor::DType;

/// What the user asked for: `auto`, `cpu`, `cuda[:n]` or `vulkan[:n]`. Backends may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// CUDA, else a hardware Vulkan adapter, else the CPU.
    #[default]
    Auto,
    /// The CPU backend.
    Cpu,
    /// The n-th NVIDIA GPU (the first if not given).
    Cuda(Option<usize>),
    /// The n-th Vulkan adapter as `devices` lists them (hardware first if not given).
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
    /// rayon over outputs, f32 storage.
    Cpu,
    /// A GPU reached through CubeCL.
    #[cfg(feature = "gpu")]
    Gpu(Gpu),
}

impl Device {
    /// Opens what `spec` names, with default options.
    ///
    /// # Errors
    /// The reason when it is not there; [`DeviceSpec::Auto`] never fails.
    pub fn open(spec: DeviceSpec) -> Result<Self> {
        Self::open_with(spec, DeviceOptions::default())
    }

    /// Opens what `spec` names.
    ///
    /// # Errors
    /// The reason when it is not there ([`DeviceSpec::Auto`] falls back to the CPU); a kernel dump into a folder that
    /// cannot be made, or of a device that was opened before.
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

    /// A device from a CubeCL client that the application holds, of any runtime: tensors on it are buffers of that client,
    /// and its ops launch with it. `name` is what errors call it. Clone the device instead of making a second one, which
    /// would count as another device.
    ///
    /// CubeCL has a stream for each host thread, unless its configuration sets `streaming.max_streams` to 1, as nephron does
    /// for devices that it opens itself. Without that, use the device from one thread.
    ///
    /// It has default options; [`Device::with_options`] gives it others.
    ///
    /// # Errors
    /// A client whose device does not answer.
    #[cfg(feature = "gpu")]
    pub fn from_client<R: cubecl::Runtime>(name: &str, client: cubecl::client::ComputeClient<R>) -> Result<Self> {
        Gpu::from_client(name, client).map(Self::Gpu)
    }

    /// Runs `f` on the thread that serves the device: the ops in it need not wait for that thread one by one. For a whole
    /// network's forward pass, or any other row of small ops. On the CPU it just runs. A panic of `f` goes on in the caller.
    ///
    /// # Errors
    /// What `f` returns; a device whose thread has ended.
    pub fn on_device_thread<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Self::Cpu => f(),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.on_device_thread(f)?,
        }
    }

    /// CUDA, else a hardware Vulkan adapter, else the CPU, with default options.
    pub fn auto() -> Self {
        Self::first_of_all(DeviceOptions::default()).unwrap_or(Self::Cpu)
    }

    /// Only a device that is not there is passed over; options that it refuses are an error. Why a backend was passed over
    /// is logged.
    #[cfg_attr(not(any(feature = "cuda", feature = "vulkan")), expect(unused_variables))]
    fn first_of_all(options: DeviceOptions) -> Result<Self> {
        #[cfg(feature = "cuda")]
        match gpu::open_cuda(0, options.clone()) {
            Err(Error::Device { device, reason }) => tracing::debug!(target: "nephron::device", "{device}: {reason}"),
            opened => return opened.map(Self::Gpu),
        }
        #[cfg(feature = "vulkan")]
        match list::first_hardware_adapter().map(|index| gpu::open_vulkan(Some(index), options)) {
            None => tracing::debug!(target: "nephron::device", "vulkan: no hardware adapter"),
            Some(Err(Error::Device { device, reason })) => {
                tracing::debug!(target: "nephron::device", "{device}: {reason}");
            }
            Some(opened) => return opened.map(Self::Gpu),
        }
        Ok(Self::Cpu)
    }

    /// The same device with other options. Tensors of both go together; an op follows the options of its first operand's
    /// device.
    ///
    /// # Errors
    /// A kernel dump, which begins when a device is opened.
    #[cfg_attr(not(feature = "gpu"), expect(unused_variables))]
    pub fn with_options(&self, options: DeviceOptions) -> Result<Self> {
        match self {
            Self::Cpu => Ok(Self::Cpu),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.with_options(options).map(Self::Gpu),
        }
    }

    /// What this device was opened with; on the CPU the defaults.
    pub fn options(&self) -> Cow<'_, DeviceOptions> {
        match self {
            Self::Cpu => Cow::Owned(DeviceOptions::default()),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => Cow::Borrowed(gpu.options()),
        }
    }

    /// Writes the kernels that were compiled since this device was opened with a
    /// [`kernel_dump`](DeviceOptions::kernel_dump): a source file for each (`.cu`, `.wgsl`, `.spvasm`), and `kernels.csv`
    /// with their registers, local and shared memory and occupancy where the device is CUDA's. Returns their number, 0
    /// where nothing is compiled.
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

    /// `cpu`, `cuda:0`, `vulkan:1`: what `--device` takes.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".into(),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.name().into(),
        }
    }

    /// Can tensors of this type be stored and computed with here?
    pub fn supports(&self, dtype: DType) -> bool {
        match self {
            Self::Cpu => matches!(dtype, DType::F32 | DType::U8 | DType::I16),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.supports(dtype),
        }
    }

    /// The largest single buffer, in bytes.
    pub fn max_buffer_bytes(&self) -> u64 {
        match self {
            Self::Cpu => isize::MAX as u64,
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.max_buffer_bytes(),
        }
    }

    /// How often the host has waited for the device since it was opened; 0 for the CPU. Each wait costs a round trip, so
    /// code that is meant to keep a GPU busy should not add one per item.
    pub fn waits(&self) -> u64 {
        match self {
            Self::Cpu => 0,
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.waits(),
        }
    }

    /// Waits for everything launched so far and reports the first failure among it.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            #[cfg(feature = "gpu")]
            Self::Gpu(gpu) => gpu.synchronize(),
        }
    }
}
