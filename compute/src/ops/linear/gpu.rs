//! Launching a fully connected layer on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::linear;

use super::LinearProblem;
use crate::ops::launch::{BLOCK, array, cube_grid, with_float};
use crate::tensor::DType;

/// y [rows, outputs] = x [rows, inputs] times w [outputs, inputs] transposed, of `dtype` (a float type), plus bias
/// [outputs] f32. There is at least one output; every buffer has fewer than 2^32 elements.
pub fn launch_linear<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    w: &Handle,
    bias: Option<&Handle>,
    y: &Handle,
    problem: LinearProblem,
) {
    let LinearProblem { rows, inputs, outputs } = problem;
    let (count, dim) = (cube_grid(rows * outputs), CubeDim::new_1d(BLOCK));
    // SAFETY: a cube whose position lies below the length of y has a row and an output below their counts; the others
    // load and store nothing. Without a bias its array is not read.
    with_float!(dtype, F => unsafe {
        let (terms, length) = bias.map_or_else(|| (client.empty(size_of::<f32>()), 1), |b| (b.clone(), outputs));
        linear::linear::launch_unchecked::<F, R>(
            client, count, dim, array(x, rows * inputs), array(w, outputs * inputs), array(&terms, length),
            array(y, rows * outputs), inputs, outputs, BLOCK as usize, bias.is_some(),
        )
    });
}
