//! Launching the gradients of pooling on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::pool;

use super::super::PoolProblem;
use super::super::gpu::{lengths, sizes};
use crate::error::Result;
use crate::ops::launch::{array, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait PoolBackwardLaunches {
        fn max_pool_backward = launch_max_pool_backward(
            dtype: DType, x: &Handle, dy: &Handle, dx: &Handle, problem: &PoolProblem,
        ) -> Result<()>;
        fn avg_pool_backward = launch_avg_pool_backward(
            dtype: DType, dy: &Handle, dx: &Handle, problem: &PoolProblem,
        ) -> Result<()>;
    }
}

/// dx = the sum of dy over the windows whose maximum is the element of x, all of `dtype` (a float type).
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_max_pool_backward<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    dy: &Handle,
    dx: &Handle,
    problem: &PoolProblem,
) -> Result<()> {
    let [inputs, outputs] = lengths(dtype, x, dy, problem)?;
    fits("pool", &[("dx", dx, inputs, dtype.size())])?;
    let (count, dim) = grid(inputs)?;
    // SAFETY: a unit stores below the length of dx, loads dy of outputs below the problem's, and x inside their windows, which the
    // problem's validation and the kernel's clamping keep inside x.
    with_float!(dtype, F => unsafe {
        let (x, dy, dx) = (array(x, inputs), array(dy, outputs), array(dx, inputs));
        pool::max_pool_backward::launch_unchecked::<F, R>(client, count, dim, x, dy, dx, sizes(problem))
    });
    Ok(())
}

/// dx = the sum of dy over the windows that contain the element, divided by their size, both of `dtype` (a float type).
///
/// # Errors
/// As [`launch_max_pool_backward`].
pub fn launch_avg_pool_backward<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    dy: &Handle,
    dx: &Handle,
    problem: &PoolProblem,
) -> Result<()> {
    let [inputs, outputs] = lengths(dtype, dx, dy, problem)?;
    let (count, dim) = grid(inputs)?;
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        let (dy, dx) = (array(dy, outputs), array(dx, inputs));
        pool::avg_pool_backward::launch_unchecked::<F, R>(client, count, dim, dy, dx, sizes(problem), problem.volume())
    });
    Ok(())
}
