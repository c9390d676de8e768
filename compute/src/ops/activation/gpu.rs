//! Launching the activations on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::activation;

use crate::error::Result;
use crate::ops::launch::{array, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait ActivationLaunches {
        fn leaky_relu = launch_leaky_relu(dtype: DType, x: &Handle, y: &Handle, len: usize, slope: f32) -> Result<()>;
        fn relu = launch_relu(dtype: DType, x: &Handle, y: &Handle, len: usize) -> Result<()>;
        fn leaky_relu_backward = launch_leaky_relu_backward(
            dtype: DType, x: &Handle, dy: &Handle, dx: &Handle, len: usize, slope: f32,
        ) -> Result<()>;
    }
}

/// y = x for x > 0, slope * x otherwise, over `len` elements of `dtype` (a float type) in both buffers.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_leaky_relu<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    len: usize,
    slope: f32,
) -> Result<()> {
    fits("leaky_relu", &[("x", x, len, dtype.size()), ("y", y, len, dtype.size())])?;
    let (count, dim) = grid(len)?;
    // SAFETY: each unit touches the element of its own position, and only below the length both buffers hold.
    with_float!(dtype, F => unsafe {
        activation::leaky_relu::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(y, len), slope)
    });
    Ok(())
}

/// y = max(x, 0) over `len` elements of `dtype` (a float type) in both buffers.
///
/// # Errors
/// As [`launch_leaky_relu`].
pub fn launch_relu<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    len: usize,
) -> Result<()> {
    fits("relu", &[("x", x, len, dtype.size()), ("y", y, len, dtype.size())])?;
    let (count, dim) = grid(len)?;
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        activation::relu::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(y, len))
    });
    Ok(())
}

/// dx = dy where x > 0, slope * dy otherwise, over `len` elements of `dtype` (a float type) in all buffers.
///
/// # Errors
/// As [`launch_leaky_relu`].
pub fn launch_leaky_relu_backward<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    dy: &Handle,
    dx: &Handle,
    len: usize,
    slope: f32,
) -> Result<()> {
    let size = dtype.size();
    fits("leaky_relu_backward", &[("x", x, len, size), ("dy", dy, len, size), ("dx", dx, len, size)])?;
    let (count, dim) = grid(len)?;
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        let (x, dy, dx) = (array(x, len), array(dy, len), array(dx, len));
        activation::leaky_relu_backward::launch_unchecked::<F, R>(client, count, dim, x, dy, dx, slope)
    });
    Ok(())
}
