//! What every launcher shares: the grid of an element-wise kernel and the float type behind a [`DType`].

use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::tensor::DType;

/// Units per cube of kernels without shared memory; every adapter allows it.
pub(crate) const BLOCK: u32 = 256;

/// Cubes along x before the grid folds into y: the least any backend allows per dimension.
const MAX_CUBES_PER_AXIS: u32 = 65_535;

/// A grid of at least `units` units, one each. Kernels compare `ABSOLUTE_POS` with their length. Counts that do not
/// fit even a folded grid cannot occur: they are past the largest buffer of any device.
pub(crate) fn grid(units: usize) -> (CubeCount, CubeDim) {
    (cube_grid(units.div_ceil(BLOCK as usize)), CubeDim::new_1d(BLOCK))
}

/// A grid of at least `cubes` cubes, folded so that no axis is over the limit. `CUBE_POS` counts them.
pub(crate) fn cube_grid(cubes: usize) -> CubeCount {
    let cubes = u32::try_from(cubes.max(1)).unwrap_or(u32::MAX);
    let rows = cubes.div_ceil(MAX_CUBES_PER_AXIS);
    CubeCount::Static(cubes.div_ceil(rows), rows, 1)
}

/// A buffer as a kernel argument of `len` elements.
///
/// # Safety
/// The buffer holds at least `len` elements of the kernel's type.
pub(crate) unsafe fn array<R: Runtime>(handle: &Handle, len: usize) -> ArrayArg<R> {
    // SAFETY: the caller's promise.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), len) }
}

/// `with_float!(dtype, F => expression)`: the expression with `F` the type of `dtype`, which is a float
/// (validated by the op).
macro_rules! with_float {
    ($dtype:expr, $float:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::F16 => {
                type $float = half::f16;
                $body
            }
            $crate::tensor::DType::BF16 => {
                type $float = half::bf16;
                $body
            }
            _ => {
                type $float = f32;
                $body
            }
        }
    };
}
pub(crate) use with_float;

/// Elements of `dtype` a unit loads at once: the widest power of two that the device loads in one go and that divides
/// `multiple`, the length of a contiguous run.
pub(crate) fn vector_width<R: Runtime>(client: &ComputeClient<R>, dtype: DType, multiple: usize) -> usize {
    client.io_optimized_vector_sizes(dtype.size()).find(|width| multiple.is_multiple_of(*width)).unwrap_or(1)
}
