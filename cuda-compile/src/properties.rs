//! The properties of the device: those of an A100 as `cubecl-cuda` 0.10 would describe it. Kernels branch on them, so they must be those
//! of the weakest GPU on which the compiled code has to run.

use cubecl_common::profile::TimingMethod;
use cubecl_cpp::DialectWmmaCompiler;
use cubecl_cpp::cuda::arch::CudaArchitecture;
use cubecl_cpp::cuda::mma::CudaWmmaCompiler;
use cubecl_cpp::register_supported_types;
use cubecl_cpp::shared::{
    CompilationOptions, CppSupportedFeatures, register_mma_features, register_scaled_mma_features,
    register_wmma_features,
};
use cubecl_ir::features::{AtomicUsage, Plane, TypeUsage};
use cubecl_ir::{
    BarrierLevel, DeviceProperties, ElemType, FloatKind, HardwareProperties, MemoryDeviceProperties, OpaqueType,
    SemanticType, StorageType, Type, VectorSize,
};

/// The alignment of rows by `cuMallocPitch`.
pub(crate) const ALIGNMENT: u64 = 512;
/// The largest buffer, which CubeCL sets to a quarter of the memory on CUDA; an A100 has 40 GiB.
const MAX_PAGE_BYTES: u64 = 10 << 30;
/// The largest shared memory of a thread block on sm_80.
const SHARED_BYTES: usize = 163 << 10;

/// A GPU that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// The name of the architecture in NVRTC.
    pub(crate) name: &'static str,
    /// The compute capability, ten times.
    pub(crate) version: u32,
}

/// The GPUs for which every kernel must compile.
pub(crate) const ARCHITECTURES: [Architecture; 2] =
    [Architecture { name: "sm_80", version: 80 }, Architecture { name: "sm_90a", version: 90 }];

impl Architecture {
    /// The options with which the CUDA backend writes CUDA C++ for this GPU.
    pub(crate) fn codegen(self) -> CompilationOptions {
        CompilationOptions {
            warp_size: 32,
            supports_features: CppSupportedFeatures {
                grid_constants: self.version >= 70,
                clusters: self.version >= 90,
                fast_math: true,
                fast_tanh: self.version >= 75,
                elect_sync: self.version >= 90,
            },
        }
    }
}

/// Types, matrix instructions and limits of sm_80.
pub(crate) fn properties() -> DeviceProperties {
    let arch = CudaArchitecture { version: 80 };
    let memory = MemoryDeviceProperties { max_page_size: MAX_PAGE_BYTES, alignment: ALIGNMENT };
    let hardware = HardwareProperties {
        load_width: 128,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: SHARED_BYTES,
        max_cube_count: (i32::MAX as u32, u16::MAX.into(), u16::MAX.into()),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(108),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        max_vector_size: VectorSize::MAX,
    };
    let mut properties = DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::System);
    register_supported_types(&mut properties);
    register_atomics(&mut properties);
    properties.register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
    properties.register_semantic_type(SemanticType::Pipeline);
    for level in [BarrierLevel::Unit, BarrierLevel::Cube] {
        properties.register_type_usage(OpaqueType::Barrier(level), TypeUsage::Buffer);
    }

    let features = &mut properties.features;
    for plane in [Plane::Ops, Plane::Sync, Plane::NonUniformControlFlow] {
        features.plane.insert(plane);
    }
    for kind in [FloatKind::F16, FloatKind::BF16] {
        features.matmul.ldmatrix.insert(ElemType::Float(kind).into());
    }
    features.copy_async = true;
    features.memory_reinterpret = true;
    features.alignment = true;

    register_wmma_features(CudaWmmaCompiler::supported_wmma_combinations(&arch), &mut properties);
    register_mma_features(CudaWmmaCompiler::supported_mma_combinations(&arch), &mut properties);
    register_scaled_mma_features(CudaWmmaCompiler::supported_scaled_mma_combinations(&arch), &mut properties);
    properties
}

fn register_atomics(properties: &mut DeviceProperties) {
    let usage = AtomicUsage::Add | AtomicUsage::LoadStore;
    let atomic = |kind| Type::new(StorageType::Atomic(ElemType::Float(kind)));
    properties.register_atomic_type_usage(atomic(FloatKind::F64), usage);
    properties.register_atomic_type_usage(atomic(FloatKind::F16), usage);
    properties.register_atomic_type_usage(atomic(FloatKind::F16).with_vector_size(2), usage);
}
