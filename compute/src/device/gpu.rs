//! A GPU that is reached through CubeCL: opening it, its buffers, and errors for launches whose failure CubeCL does not report.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::client::Abilities;
use super::options::DeviceOptions;
use super::{dump, faults};
use crate::error::{Error, Result};
use crate::ops::Launches;
use crate::ops::conv_plan::choices::Choices;
use crate::tensor::DType;

/// Number of guard bytes after every buffer in tests; they are filled with a pattern that is checked when the buffer is read.
const GUARD_BYTES: usize = 256;
/// The byte with which tests fill buffers: NaN in f32, f16 and bf16, and 255 in u8, so that an output element that a kernel did not
/// write fails every comparison.
const POISON: u8 = 0xff;

/// The hardware with its client, opened once for each process.
struct Context {
    client: Arc<dyn Launches>,
    name: String,
    identity: OnceLock<String>,
    abilities: Abilities,
    /// The folder of the kernel dump, for [`Gpu::finish_kernel_dump`].
    kernel_dump: Option<PathBuf>,
    /// Number of times that the host has waited for the device.
    waits: AtomicU64,
}

/// An opened device: the hardware, with the options and kernel choices of this opening.
struct Opened {
    context: Arc<Context>,
    options: DeviceOptions,
    choices: Choices,
}

/// An opened GPU. Cloning is cheap. Two `Gpu` of the same hardware with different options are equal, and an op may mix their
/// tensors; it follows the options of its first operand's device.
#[derive(Clone)]
pub struct Gpu(Arc<Opened>);

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.context, &other.0.context)
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.0.context.name)
    }
}

/// Contexts by device name. Each is opened once for the process: CubeCL panics when a device is set up twice, and a buffer can only
/// be used with its own client. It holds no setting.
static OPEN: Mutex<Option<HashMap<String, Arc<Context>>>> = Mutex::new(None);

fn opened(name: String, options: DeviceOptions, open: impl FnOnce() -> Result<Arc<dyn Launches>>) -> Result<Gpu> {
    let mut map = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let map = map.get_or_insert_default();
    let context = match map.get(&name) {
        Some(context) if options.kernel_dump.is_none() || options.kernel_dump == context.kernel_dump => context.clone(),
        Some(_) => {
            let expected = "a device that this process opens for the first time (CubeCL's log is fixed then)";
            return Err(Error::argument("device options: kernel dump", expected, format!("{name}, opened before")));
        }
        None => {
            let log = options.kernel_dump.as_deref().map(dump::begin).transpose()?;
            let client = configured(log, open)?;
            let context = Arc::new(Context::new(name.clone(), client, options.kernel_dump.clone())?);
            map.insert(name, context.clone());
            context
        }
    };
    Ok(Gpu(Arc::new(Opened { context, options, choices: Choices::default() })))
}

/// Makes a client with the configuration of CubeCL that nephron needs. CubeCL has one configuration for the process, which it
/// reads when a client is made and when it compiles its first kernel. By default it uses a stream and memory pools for each host
/// thread; on wgpu, buffers that are used on several streams get corrupted, so that all threads share one stream here.
fn configured(log: Option<PathBuf>, open: impl FnOnce() -> Result<Arc<dyn Launches>>) -> Result<Arc<dyn Launches>> {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let mut config = (*CubeClRuntimeConfig::get()).clone();
    config.streaming.max_streams = 1;
    if let Some(file) = log {
        config.compilation.logger.level = cubecl::config::compilation::CompilationLogLevel::Full;
        config.compilation.logger.file = Some(file);
    }
    *CubeClRuntimeConfig::storage().lock() = Some(Arc::new(config));
    open()
}

#[cfg(feature = "cuda")]
pub(super) fn open_cuda(index: usize, options: DeviceOptions) -> Result<Gpu> {
    let name = format!("cuda:{index}");
    let failed = |reason: String| Error::Device { device: format!("cuda:{index}"), reason };
    super::adapters::cuda_problem(index).map_or(Ok(()), |reason| Err(failed(reason)))?;
    opened(name, options, || {
        let device = cubecl_cuda::CudaDevice::new(index);
        faults::catch(|| <cubecl_cuda::CudaRuntime as Runtime>::client(&device)).map(erased).map_err(failed)
    })
}

