//! Launching warps on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::warp;

use super::AffineWarpProblem;
use crate::ops::grid_sample::PaddingMode;
use crate::ops::grid_sample::gpu::extent;
use crate::ops::launch::{array, grid, with_float};
use crate::ops::sampling::spatial;
use crate::tensor::{DType, Shape};

/// Warps `x` [n, d, h, w, c] of `dtype` (a float type) by `flow` f32 [n, d, h, w, 3], voxels (z, y, x), into `y`.
pub fn launch_warp<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    flow: &Handle,
    y: &Handle,
    shape: Shape,
    padding: PaddingMode,
) {
    let len: usize = shape.iter().product();
    if len == 0 {
        return;
    }
    let (count, dim) = grid(len);
    // SAFETY: each unit writes the element of its own position, below the length that image and result share; its
    // displacement exists since the flow has a point for every `channels` elements; voxels are read inside alone.
    with_float!(dtype, F => unsafe {
        warp::warp::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, len),
            array(flow, len / shape[1] * 3),
            array(y, len),
            extent(spatial(shape)),
            shape[1] as u32,
            padding.into(),
        )
    });
}

/// Warps `x` [n, D, H, W, c] of `dtype` (a float type, or u8 for nearest labels) by `theta` f32 [n, 3, 4] into `y`.
pub fn launch_affine_warp<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    theta: &Handle,
    y: &Handle,
    problem: &AffineWarpProblem,
) {
    let AffineWarpProblem { input, size, mode, padding, align_corners } = *problem;
    let (len, out): (usize, usize) = (input.iter().product(), problem.output_shape().iter().product());
    if out == 0 {
        return;
    }
    let channels = input[1] as u32;
    if dtype == DType::U8 {
        let (count, dim) = grid(out.div_ceil(4));
        // SAFETY: each unit writes the word of its own position, below the words that the labels of the result take; it
        // reads the matrix of its image, of which there are n, and voxels inside the image alone.
        unsafe {
            warp::affine_warp_labels::launch_unchecked::<R>(
                client,
                count,
                dim,
                array(x, len.div_ceil(4)),
                array(theta, 12 * input[0]),
                array(y, out.div_ceil(4)),
                extent(spatial(input)),
                extent(size),
                channels,
                out as u32,
                padding.into(),
                align_corners,
            );
        }
        return;
    }
    let (count, dim) = grid(out);
    // SAFETY: as above, with an element for a word.
    with_float!(dtype, F => unsafe {
        warp::affine_warp::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, len),
            array(theta, 12 * input[0]),
            array(y, out),
            extent(spatial(input)),
            extent(size),
            channels,
            mode.into(),
            padding.into(),
            align_corners,
        )
    });
}
