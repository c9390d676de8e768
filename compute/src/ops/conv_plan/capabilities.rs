//! What the planner needs to know of a device.

use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;
use nephron_kernels::conv3d::implicit_gemm::{PLANE, Step};
use nephron_kernels::conv3d::staging::Transfer;

use crate::device::gpu::Gpu;
use crate::ops::launch::launches;
use crate::tensor::DType;

launches! {
    pub(crate) trait ConvPlanLaunches {
        fn conv_capabilities = capabilities(dtype: DType, tf32: bool) -> DeviceCaps;
    }
}

/// What a GPU offers to a convolution over tensors of one type. A plan depends on this and the problem alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceCaps {
    /// Type of the tensors.
    pub(crate) dtype: DType,
    /// Whether the device has `mma.sync` and cp.async for this type, and `ldmatrix` where the type has 16 bits. For f32 the
    /// instruction is the one of tf32, and this says also whether operands may be rounded to tf32.
    pub(crate) matrix: bool,
    /// Whether the device has cp.async.
    pub(crate) copy_async: bool,
    /// Whether the device is a processor that implements a GPU in software (lavapipe).
    pub(crate) software: bool,
    /// Bytes of shared memory that one cube may have.
    pub(crate) shared_bytes: usize,
    /// Threads that one cube may have (CubeCL's units).
    pub(crate) max_units: usize,
    /// Multiprocessors, or the least number of cubes that run side by side.
    pub(crate) multiprocessors: usize,
    /// Elements that a thread loads in one instruction at most, a power of two.
    pub(crate) max_width: usize,
}

impl DeviceCaps {
    /// The capabilities of an opened device for tensors of `dtype`, with tf32 where the device's options allow it.
    pub fn of(device: &Gpu, dtype: DType) -> Self {
        device.launches().conv_capabilities(dtype, device.options().tf32)
    }

    /// The capabilities of the device behind a CubeCL client for tensors of `dtype`. Operands of f32 may be rounded to
    /// tf32 where `tf32` is set.
    pub fn of_client<R: Runtime>(client: &ComputeClient<R>, dtype: DType, tf32: bool) -> Self {
        capabilities(client, dtype, tf32)
    }

    /// Elements that a thread loads at once from runs of `multiple` contiguous elements: the widest vector that divides
    /// them.
    pub(super) fn vector_width(&self, multiple: usize) -> usize {
        let divides = 1 << multiple.trailing_zeros().min(usize::BITS - 1);
        self.max_width.min(divides)
    }

    /// Whether matrix instructions multiply operands that are loaded in vectors of `width`. Those of tf32 need whole pieces
    /// of 16 bytes.
    pub(super) fn multiplies(&self, width: usize) -> bool {
        self.matrix && (self.dtype != DType::F32 || width == 4)
    }

    /// What multiplies operands that are loaded in vectors of `width`.
    pub(super) fn step(&self, width: usize) -> Step {
        match (self.multiplies(width), self.dtype) {
            (false, _) => Step::Plain,
            (true, DType::F32) => Step::Tf32,
            (true, _) => Step::Mma,
        }
    }

    /// How vectors of `width` get to shared memory. cp.async copies 4, 8 or 16 bytes.
    pub(super) fn transfer(&self, width: usize) -> Transfer {
        if self.copy_async && width * self.dtype.size() >= 4 { Transfer::Async } else { Transfer::Direct }
    }

    /// The limits of a cube, for messages.
    pub(super) fn limits(&self) -> String {
        format!("{} bytes and {} units", self.shared_bytes, self.max_units)
    }
}

fn capabilities<R: Runtime>(client: &ComputeClient<R>, dtype: DType, tf32: bool) -> DeviceCaps {
    let (features, hardware) = (client.features(), &client.properties().hardware);
    let sum = f32::as_type_native_unchecked().storage_type();
    let multiplies =
        |a_type, k| features.matmul.mma.contains(&MmaConfig { a_type, b_type: a_type, cd_type: sum, m: 16, n: 8, k });
    let halves = |float| multiplies(float, 16) && features.matmul.ldmatrix.contains(&float);
    let matrix = match dtype {
        DType::F32 => tf32 && multiplies(cubecl::tf32::as_type_native_unchecked().storage_type(), 8),
        DType::F16 => halves(half::f16::as_type_native_unchecked().storage_type()),
        DType::BF16 => halves(half::bf16::as_type_native_unchecked().storage_type()),
        DType::U8 | DType::I16 => false,
    };
    // Planes as wide as a processor's vectors; no GPU is limited to them.
    let software = hardware.plane_size_max <= 8;
    DeviceCaps {
        dtype,
        matrix: matrix && features.copy_async && hardware.plane_size_min as usize == PLANE,
        copy_async: features.copy_async,
        software,
        shared_bytes: hardware.max_shared_memory_size,
        max_units: hardware.max_units_per_cube as usize,
        multiprocessors: hardware.num_streaming_multiprocessors.map_or_else(|| side_by_side(software), |n| n as usize),
        max_width: client.io_optimized_vector_sizes(dtype.size()).max().unwrap_or(1),
    }
}

/// Cubes that run side by side where the runtime does not tell: what a small processor and a small GPU have. (The number of
/// this machine's threads would change how sums are split, and with it results.)
fn side_by_side(software: bool) -> usize {
    if software { 4 } else { 16 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::test_gpus::{all_gpus, with_client};
    use crate::ops::launch::vector_width;

    /// The planner's vectors are the ones that launches of other operations choose.
    #[test]
    fn the_width_is_the_widest_that_the_device_loads_and_that_divides() {
        for gpu in all_gpus() {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let caps = DeviceCaps::of(&gpu, dtype);
                for multiple in (1..70).chain([1 << 20, (1 << 20) + 4]) {
                    let expected = with_client!(gpu, client => vector_width(client, dtype, multiple));
                    assert_eq!(caps.vector_width(multiple), expected, "{dtype}, {multiple} elements");
                }
            }
        }
    }
}
