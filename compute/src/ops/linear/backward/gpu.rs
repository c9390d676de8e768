//! Launching the gradients of a fully connected layer on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::linear;

use super::super::LinearProblem;
use crate::error::Result;
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait LinearBackwardLaunches {
        fn linear_backward = launch_linear_backward(
            dtype: DType, buffers: &LinearBackwardHandles, problem: LinearProblem,
        ) -> Result<()>;
    }
}

/// Buffers of the gradients of a fully connected layer: db f32 [outputs], the others of one float type.
#[derive(Debug, Clone)]
pub struct LinearBackwardHandles {
    /// Input, [rows, inputs].
    pub x: Handle,
    /// Weight, [outputs, inputs].
    pub w: Handle,
    /// Gradient by the output, [rows, outputs].
    pub dy: Handle,
    /// Gradient by the input.
    pub dx: Handle,
    /// Gradient by the weight.
    pub dw: Handle,
    /// Gradient by the bias.
    pub db: Handle,
}

/// dx = dy w, dw = dy transposed times x, db = the sum of dy over rows.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_linear_backward<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: &LinearBackwardHandles,
    problem: LinearProblem,
) -> Result<()> {
    let LinearProblem { rows, inputs, outputs } = problem;
    let LinearBackwardHandles { x, w, dy, dx, dw, db } = buffers;
    let (size, [xs, ws, ys]) =
        (dtype.size(), [[rows, inputs], [outputs, inputs], [rows, outputs]].map(|axes| elements(&axes)));
    fits("linear_backward", &[("x", x, xs, size), ("weight", w, ws, size), ("dy", dy, ys, size)])?;
    fits("linear_backward", &[("dx", dx, xs, size), ("dw", dw, ws, size), ("db", db, outputs, WORD)])?;
    let grids = [grid(xs)?, grid(ws)?, grid(outputs)?];
    let [(dx_count, dim), (dw_count, _), (db_count, _)] = grids;
    // SAFETY: a unit stores the element of its own position below the length of its gradient, which gives a row, input or output below
    // their counts, and reads all outputs or rows of those. Empty gradients are stored by no unit.
    with_float!(dtype, F => unsafe {
        linear::linear_backward_input::launch_unchecked::<F, R>(
            client, dx_count, dim, array(w, ws), array(dy, ys), array(dx, xs), inputs, outputs,
        );
        linear::linear_backward_weight::launch_unchecked::<F, R>(
            client, dw_count, dim, array(x, xs), array(dy, ys), array(dw, ws), rows, inputs, outputs,
        );
        linear::linear_backward_bias::launch_unchecked::<F, R>(client, db_count, dim, array(dy, ys), array(db, outputs), rows)
    });
    Ok(())
}
