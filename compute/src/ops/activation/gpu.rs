//! Launching the activations on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::activation;

use crate::ops::launch::{array, grid, with_float};
use crate::tensor::DType;

/// y = x for x > 0, slope * x otherwise, over `len` elements of `dtype` (a float type) in both buffers.
pub fn launch_leaky_relu<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    len: usize,
    slope: f32,
) {
    let (count, dim) = grid(len);
    // SAFETY: each unit touches the element of its own position, and only below the length both buffers hold.
    with_float!(dtype, F => unsafe {
        activation::leaky_relu::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(y, len), slope)
    });
}

/// y = max(x, 0) over `len` elements of `dtype` (a float type) in both buffers.
pub fn launch_relu<R: Runtime>(client: &ComputeClient<R>, dtype: DType, x: &Handle, y: &Handle, len: usize) {
    let (count, dim) = grid(len);
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        activation::relu::launch_unchecked::<F, R>(client, count, dim, array(x, len), array(y, len))
    });
}
