//! The server: the part of the runtime that runs on the device's thread.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cubecl_common::backtrace::BackTrace;
use cubecl_common::bytes::Bytes;
use cubecl_common::device::{DeviceId, DeviceService, ServerUtilitiesHandle};
use cubecl_common::future::DynFut;
use cubecl_common::profile::ProfileDuration;
use cubecl_common::stream_id::StreamId;
use cubecl_core::CubeTask;
use cubecl_runtime::allocator::PitchedMemoryLayoutPolicy;
use cubecl_runtime::id::KernelId;
use cubecl_runtime::kernel::DebugInformation;
use cubecl_runtime::logging::ServerLogger;
use cubecl_runtime::memory_management::{ManagedMemoryHandle, MemoryAllocationMode, MemoryUsage};
use cubecl_runtime::server::{
    Binding, ComputeServer, CopyDescriptor, CubeCount, ExecutionMode, IoError, KernelArguments, ProfileError,
    ProfilingToken, ServerCommunication, ServerError, ServerUtilities,
};
use cubecl_runtime::storage::{ComputeStorage, ManagedResource, StorageHandle, StorageId};
use cubecl_runtime::timestamp_profiler::TimestampProfiler;
use cubecl_runtime::validation::{validate_cube_dim, validate_units};

use crate::check::check;
use crate::name::KernelName;
use crate::properties::{ALIGNMENT, ARCHITECTURES, Architecture, properties};
use crate::record::{self, Resources, Verdict};
use crate::runtime::CudaCompiler;
use crate::toolkit;

/// The byte that reads return: NaN in every float type and 255 in u8, so that nothing looks as if it had been computed.
const POISON: u8 = 0xff;

/// Compiles launches and records which failed. It has no memory for buffers.
#[derive(Debug)]
pub struct CudaCompileServer {
    utilities: Arc<ServerUtilities<Self>>,
    timestamps: TimestampProfiler,
    /// The outcome of each kernel in this process; a kernel that failed fails on every launch.
    seen: HashMap<KernelId, Result<(), String>>,
    /// The launches that failed since the last flush, sync or read.
    failures: Vec<String>,
}

impl CudaCompileServer {
    fn check_launch(&mut self, kernel: &dyn CubeTask<CudaCompiler>, count: &CubeCount, mode: ExecutionMode) {
        let mut id = kernel.id();
        id.mode(mode);
        let name = KernelName::new(kernel, &id);
        let result = check_count(count, self.utilities.properties.hardware.max_cube_count).and_then(|()| {
            if let Some(known) = self.seen.get(&id) {
                return known.clone();
            }
            let result = self.compile(kernel, &id, &name, mode);
            self.seen.insert(id, result.clone());
            result
        });
        if let Err(reason) = result {
            self.failures.push(format!("kernel {name}: {reason}"));
        }
    }

