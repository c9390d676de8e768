//! The backends and adapters of this machine, and why one is not available.

use serde::Serialize;

/// One adapter of a backend.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterReport {
    /// The name of the device as [`DeviceSpec`](super::DeviceSpec) parses it, such as `cuda:0`.
    pub device: String,
    /// The adapter's product name.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Name and version of the driver.
    pub driver: String,
    /// Limits and features, each as `name: value`.
    pub details: Vec<String>,
}

/// One backend: its adapters, or why it is not available.
#[derive(Debug, Clone, Serialize)]
pub struct BackendReport {
    /// `cpu`, `cuda` or `vulkan`.
    pub backend: &'static str,
    /// The adapters that can be opened.
    pub adapters: Vec<AdapterReport>,
    /// Why the backend has no adapter, where it has none.
    pub missing: Option<String>,
}

/// Lists every backend. A backend that is not available is in the list too, with the reason.
pub fn backends() -> Vec<BackendReport> {
    vec![cpu(), cuda(), vulkan()]
}

/// The processor's name, as Linux gives it; elsewhere that of its architecture.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.trim_start().strip_prefix(':'));
    name.map_or(std::env::consts::ARCH, str::trim).into()
}

fn cpu() -> BackendReport {
    let threads = rayon::current_num_threads();
    let mut details = vec![format!("threads: {threads}")];
    #[cfg(target_arch = "x86_64")]
    {
        let simd = [
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ];
        let found: Vec<_> = simd.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        details.push(format!("simd: {}", if found.is_empty() { "sse2".into() } else { found.join(" ") }));
    }
    BackendReport {
        backend: "cpu",
        adapters: vec![AdapterReport {
            device: "cpu".into(),
            name: processor(),
            kind: "processor",
            driver: "rayon".into(),
            details,
        }],
        missing: None,
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> BackendReport {
    BackendReport { backend: "cuda", adapters: vec![], missing: Some("this build was compiled without CUDA".into()) }
}

#[cfg(not(feature = "vulkan"))]
fn vulkan() -> BackendReport {
    BackendReport {
        backend: "vulkan",
        adapters: vec![],
        missing: Some("this build was compiled without Vulkan".into()),
    }
}

#[cfg(feature = "cuda")]
pub(super) use cuda_backend::problem as cuda_problem;
#[cfg(feature = "cuda")]
use cuda_backend::report as cuda;

#[cfg(feature = "cuda")]
mod cuda_backend {
    use super::super::rates::Attributes;
    use super::{AdapterReport, BackendReport};
    use cudarc::driver::{result, sys};

    /// Why the `index`-th NVIDIA GPU cannot be used; None where it can.
    pub(in crate::device) fn problem(index: usize) -> Option<String> {
        // SAFETY: the calls only test whether the loader can open the shared libraries.
        let (driver, nvrtc) = unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
        if !driver {
            return Some("no NVIDIA driver (libcuda) on this machine".into());
        }
        if let Err(error) = result::init() {
            return Some(format!("the NVIDIA driver does not start ({error})"));
        }
        let count = result::device::get_count().unwrap_or(0).max(0) as usize;
        if index >= count {
            return Some(format!("no such GPU: {count} found, counted from 0"));
        }
        if !nvrtc {
            return Some("the CUDA run-time compiler (libnvrtc) is missing".into());
        }
        let headers = cubecl_cuda::install::cuda_path().map(|p| p.join("include"));
        match headers {
            Some(include) if include.join("cuda_fp16.h").exists() => None,
            Some(include) => Some(format!("no CUDA headers in {} (CUDA_PATH names their parent)", include.display())),
            None => Some("no CUDA headers: set CUDA_PATH to the folder that holds include/".into()),
        }
    }

    pub(super) fn report() -> BackendReport {
        let mut adapters = Vec::new();
        while problem(adapters.len()).is_none() {
            match describe(adapters.len()) {
                Some(adapter) => adapters.push(adapter),
                None => break,
            }
        }
        let missing = if adapters.is_empty() { problem(0) } else { None };
        BackendReport { backend: "cuda", adapters, missing }
    }

    /// The driver, with the newest version of CUDA that it supports.
    fn driver() -> String {
        let mut version = 0;
        // SAFETY: the call writes one integer; `problem` has found the library before any adapter is described.
        let result = unsafe { sys::cuDriverGetVersion(&mut version) };
        if result != sys::CUresult::CUDA_SUCCESS {
            return "NVIDIA CUDA".into();
        }
        format!("NVIDIA CUDA {}.{}", version / 1000, version % 1000 / 10)
    }

    fn describe(index: usize) -> Option<AdapterReport> {
        use sys::CUdevice_attribute as A;
        let device = result::device::get(index as i32).ok()?;
        // SAFETY: `device` was just returned by the driver.
        let attribute = |a| unsafe { result::device::get_attribute(device, a) }.unwrap_or(0);
        // SAFETY: as above.
        let memory = unsafe { result::device::total_mem(device) }.unwrap_or(0);
        let attributes = Attributes {
            capability: (
                attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
                attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
            ),
            multiprocessors: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
            clock_khz: attribute(A::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
            memory_clock_khz: attribute(A::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
            memory_bus_bits: attribute(A::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH),
            l2_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        };
        let (major, minor) = attributes.capability;
        let shared = attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let mut details = vec![
            format!("compute capability: {major}.{minor}"),
            format!("memory: {} MiB", memory >> 20),
            format!("multiprocessors: {}", attributes.multiprocessors),
            format!("shared memory per block: {} KiB", shared >> 10),
        ];
        details.extend(attributes.details());
        Some(AdapterReport {
            device: format!("cuda:{index}"),
            name: result::device::get_name(device).unwrap_or_else(|_| "unknown".into()),
            kind: "discrete",
            driver: driver(),
            details,
        })
    }
}

#[cfg(feature = "vulkan")]
use vulkan_backend::report as vulkan;
#[cfg(feature = "vulkan")]
pub(super) use vulkan_backend::{device as vulkan_device, first_hardware as first_hardware_adapter};

#[cfg(feature = "vulkan")]
mod vulkan_backend {
    use super::{AdapterReport, BackendReport};
    use cubecl_wgpu::WgpuDevice;
    use wgpu::DeviceType;

    fn kind(device_type: DeviceType) -> &'static str {
        match device_type {
            DeviceType::DiscreteGpu => "discrete",
            DeviceType::IntegratedGpu => "integrated",
            DeviceType::VirtualGpu => "virtual",
            DeviceType::Cpu => "software",
            DeviceType::Other => "other",
        }
    }

    /// All adapters: discrete, integrated, virtual, then software. The position in the list is the n of `vulkan:n`.
    fn adapters() -> Vec<(wgpu::Adapter, WgpuDevice)> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let all = cubecl::future::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        let mut listed = Vec::new();
        // CubeCL identifies an adapter by its kind and its position among those; it opens at most one software adapter.
        type Name = fn(usize) -> WgpuDevice;
        let order: [(DeviceType, Name, usize); 4] = [
            (DeviceType::DiscreteGpu, WgpuDevice::DiscreteGpu, usize::MAX),
            (DeviceType::IntegratedGpu, WgpuDevice::IntegratedGpu, usize::MAX),
            (DeviceType::VirtualGpu, WgpuDevice::VirtualGpu, usize::MAX),
            (DeviceType::Cpu, |_| WgpuDevice::Cpu, 1),
        ];
        for (wanted, name, max) in order {
            let same = all.iter().filter(|a| a.get_info().device_type == wanted).take(max);
            listed.extend(same.enumerate().map(|(i, adapter)| (adapter.clone(), name(i))));
        }
        listed
    }

    /// The position of the first hardware adapter.
    pub(in crate::device) fn first_hardware() -> Option<usize> {
        adapters().iter().position(|(_, device)| *device != WgpuDevice::Cpu)
    }

    /// The adapter that `vulkan[:n]` names, with its position in the list.
    pub(in crate::device) fn device(index: Option<usize>) -> Result<(usize, WgpuDevice), String> {
        let mut found = adapters();
        let index = index.unwrap_or(0);
        if found.is_empty() {
            return Err("no Vulkan adapter (no driver, or no libvulkan) on this machine".into());
        }
        if index >= found.len() {
            return Err(format!("no such adapter: {} found, counted from 0", found.len()));
        }
        Ok((index, found.swap_remove(index).1))
    }

    pub(super) fn report() -> BackendReport {
        let adapters: Vec<_> = adapters()
            .into_iter()
            .enumerate()
            .map(|(index, (adapter, _))| {
                let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
                AdapterReport {
                    device: format!("vulkan:{index}"),
                    name: info.name.clone(),
                    kind: kind(info.device_type),
                    driver: format!("{} {}", info.driver, info.driver_info),
                    details: vec![
                        format!("largest buffer: {} MiB", limits.max_storage_buffer_binding_size >> 20),
                        format!("shared memory per workgroup: {} KiB", limits.max_compute_workgroup_storage_size >> 10),
                        format!("invocations per workgroup: {}", limits.max_compute_invocations_per_workgroup),
                        format!("subgroup size: {} to {}", info.subgroup_min_size, info.subgroup_max_size),
                        format!("f16: {}", features.contains(wgpu::Features::SHADER_F16)),
                    ],
                }
            })
            .collect();
        let missing =
            adapters.is_empty().then(|| "no Vulkan adapter (no driver, or no libvulkan) on this machine".into());
        BackendReport { backend: "vulkan", adapters, missing }
    }
}
