//! Launching adaptive pooling on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::adaptive_pool::{self, AdaptivePoolSizesLaunch};

use super::AdaptivePoolProblem;
use crate::error::Result;
use crate::ops::launch::{array, elements, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait AdaptivePoolLaunches {
        fn adaptive_avg_pool = launch_adaptive_avg_pool(
            dtype: DType, x: &Handle, y: &Handle, problem: &AdaptivePoolProblem,
        ) -> Result<()>;
    }
}

/// y = the mean of each bin of x, both of `dtype` (a float type).
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_adaptive_avg_pool<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    problem: &AdaptivePoolProblem,
) -> Result<()> {
    let [inputs, outputs] = [problem.input, problem.output_shape()].map(|shape| elements(&shape));
    fits("adaptive_avg_pool3d", &[("x", x, inputs, dtype.size()), ("y", y, outputs, dtype.size())])?;
    if outputs == 0 {
        return Ok(());
    }
    let ([_, c, d, h, w], [od, oh, ow]) = (problem.input, problem.size);
    let (count, dim) = grid(outputs)?;
    // SAFETY: a unit stores below the length of y and loads inside its bin, which ends at the input's axis at the latest; the
    // problem's validation keeps the products of two axes within 32 bits.
    with_float!(dtype, F => unsafe {
        let sizes = AdaptivePoolSizesLaunch::new(c, d, h, w, od, oh, ow);
        let (x, y) = (array(x, inputs), array(y, outputs));
        adaptive_pool::adaptive_avg_pool::launch_unchecked::<F, R>(client, count, dim, x, y, sizes)
    });
    Ok(())
}
