//! Launching a gating on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::gate::{self as kernels, GateSizesLaunch};

use super::GateProblem;
use crate::error::Result;
use crate::ops::launch::{array, elements, fits, grid, launches, vector_width, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait GateLaunches {
        fn gated_residual = launch_gated_residual(
            dtype: DType, buffers: [&Handle; 4], slope: f32, problem: &GateProblem,
        ) -> Result<()>;
    }
}

/// y = leaky_relu(x * sigmoid(gate) + residual, slope); the buffers are x, gate, residual and y, of `dtype` (a float type).
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_gated_residual<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    [x, gate, residual, y]: [&Handle; 4],
    slope: f32,
    problem: &GateProblem,
) -> Result<()> {
    let ([_, channels, d, h, w], [_, _, gate_d, gate_h, gate_w]) = (problem.input, problem.gate);
    let (len, gates, size) = (elements(&problem.input), elements(&problem.gate), dtype.size());
    let buffers =
        [("x", x, len, size), ("gate", gate, gates, size), ("residual", residual, len, size), ("y", y, len, size)];
    fits("gated_residual", &buffers)?;
    if len == 0 {
        return Ok(());
    }
    let width = vector_width(client, dtype, channels);
    let (count, dim) = grid(len / width)?;
    let sizes = GateSizesLaunch::new(channels / width, d, h, w, gate_d, gate_h, gate_w);
    // SAFETY: each thread touches the vector of its own position, only below the length that x, residual and y hold; the remainders by
    // the gate's axes keep its voxel inside the gate.
    with_float!(dtype, F => unsafe {
        let (x, gate) = (array(x, len), array(gate, gates));
        let (residual, y) = (array(residual, len), array(y, len));
        kernels::gated_residual::launch_unchecked::<F, R>(client, count, dim, width, x, gate, residual, y, sizes, slope)
    });
    Ok(())
}
