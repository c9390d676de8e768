//! Functions that all launch functions share: the check of buffers, the grid of an element-wise kernel, the dispatch on the float type
//! of a [`DType`], and the trait that makes launch functions callable without a type parameter for the runtime.

use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::error::{Error, Result};
use crate::tensor::{DType, Shape};

/// Number of units in a cube of kernels without shared memory; every adapter supports it.
pub(crate) const BLOCK: u32 = 256;

/// Number of bytes of an f32, and of the 32-bit words in which labels and tables are read.
pub(crate) const WORD: usize = 4;

/// Largest number of cubes along an axis of a grid on every backend.
pub(crate) const MAX_CUBES_PER_AXIS: usize = 65_535;

/// Largest number of elements in a buffer of a kernel. Kernels index with 32 bits, and a folded grid may have a row of 65,535 cubes of 256
/// units more than there are elements; their positions must not wrap around to the first elements.
pub const MAX_ELEMENTS: usize = (1 << 32) - (1 << 25);

/// The number of elements along all of `axes` together; an overflow gives `usize::MAX`, which [`fits`] refuses.
pub(crate) fn elements(axes: &[usize]) -> usize {
    if axes.contains(&0) { 0 } else { axes.iter().fold(1, |all: usize, &n| all.saturating_mul(n)) }
}

/// Checks that kernels can index all elements of tensors. Ops call it before they allocate.
///
/// # Errors
/// [`Error::Shape`] for more than [`MAX_ELEMENTS`] elements.
pub(crate) fn ensure_addressable(what: &str, shapes: &[Shape]) -> Result<()> {
    match shapes.iter().find(|shape| elements(&shape[..]) > MAX_ELEMENTS) {
        None => Ok(()),
        Some(shape) => Err(Error::shape(
            what,
            format!("at most {MAX_ELEMENTS} elements in a tensor on a GPU"),
            format!("{shape:?}"),
        )),
    }
}

/// Checks that buffers are as long as a launch needs and have no more elements than kernels can index, which makes the launch functions
/// sound for every argument. A buffer is given by its name, the handle, the number of elements and the bytes of an element.
///
/// # Errors
/// [`Error::Shape`] for a buffer that is too short or too long.
pub(crate) fn fits(op: &str, buffers: &[(&str, &Handle, usize, usize)]) -> Result<()> {
    for &(name, handle, len, size) in buffers {
        if len > MAX_ELEMENTS {
            return Err(Error::shape(format!("{op}: {name}"), format!("at most {MAX_ELEMENTS} elements"), len));
        }
        let needed = (len as u64).saturating_mul(size as u64);
        let cut = handle.offset_start.unwrap_or(0).saturating_add(handle.offset_end.unwrap_or(0));
        let found = handle.size().saturating_sub(cut);
        if found < needed {
            let expected = format!("a buffer of at least {needed} bytes ({len} elements of {size})");
            return Err(Error::shape(format!("{op}: {name}"), expected, format!("{found} bytes")));
        }
    }
    Ok(())
}

/// A grid of at least `units` units, for kernels with one unit per element. Kernels compare `ABSOLUTE_POS` with their length.
///
/// # Errors
/// As [`cube_grid`].
pub(crate) fn grid(units: usize) -> Result<(CubeCount, CubeDim)> {
    Ok((cube_grid(units.div_ceil(BLOCK as usize))?, CubeDim::new_1d(BLOCK)))
}

/// A grid of at least `cubes` cubes, folded so that no axis exceeds the limit. `CUBE_POS` counts them.
///
/// # Errors
/// More cubes than a folded grid has.
pub(crate) fn cube_grid(cubes: usize) -> Result<CubeCount> {
    let cubes = cubes.max(1);
    let rows = cubes.div_ceil(MAX_CUBES_PER_AXIS);
    if rows > MAX_CUBES_PER_AXIS {
        let most = MAX_CUBES_PER_AXIS * MAX_CUBES_PER_AXIS;
        return Err(Error::argument("launch: cubes", format!("at most {most} in a grid"), cubes));
    }
    Ok(CubeCount::Static(cubes.div_ceil(rows) as u32, rows as u32, 1))
}

