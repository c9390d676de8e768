//! Launching the poolings on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::pool::{self, PoolSizesLaunch};

use super::PoolProblem;
use crate::ops::launch::{array, grid, with_float};
use crate::tensor::{DType, Shape};

fn sizes<R: Runtime>(problem: &PoolProblem) -> PoolSizesLaunch<R> {
    let ([_, c, id, ih, iw], [_, _, od, oh, ow]) = (problem.input, problem.output);
    let ([kd, kh, kw], [sd, sh, sw]) = (problem.params.kernel, problem.params.stride);
    let [pd, ph, pw] = problem.params.padding;
    PoolSizesLaunch::new(c, id, ih, iw, od, oh, ow, kd, kh, kw, sd, sh, sw, pd, ph, pw)
}

fn len(shape: Shape) -> usize {
    shape.iter().product()
}

/// y = the largest value of each window of x, both of `dtype` (a float type) with fewer than 2^32 elements.
pub fn launch_max_pool<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    problem: &PoolProblem,
) {
    let (inputs, outputs) = (len(problem.input), len(problem.output));
    let (count, dim) = grid(outputs);
    // SAFETY: a unit stores below the length of y and loads inside its window, which the problem's validation and the
    // kernel's clamping keep inside x.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, inputs), array(y, outputs));
        pool::max_pool::launch_unchecked::<F, R>(client, count, dim, x, y, sizes(problem))
    });
}

/// y = the mean of each window of x with padding as zeros, both of `dtype` (a float type) with fewer than 2^32 elements.
pub fn launch_avg_pool<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    problem: &PoolProblem,
) {
    let (inputs, outputs) = (len(problem.input), len(problem.output));
    let (count, dim) = grid(outputs);
    // SAFETY: as above.
    with_float!(dtype, F => unsafe {
        let (x, y) = (array(x, inputs), array(y, outputs));
        pool::avg_pool::launch_unchecked::<F, R>(client, count, dim, x, y, sizes(problem), problem.volume())
    });
}
