//! Launching a fully connected layer on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::linear;

use super::LinearProblem;
use crate::error::Result;
use crate::ops::launch::{BLOCK, WORD, array, cube_grid, elements, fits, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait LinearLaunches {
        fn linear = launch_linear(
            dtype: DType, x: &Handle, w: &Handle, bias: Option<&Handle>, y: &Handle, problem: LinearProblem,
        ) -> Result<()>;
    }
}

/// y [rows, outputs] = x [rows, inputs] times w [outputs, inputs] transposed, of `dtype` (a float type), plus bias
/// [outputs] f32.
///
/// # Errors
/// A dtype that is not a float type; a buffer that is too short.
pub fn launch_linear<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    w: &Handle,
    bias: Option<&Handle>,
    y: &Handle,
    problem: LinearProblem,
) -> Result<()> {
    let LinearProblem { rows, inputs, outputs } = problem;
    let (size, [x_len, w_len, y_len]) =
        (dtype.size(), [[rows, inputs], [outputs, inputs], [rows, outputs]].map(|axes| elements(&axes)));
    fits("linear", &[("x", x, x_len, size), ("weight", w, w_len, size), ("y", y, y_len, size)])?;
    if let Some(bias) = bias {
        fits("linear", &[("bias", bias, outputs, WORD)])?;
    }
    if y_len == 0 {
        return Ok(());
    }
    let (count, dim) = (cube_grid(y_len)?, CubeDim::new_1d(BLOCK));
    // SAFETY: a cube whose position lies below the length of y has a row and an output below their counts; the others
    // load and store nothing. Without a bias its array is not read.
    with_float!(dtype, F => unsafe {
        let (terms, length) = bias.map_or_else(|| (client.empty(size_of::<f32>()), 1), |b| (b.clone(), outputs));
        linear::linear::launch_unchecked::<F, R>(
            client, count, dim, array(x, x_len), array(w, w_len), array(&terms, length),
            array(y, y_len), inputs, outputs, BLOCK as usize, bias.is_some(),
        )
    });
    Ok(())
}