/// A buffer as a kernel argument of `len` elements.
///
/// # Safety
/// The buffer holds at least `len` elements of the kernel's type.
pub(crate) unsafe fn array<R: Runtime>(handle: &Handle, len: usize) -> ArrayArg<R> {
    // SAFETY: the caller guarantees the length.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), len) }
}

/// `with_float!(dtype, F => expression)`: the expression with `F` the type of `dtype`. In a function that returns a
/// [`Result`]: another type than a float's is an error.
macro_rules! with_float {
    ($dtype:expr, $float:ident => $body:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $float = f32;
                $body
            }
            $crate::tensor::DType::F16 => {
                type $float = half::f16;
                $body
            }
            $crate::tensor::DType::BF16 => {
                type $float = half::bf16;
                $body
            }
            other => return Err($crate::ops::launch::not_a_float(other)),
        }
    };
}
pub(crate) use with_float;

pub(crate) fn not_a_float(found: DType) -> Error {
    Error::argument("launch: dtype", "f32, f16 or bf16", found)
}

/// Number of elements of `dtype` in a vector load: the largest power of two that the device can load at once and that divides `multiple`,
/// the length of a contiguous run.
pub(crate) fn vector_width<R: Runtime>(client: &ComputeClient<R>, dtype: DType, multiple: usize) -> usize {
    client.io_optimized_vector_sizes(dtype.size()).find(|width| multiple.is_multiple_of(*width)).unwrap_or(1)
}

/// The launch functions of an op as a trait without type parameters, so that a device can hold the client of any runtime:
/// `launches! { trait AddLaunches { fn add = launch_add(dtype: DType, len: usize) -> Result<()>; } }` defines the trait and
/// implements it for every `ComputeClient<R>`; each method calls the function after the `=` with the client as the first argument.
/// [`Launches`](super::Launches) combines the traits of all ops.
macro_rules! launches {
    ($visibility:vis trait $name:ident {
        $(fn $method:ident = $function:ident($($argument:ident: $kind:ty),* $(,)?) -> $result:ty;)*
    }) => {
        /// The launch functions of this op, for a client of any runtime.
        $visibility trait $name {
            $(
                #[doc = concat!("[`", stringify!($function), "`] on this client.")]
                fn $method(&self, $($argument: $kind),*) -> $result;
            )*
        }

        impl<R: cubecl::Runtime> $name for cubecl::client::ComputeClient<R> {
            $(
                fn $method(&self, $($argument: $kind),*) -> $result {
                    $function(self, $($argument),*)
                }
            )*
        }
    };
}
pub(crate) use launches;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kernels_cannot_index_is_refused_before_there_is_memory_for_it() {
        ensure_addressable("relu", &[[1, 1, 1, 1, MAX_ELEMENTS], [0, usize::MAX, usize::MAX, 1, 1]]).expect("it fits");
        for shape in [[1, 1, 1, 1, MAX_ELEMENTS + 1], [1, 2, 1 << 11, 1 << 10, 1 << 11], [usize::MAX; 5]] {
            let message = ensure_addressable("relu", &[[1; 5], shape]).expect_err("refused").to_string();
            assert!(message.starts_with("relu: expected at most 4261412864 elements"), "{message}");
            assert!(message.contains(&format!("{shape:?}")), "{message}");
        }
    }

    /// Positions beyond the last element stay below 2^32, and a grid that is too large is an error.
    #[test]
    fn a_folded_grid_covers_what_it_is_for_and_does_not_wrap() {
        for units in [0, 1, 256, 257, 65_535 * 256, 65_535 * 256 + 1, MAX_ELEMENTS - 1, MAX_ELEMENTS] {
            let Ok((CubeCount::Static(x, y, 1), _)) = grid(units) else { panic!("no grid for {units}") };
            assert!(x as usize <= MAX_CUBES_PER_AXIS && y as usize <= MAX_CUBES_PER_AXIS);
            let covered = x as usize * y as usize * BLOCK as usize;
            assert!(covered >= units && covered <= 1 << 32, "{units}: {covered}");
        }
        let most = MAX_CUBES_PER_AXIS * MAX_CUBES_PER_AXIS;
        assert!(cube_grid(most).is_ok());
        let message = cube_grid(most + 1).expect_err("refused").to_string();
        assert!(message.contains("4294836225") && message.contains("4294836226"), "{message}");
    }
}
