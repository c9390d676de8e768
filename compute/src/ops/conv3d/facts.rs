//! What the choice of a convolution's kernel needs to know of a device.

use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;
use nephron_kernels::conv3d::implicit_gemm::{PLANE, Step};

use crate::ops::launch::vector_width;
use crate::tensor::DType;

/// What the choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Facts {
    /// `mma.sync` and cp.async for the problem's type, and `ldmatrix` where it is of 16 bits?
    pub(in crate::ops) matrix: bool,
    /// cp.async?
    pub(in crate::ops) copy_async: bool,
    /// A processor that plays a GPU (lavapipe)?
    pub(in crate::ops) software: bool,
    /// Bytes of shared memory a cube may have.
    pub(in crate::ops) shared_bytes: usize,
    /// Units a cube may have.
    pub(in crate::ops) units: usize,
    /// Cubes that run side by side, at least.
    pub(in crate::ops) processors: usize,
    /// Elements loaded at once: a divisor of the input channels.
    pub(in crate::ops) width: usize,
    /// A tensor's type.
    pub(in crate::ops) dtype: DType,
}

impl Facts {
    /// What multiplies.
    pub(in crate::ops) fn step(&self) -> Step {
        match (self.matrix, self.dtype) {
            (false, _) => Step::Plain,
            (true, DType::F32) => Step::Tf32,
            (true, _) => Step::Mma,
        }
    }
}

/// What the choice of an algorithm needs to know of the device, and of a problem of `ci` channels a group. `tf32`: may
/// operands of f32 be rounded to tf32?
pub(in crate::ops) fn facts<R: Runtime>(client: &ComputeClient<R>, dtype: DType, ci: usize, tf32: bool) -> Facts {
    let (features, hardware) = (client.features(), &client.properties().hardware);
    let sum = f32::as_type_native_unchecked().storage_type();
    let multiplies =
        |a_type, k| features.matmul.mma.contains(&MmaConfig { a_type, b_type: a_type, cd_type: sum, m: 16, n: 8, k });
    let halves = |float| multiplies(float, 16) && features.matmul.ldmatrix.contains(&float);
    let width = vector_width(client, dtype, ci);
    let matrix = match dtype {
        DType::F32 => tf32 && width == 4 && multiplies(cubecl::tf32::as_type_native_unchecked().storage_type(), 8),
        DType::F16 => halves(half::f16::as_type_native_unchecked().storage_type()),
        DType::BF16 => halves(half::bf16::as_type_native_unchecked().storage_type()),
        DType::U8 | DType::I16 => false,
    };
    // Planes as wide as a processor's vectors; no GPU is limited to them.
    let software = hardware.plane_size_max <= 8;
    Facts {
        matrix: matrix && features.copy_async && hardware.plane_size_min as usize == PLANE,
        copy_async: features.copy_async,
        software,
        shared_bytes: hardware.max_shared_memory_size,
        units: hardware.max_units_per_cube as usize,
        processors: hardware.num_streaming_multiprocessors.map_or_else(|| processors(software), |n| n as usize),
        width,
        dtype,
    }
}

/// Cubes that run side by side where the runtime does not say: what a small processor and a small GPU have. (The threads of
/// this machine would change how sums are split, and with it results.)
fn processors(software: bool) -> usize {
    if software { 4 } else { 16 }
}
