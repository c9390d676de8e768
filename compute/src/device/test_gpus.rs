//! The GPUs that unit tests run on.

use super::gpu::Gpu;
use super::{Device, DeviceOptions, DeviceSpec};

/// Those of `specs` that are at hand, with guarded buffers. One that NEPHRON_REQUIRE names has to be; another that is missing
/// is named.
pub(crate) fn gpus(specs: &[DeviceSpec]) -> Vec<Gpu> {
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

/// Those whose results mean something.
pub(crate) fn computing_gpus() -> Vec<Gpu> {
    gpus(&[DeviceSpec::Vulkan(None), DeviceSpec::Cuda(None)])
}
