//! Launching the poolings on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::pool::{self, PoolSizesLaunch};

use super::PoolProblem;
use crate::error::Result;
use crate::ops::launch::{array, elements, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait PoolLaunches {
        fn max_pool = launch_max_pool(dtype: DType, x: &Handle, y: &Handle, problem: &PoolProblem) -> Result<()>;
        fn avg_pool = launch_avg_pool(dtype: DType, x: &Handle, y: &Handle, problem: &PoolProblem) -> Result<()>;
    }
}

pub(super) fn sizes<R: Runtime>(problem: &PoolProblem) -> PoolSizesLaunch<R> {
    let ([_, c, id, ih, iw], [_, _, od, oh, ow]) = (problem.input, problem.output);
    let ([kd, kh, kw], [sd, sh, sw]) = (problem.params.kernel, problem.params.stride);
    let [pd, ph, pw] = problem.params.padding;
    PoolSizesLaunch::new(c, id, ih, iw, od, oh, ow, kd, kh, kw, sd, sh, sw, pd, ph, pw)
}

/// Elements of x and y, which their buffers hold.
pub(super) fn lengths(dtype: DType, x: &Handle, y: &Handle, problem: &PoolProblem) -> Result<[usize; 2]> {
    let lengths = [problem.input, problem.output].map(|shape| elements(&shape));
    fits("pool", &[("x", x, lengths[0], dtype.size()), ("y", y, lengths[1], dtype.size())])?;
    Ok(lengths)
}

/// y = the largest value of each window of x, both of `dtype` (a float type).
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_max_pool<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    problem: &PoolProblem,
) -> Result<()> {
    let [inputs, outputs] = lengths(dtype, x, y, problem)?;
    let (count, dim) = grid(outputs)?;
    // SAFETY: a unit stores below the length of y and loads inside its window, which the problem's validation and the
    // kernel's clamping keep inside x.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, inputs), array(y, outputs));
        pool::max_pool::launch_unchecked::<F, R>(client, count, dim, x, y, sizes(problem))
    });
    Ok(())
}

/// y = the mean of each window of x with padding as zeros, both of `dtype` (a float type).
///
/// # Errors
/// As [`launch_max_pool`].
pub fn launch_avg_pool<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    problem: &PoolProblem,
) -> Result<()> {
    let [inputs, outputs] = lengths(dtype, x, y, problem)?;
    let (count, dim) = grid(outputs)?;
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, inputs), array(y, outputs));
        pool::avg_pool::launch_unchecked::<F, R>(client, count, dim, x, y, sizes(problem), problem.volume())
    });
    Ok(())
}
