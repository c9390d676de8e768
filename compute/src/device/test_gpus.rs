//! The GPUs that unit tests run on.

use cubecl::Runtime;
use nephron_cuda_compile::{CudaCompileDevice, CudaCompileRuntime};

use super::gpu::Gpu;
use super::{Device, DeviceOptions, DeviceSpec};

/// The devices of `specs` that are available, with guarded buffers. A missing device that NEPHRON_REQUIRE names is a failure; any
/// other is printed as skipped.
fn gpus(specs: &[DeviceSpec]) -> Vec<Gpu> {
    let required = std::env::var("NEPHRON_REQUIRE").unwrap_or_default();
    let open = |spec: &DeviceSpec| match Device::open_with(*spec, DeviceOptions::default().with_guard_buffers(true)) {
        Ok(Device::Gpu(gpu)) => Some(gpu),
        Ok(Device::Cpu) => None,
        Err(error) => {
            assert!(!required.split(',').any(|r| r == spec.to_string()), "{error}");
            eprintln!("SKIPPED on {spec}: {error}");
            None
        }
    };
    specs.iter().filter_map(open).collect()
}

/// `with_client!(gpu, client => expression)`: the expression with `client` the `&ComputeClient<R>` of the GPU, one of those
/// that unit tests run on.
macro_rules! with_client {
    ($gpu:expr, $client:ident => $body:expr) => {
        if let Some($client) = $gpu.client::<cubecl_wgpu::WgpuRuntime>() {
            $body
        } else if let Some($client) = $gpu.client::<cubecl_cuda::CudaRuntime>() {
            $body
        } else if let Some($client) = $gpu.client::<nephron_cuda_compile::CudaCompileRuntime>() {
            $body
        } else {
            panic!("{}: another runtime", $gpu.name())
        }
    };
}
pub(crate) use with_client;

/// Every GPU backend that is available, and the one that compiles for CUDA and runs nothing.
pub(crate) fn all_gpus() -> Vec<Gpu> {
    let mut all = computing_gpus();
    all.extend(compiler());
    all
}

/// Whether kernels are only compiled on this device, so that results have no meaning.
pub(crate) fn compiles_only(gpu: &Gpu) -> bool {
    gpu.client::<CudaCompileRuntime>().is_some()
}

fn compiler() -> Option<Gpu> {
    if let Some(problem) = nephron_cuda_compile::problem() {
        let required = std::env::var("NEPHRON_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|r| r == "cuda-compile"), "{problem}");
        eprintln!("SKIPPED on cuda-compile: {problem}");
        return None;
    }
    let client = CudaCompileRuntime::client(&CudaCompileDevice);
    match Device::from_client("cuda-compile", client) {
        Ok(Device::Gpu(gpu)) => Some(gpu),
        other => panic!("{other:?}"),
    }
}

/// The GPUs that really run kernels.
pub(crate) fn computing_gpus() -> Vec<Gpu> {
    gpus(&[DeviceSpec::Vulkan(None), DeviceSpec::Cuda(None)])
}