    fn compile(
        &self,
        kernel: &dyn CubeTask<CudaCompiler>,
        id: &KernelId,
        name: &KernelName,
        mode: ExecutionMode,
    ) -> Result<(), String> {
        let properties = &self.utilities.properties;
        validate_cube_dim(properties, id).map_err(|e| e.to_string())?;
        validate_units(properties, id).map_err(|e| e.to_string())?;
        let verdicts = ARCHITECTURES
            .iter()
            .map(|&arch| {
                let (source, shared) = expand(kernel, arch, mode, &self.utilities.logger)?;
                let max = properties.hardware.max_shared_memory_size;
                let (resources, judged) = if shared > max {
                    (Resources::default(), Err(format!("asks for {shared} bytes of shared memory, {max} at most")))
                } else {
                    let toolkit = toolkit::get().as_ref()?;
                    check(toolkit, &source, arch, u32::try_from(shared).unwrap_or(u32::MAX))
                };
                Ok(Verdict {
                    kernel: name.unique(),
                    types: name.types.clone(),
                    options: name.options.clone(),
                    arch: arch.name.into(),
                    units: id.cube_dim.num_elems(),
                    warps: resources.warps(id.cube_dim.num_elems()),
                    source_bytes: source.len(),
                    resources,
                    failure: judged.err(),
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        record::keep(&name.unique(), &verdicts).map_err(|e| format!("its verdict cannot be kept: {e}"))?;
        let failed = verdicts.iter().find_map(|v| v.failure.as_ref().map(|reason| format!("{}: {reason}", v.arch)));
        failed.map_or(Ok(()), Err)
    }

    fn report(&mut self) -> Result<(), ServerError> {
        if self.failures.is_empty() {
            return Ok(());
        }
        let reason = std::mem::take(&mut self.failures).join("; ");
        Err(ServerError::Generic { reason, backtrace: BackTrace::capture() })
    }
}

/// The CUDA C++ of a kernel and the number of bytes of shared memory of its launch. A kernel whose expansion panics is an error here;
/// CubeCL would log a warning and continue.
fn expand(
    kernel: &dyn CubeTask<CudaCompiler>,
    arch: Architecture,
    mode: ExecutionMode,
    logger: &ServerLogger,
) -> Result<(String, usize), String> {
    let compile = || kernel.compile(&mut CudaCompiler::default(), &arch.codegen(), mode, kernel.address_type());
    let mut compiled = catch_unwind(AssertUnwindSafe(compile))
        .map_err(|panic| format!("its expansion panicked: {}", panic_message(panic.as_ref())))?
        .map_err(|e| e.to_string())?;
    if logger.compilation_activated() {
        compiled.debug_info = Some(DebugInformation::new("cpp", kernel.id()));
        logger.log_compilation(&compiled);
    }
    let shared = compiled.repr.as_ref().map_or(0, |kernel| kernel.shared_memory_size());
    Ok((compiled.source, shared))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}

/// Checks the number of cubes. CUDA refuses a launch of no cubes and one of too many; CubeCL checks neither.
fn check_count(count: &CubeCount, max: (u32, u32, u32)) -> Result<(), String> {
    match *count {
        CubeCount::Static(x, y, z) if count.is_empty() || x > max.0 || y > max.1 || z > max.2 => {
            Err(format!("launched on ({x}, {y}, {z}) cubes, allowed are 1 to {max:?}"))
        }
        _ => Ok(()),
    }
}

/// The storage of the device, which has no buffers.
pub enum NoStorage {}

impl ComputeStorage for NoStorage {
    type Resource = ();

    fn alignment(&self) -> usize {
        match *self {}
    }

    fn get(&mut self, _: &StorageHandle) {
        match *self {}
    }

    fn alloc(&mut self, _: u64) -> Result<StorageHandle, IoError> {
        match *self {}
    }

    fn dealloc(&mut self, _: StorageId) {
        match *self {}
    }

    fn flush(&mut self) {
        match *self {}
    }
}

impl DeviceService for CudaCompileServer {
    fn init(_: DeviceId) -> Self {
        let policy = PitchedMemoryLayoutPolicy::new(ALIGNMENT as usize);
        let utilities = ServerUtilities::new(properties(), Arc::new(ServerLogger::default()), (), policy);
        Self {
            utilities: Arc::new(utilities),
            timestamps: TimestampProfiler::default(),
            seen: HashMap::new(),
            failures: Vec::new(),
        }
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}

impl ServerCommunication for CudaCompileServer {
    const SERVER_COMM_ENABLED: bool = false;
}

impl ComputeServer for CudaCompileServer {
    type Kernel = Box<dyn CubeTask<CudaCompiler>>;
    type Storage = NoStorage;
    type MemoryLayoutPolicy = PitchedMemoryLayoutPolicy;
    type Info = ();

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities<Self>> {
        self.utilities.clone()
    }

    fn initialize_memory(&mut self, _: ManagedMemoryHandle, _: u64, _: StreamId) {}

    fn read(&mut self, descriptors: Vec<CopyDescriptor>, _: StreamId) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        let bytes = |d: &CopyDescriptor| vec![POISON; d.shape.iter().product::<usize>() * d.elem_size];
        let read = self.report().map(|()| descriptors.iter().map(|d| Bytes::from_bytes_vec(bytes(d))).collect());
        Box::pin(async move { read })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: StreamId) -> DynFut<Result<(), ServerError>> {
        let report = self.report();
        Box::pin(async move { report })
    }

    fn get_resource(&mut self, _: Binding, _: StreamId) -> Result<ManagedResource<()>, ServerError> {
        Err(IoError::UnsupportedIoOperation { backtrace: BackTrace::capture() }.into())
    }

    unsafe fn launch(
        &mut self,
        kernel: Self::Kernel,
        count: CubeCount,
        _: KernelArguments,
        mode: ExecutionMode,
        _: StreamId,
    ) {
        self.check_launch(kernel.as_ref(), &count, mode);
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        self.report()
    }

    fn memory_usage(&mut self, _: StreamId) -> Result<MemoryUsage, ServerError> {
        Ok(MemoryUsage { number_allocs: 0, bytes_in_use: 0, bytes_padding: 0, bytes_reserved: 0 })
    }

    fn memory_cleanup(&mut self, _: StreamId) {}

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        Ok(self.timestamps.start())
    }

    fn end_profile(&mut self, _: StreamId, token: ProfilingToken) -> Result<ProfileDuration, ProfileError> {
        self.timestamps.stop(token)
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}
