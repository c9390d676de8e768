//! Launching gradient descent on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::common::cube_sum::UNITS;
use nephron_kernels::sgd as kernels;

use super::Rates;
use crate::error::Result;
use crate::ops::launch::{WORD, array, cube_grid, fits, grid, launches, vector_width, with_float};
use crate::tensor::DType;

/// Number of elements that a unit adds; it is larger where there would be too many parts.
const CHAIN: usize = 32;
/// Largest number of parts of a sum: enough for any device, and few enough for the host to add.
const MAX_PARTS: usize = 1024;

launches! {
    pub(crate) trait SgdLaunches {
        fn sgd_step = launch_sgd_step(dtype: DType, buffers: &SgdHandles, len: usize, rates: Rates) -> Result<()>;
        fn squared_sums = launch_squared_sums(dtype: DType, x: &Handle, partials: &Handle, len: usize) -> Result<()>;
    }
}

/// Buffers of a step, all of one length and float type.
#[derive(Debug, Clone)]
pub struct SgdHandles {
    /// The weights.
    pub weights: Handle,
    /// Their gradient.
    pub gradient: Handle,
    /// The momentum buffer.
    pub buffer: Handle,
    /// The new weights.
    pub weights_out: Handle,
    /// The new momentum buffer.
    pub buffer_out: Handle,
}

/// A step of [`sgd_step`](super::sgd_step) over `len` elements of `dtype` (a float type) in all buffers.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_sgd_step<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: &SgdHandles,
    len: usize,
    rates: Rates,
) -> Result<()> {
    let SgdHandles { weights, gradient, buffer, weights_out, buffer_out } = buffers;
    let named = [("weights", weights), ("gradient", gradient), ("momentum buffer", buffer)];
    fits("sgd_step", &named.map(|(name, handle)| (name, handle, len, dtype.size())))?;
    fits("sgd_step", &[weights_out, buffer_out].map(|handle| ("result", handle, len, dtype.size())))?;
    let width = vector_width(client, dtype, len);
    let (count, dim) = grid(len / width)?;
    let Rates { lr, momentum, nesterov, weight_decay } = rates;
    // SAFETY: each unit touches the vector of its own position, and only below the length all buffers hold.
    with_float!(dtype, F => unsafe {
        kernels::sgd_step::launch_unchecked::<F, R>(
            client, count, dim, width, array(weights, len), array(gradient, len), array(buffer, len),
            array(weights_out, len), array(buffer_out, len),
            kernels::RatesLaunch::new(lr, momentum, weight_decay), nesterov,
        )
    });
    Ok(())
}

/// Number of values that [`launch_squared_sums`] writes. It depends on the length alone, so that the sum is the same in every run.
pub fn squared_parts(len: usize) -> usize {
    len.div_ceil(UNITS as usize * CHAIN).clamp(1, MAX_PARTS)
}

/// Sums of squares of `len` elements of `dtype` (a float type), [`squared_parts`] of them in `partials`.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_squared_sums<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    partials: &Handle,
    len: usize,
) -> Result<()> {
    let parts = squared_parts(len);
    fits("squared_norm", &[("x", x, len, dtype.size()), ("partials", partials, parts, WORD)])?;
    let (count, dim) = (cube_grid(parts)?, CubeDim::new_1d(UNITS));
    // SAFETY: units read elements below `len`, and a cube below the number of parts writes its own.
    with_float!(dtype, F => unsafe {
        kernels::squared_sums::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(partials, parts))
    });
    Ok(())
}
