//! The runtime. For kernels it is indistinguishable from the CUDA runtime.

use cubecl_common::device::{Device, DeviceId};
use cubecl_core::Runtime;
use cubecl_core::server::ComputeServer;
use cubecl_core::zspace::striding::has_pitched_row_major_strides;
use cubecl_core::zspace::{Shape, Strides};
use cubecl_cpp::cuda::CudaDialect;
use cubecl_cpp::cuda::mma::{CudaWmmaCompiler, contiguous_elements_cuda};
use cubecl_cpp::shared::CppCompiler;
use cubecl_ir::{ContiguousElements, MatrixLayout, MmaProperties, TargetProperties};
use cubecl_runtime::client::ComputeClient;

use crate::server::CudaCompileServer;

/// The compiler of `cubecl-cuda`.
pub(crate) type CudaCompiler = CppCompiler<CudaDialect<CudaWmmaCompiler>>;

/// A runtime that compiles every launched kernel and runs none.
#[derive(Debug, Clone)]
pub struct CudaCompileRuntime;

/// The only device of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CudaCompileDevice;

/// An id that no real device has, because CubeCL shares a thread between devices with the same id.
const TYPE_ID: u16 = 0x6e63;

impl Device for CudaCompileDevice {
    fn from_id(_: DeviceId) -> Self {
        Self
    }

    fn to_id(&self) -> DeviceId {
        DeviceId { type_id: TYPE_ID, index_id: 0 }
    }
}

impl Runtime for CudaCompileRuntime {
    type Compiler = CudaCompiler;
    type Server = CudaCompileServer;
    type Device = CudaCompileDevice;

    fn client(device: &Self::Device) -> ComputeClient<Self> {
        ComputeClient::load(device)
    }

    fn name(_: &ComputeClient<Self>) -> &'static str {
        "cuda-compile"
    }

    fn require_array_lengths() -> bool {
        true
    }

    fn max_cube_count() -> (u32, u32, u32) {
        (i32::MAX as u32, u16::MAX.into(), u16::MAX.into())
    }

    fn can_read_tensor(shape: &Shape, strides: &Strides) -> bool {
        has_pitched_row_major_strides(shape, strides)
    }

    fn target_properties() -> TargetProperties {
        TargetProperties {
            mma: MmaProperties {
                register_size_bits: 32,
                const_plane_size: 32,
                register_layout_a: MatrixLayout::RowMajor,
                register_layout_b: MatrixLayout::ColMajor,
                register_layout_acc: MatrixLayout::RowMajor,
                register_duplication_a: 1,
                register_duplication_b: 1,
                register_duplication_acc: 1,
                contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
            },
        }
    }

    fn enumerate_devices(_: u16, _: &<Self::Server as ComputeServer>::Info) -> Vec<DeviceId> {
        vec![CudaCompileDevice.to_id()]
    }
}