#[cfg(feature = "vulkan")]
pub(super) fn open_vulkan(index: Option<usize>, options: DeviceOptions) -> Result<Gpu> {
    let spec = super::DeviceSpec::Vulkan(index).to_string();
    let failed = |reason: String| Error::Device { device: spec.clone(), reason };
    let (index, device) = super::adapters::vulkan_device(index).map_err(failed)?;
    opened(format!("vulkan:{index}"), options, || {
        faults::catch(|| {
            cubecl_wgpu::init_setup::<cubecl_wgpu::Vulkan>(&device, cubecl_wgpu::RuntimeOptions::default());
            <cubecl_wgpu::WgpuRuntime as Runtime>::client(&device)
        })
        .map(erased)
        .map_err(failed)
    })
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn erased<R: Runtime>(client: ComputeClient<R>) -> Arc<dyn Launches> {
    Arc::new(client)
}

impl Context {
    fn new(name: String, client: Arc<dyn Launches>, kernel_dump: Option<PathBuf>) -> Result<Self> {
        let failed = |reason: String| Error::Device { device: name.clone(), reason: faults::one_line(&reason) };
        let abilities = faults::catch(|| client.abilities()).and_then(|abilities| abilities).map_err(failed)?;
        faults::watch(abilities.runner);
        let (identity, waits) = (OnceLock::new(), AtomicU64::new(0));
        Ok(Self { client, name, identity, abilities, kernel_dump, waits })
    }
}

impl Gpu {
    /// The device of a client that the application holds; see [`Device::from_client`](super::Device::from_client).
    pub(super) fn from_client<R: Runtime>(name: &str, client: ComputeClient<R>) -> Result<Self> {
        let context = Arc::new(Context::new(name.to_owned(), Arc::new(client), None)?);
        Ok(Self(Arc::new(Opened { context, options: DeviceOptions::default(), choices: Choices::default() })))
    }

    /// The same hardware with other options: tensors of both go together.
    ///
    /// # Errors
    /// A kernel dump, which only the first opening of a device can begin.
    pub(super) fn with_options(&self, options: DeviceOptions) -> Result<Self> {
        if options.kernel_dump.is_some() && options.kernel_dump != self.0.context.kernel_dump {
            let expected = "one given when the device is opened";
            return Err(Error::argument("device options: kernel dump", expected, "one for a device that is open"));
        }
        let context = self.0.context.clone();
        Ok(Self(Arc::new(Opened { context, options, choices: Choices::default() })))
    }

    /// The options of this device.
    pub fn options(&self) -> &DeviceOptions {
        &self.0.options
    }

    /// The kernels that were chosen on this device so far.
    pub(crate) fn choices(&self) -> &Choices {
        &self.0.choices
    }

    /// Writes the files of the kernel dump, see [`super::Device::finish_kernel_dump`].
    pub(super) fn finish_kernel_dump(&self) -> Result<usize> {
        let gpu = self.name().rsplit_once(':').and_then(|(_, index)| index.parse().ok()).unwrap_or(0);
        self.0.context.kernel_dump.as_deref().map_or(Ok(0), |folder| dump::finish(folder, gpu))
    }

    /// The CubeCL client of the device, where it is one of runtime `R`.
    pub fn client<R: Runtime>(&self) -> Option<&ComputeClient<R>> {
        self.0.context.client.as_any().downcast_ref()
    }

    /// The client, for calls that launch nothing.
    pub(crate) fn launches(&self) -> &dyn Launches {
        &*self.0.context.client
    }

    /// Runs `f`, which launches kernels, on the device's own thread, and waits until `f` has returned (not until its kernels have
    /// finished). On that thread a launch that cannot be expanded or validated panics in the frame of its caller instead of
    /// being dropped with a message in a log. Here the panic becomes an error, whatever panic hook is installed.
    ///
    /// # Errors
    /// An error that `f` returns; a launch that failed.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce(&dyn Launches) -> Result<T> + Send) -> Result<T> {
        let result = self.on_runner(|| faults::catch(|| f(self.launches())))?;
        result.unwrap_or_else(|message| Err(self.fault(&message)))
    }

    /// Runs `f` on the device's own thread. Every op in it is then already on that thread, which saves a round trip for each op. A
    /// panic of `f` is resumed in the caller.
    ///
    /// # Errors
    /// A device whose thread has ended.
    pub fn on_device_thread<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let result = self.on_runner(|| faults::aloud(|| panic::catch_unwind(AssertUnwindSafe(f))))?;
        result.map_err(|payload| panic::resume_unwind(payload))
    }

    fn on_runner<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let (mut task, mut result) = (Some(f), None);
        let outcome = self.0.context.client.exclusive(&mut || result = task.take().map(|f| f()));
        result.ok_or_else(|| self.fault(&outcome.err().unwrap_or_else(|| "the device's thread has ended".into())))
    }

    /// The name of the device, such as `cuda:0` or `vulkan:1`.
    pub fn name(&self) -> &str {
        &self.0.context.name
    }

    /// The identity under which measurements are kept: product name, driver, and version of this crate.
    pub(crate) fn identity(&self) -> &str {
        self.0.context.identity.get_or_init(|| {
            let mut adapters = super::adapters::backends().into_iter().flat_map(|backend| backend.adapters);
            let own = adapters.find(|a| a.device == self.0.context.name);
            let hardware = own.map_or_else(|| self.0.context.name.clone(), |a| format!("{}, {}", a.name, a.driver));
            format!("{hardware}, nephron {}", env!("CARGO_PKG_VERSION"))
        })
    }

    pub(super) fn supports(&self, dtype: DType) -> bool {
        match dtype {
            DType::F32 | DType::U8 | DType::I16 => true,
            DType::F16 => self.0.context.abilities.f16,
            DType::BF16 => self.0.context.abilities.bf16,
        }
    }

    pub(super) fn max_buffer_bytes(&self) -> u64 {
        self.0.context.abilities.max_buffer_bytes
    }

    /// A buffer of at least `bytes` bytes with undefined contents. Sizes are rounded up to whole 32-bit words.
    pub(crate) fn alloc(&self, bytes: usize) -> Result<Handle> {
        let padded = self.padded(bytes)?;
        if self.0.options.guard_buffers {
            return self.upload_raw(&vec![POISON; padded]);
        }
        self.catch(|| self.0.context.client.allocate(padded))
    }

    /// A buffer that holds `data`.
    pub(crate) fn upload(&self, data: &[u8]) -> Result<Handle> {
        let padded = self.padded(data.len())?;
        if padded == data.len() {
            return self.upload_raw(data);
        }
        let mut bytes = Vec::with_capacity(padded);
        bytes.extend_from_slice(data);
        bytes.resize(padded, POISON);
        self.upload_raw(&bytes)
    }

    fn upload_raw(&self, data: &[u8]) -> Result<Handle> {
        self.catch(|| self.0.context.client.create(data))
    }

    /// The first `bytes` bytes of a buffer, after everything that was launched before has finished.
    ///
    /// # Errors
    /// A launch that failed.
    pub(crate) fn read(&self, handle: &Handle, bytes: usize) -> Result<Vec<u8>> {
        let mut all = self.read_all(&[(handle.clone(), bytes)])?;
        all.pop().ok_or_else(|| self.fault("a read returned nothing"))
    }

    /// As [`Self::read`] for many buffers, with one wait for all.
    pub(crate) fn read_all(&self, buffers: &[(Handle, usize)]) -> Result<Vec<Vec<u8>>> {
        self.synchronize()?;
        let handles: Vec<Handle> = buffers.iter().map(|(handle, _)| handle.clone()).collect();
        let all = self.catch(|| self.0.context.client.contents(handles))?.map_err(|e| self.fault(&e))?;
        if all.len() != buffers.len() {
            return Err(self.fault(&format!("a read returned {} buffers of {}", all.len(), buffers.len())));
        }
        let checked = |(data, (_, bytes)): (&cubecl::bytes::Bytes, &(Handle, usize))| {
            let bytes = *bytes;
            if data.len() < bytes {
                return Err(self.fault(&format!("a read returned {} bytes of {bytes}", data.len())));
            }
            if self.0.options.guard_buffers && data[bytes.next_multiple_of(4)..].iter().any(|b| *b != POISON) {
                return Err(self.fault("a kernel wrote past the end of its output"));
            }
            Ok(data[..bytes].to_vec())
        };
        all.iter().zip(buffers).map(checked).collect()
    }

    /// Number of times that the host has waited for this device since it was opened: synchronisations and reads.
    pub fn waits(&self) -> u64 {
        self.0.context.waits.load(Ordering::Relaxed)
    }

    /// Waits for all launches.
    ///
    /// # Errors
    /// The first launch that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.0.context.waits.fetch_add(1, Ordering::Relaxed);
        let result = self.catch(|| self.0.context.client.finish());
        // A panic on the device's thread is the cause of every error after it, so it is reported first.
        if let Some(first) = faults::take(self.0.context.abilities.runner).into_iter().next() {
            return Err(self.fault(&first));
        }
        result?.map_err(|e| self.fault(&e))
    }

    fn catch<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        faults::catch(f).map_err(|message| self.fault(&message))
    }

    fn fault(&self, message: &str) -> Error {
        Error::Kernel { device: self.0.context.name.clone(), message: faults::one_line(message) }
    }

    fn padded(&self, bytes: usize) -> Result<usize> {
        let guard = if self.0.options.guard_buffers { GUARD_BYTES } else { 0 };
        let needed = bytes.max(1).next_multiple_of(4).saturating_add(guard);
        if needed as u64 > self.0.context.abilities.max_buffer_bytes {
            return Err(Error::BufferTooLarge {
                device: self.0.context.name.clone(),
                needed: bytes as u64,
                limit: self.0.context.abilities.max_buffer_bytes,
            });
        }
        Ok(needed)
    }
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
