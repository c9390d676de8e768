//! Launching warps on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::warp;

use super::AffineWarpProblem;
use crate::error::{Error, Result};
use crate::ops::grid_sample::gpu::extent;
use crate::ops::grid_sample::{PaddingMode, SampleMode};
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, with_float};
use crate::ops::sampling::{ensure_sampleable, spatial};
use crate::tensor::{DType, Shape};

launches! {
    pub(crate) trait WarpLaunches {
        fn warp = launch_warp(
            dtype: DType, x: &Handle, flow: &Handle, y: &Handle, shape: Shape, padding: PaddingMode,
        ) -> Result<()>;
        fn affine_warp = launch_affine_warp(
            dtype: DType, x: &Handle, theta: &Handle, y: &Handle, problem: &AffineWarpProblem,
        ) -> Result<()>;
    }
}

/// Warps `x` [n, d, h, w, c] of `dtype` (a float type) by `flow` f32 [n, d, h, w, 3], voxels (z, y, x), into `y`.
///
/// # Errors
/// A dtype that is not a float type; an axis over 2^24 voxels; a buffer that is too short.
pub fn launch_warp<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    flow: &Handle,
    y: &Handle,
    shape: Shape,
    padding: PaddingMode,
) -> Result<()> {
    ensure_sampleable("warp3d", shape, shape)?;
    let len = elements(&shape);
    if len == 0 {
        return Ok(());
    }
    let (at, size) = (len / shape[1] * 3, dtype.size());
    fits("warp3d", &[("x", x, len, size), ("flow", flow, at, WORD), ("y", y, len, size)])?;
    let (count, dim) = grid(len)?;
    // SAFETY: each unit writes the element of its own position, below the length that image and result share; its
    // displacement exists since the flow has a point for every `channels` elements; only voxels inside the image are read.
    with_float!(dtype, F => unsafe {
        warp::warp::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, len),
            array(flow, at),
            array(y, len),
            extent(spatial(shape)),
            shape[1] as u32,
            padding.into(),
        )
    });
    Ok(())
}

/// Warps `x` [n, D, H, W, c] of `dtype` (a float type, or u8 for nearest labels) by `theta` f32 [n, 3, 4] into `y`.
///
/// # Errors
/// As [`launch_warp`]; labels to be interpolated; an image without voxels.
pub fn launch_affine_warp<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    theta: &Handle,
    y: &Handle,
    problem: &AffineWarpProblem,
) -> Result<()> {
    let AffineWarpProblem { input, size, mode, padding, align_corners } = *problem;
    ensure_sampleable("affine_warp3d", input, problem.output_shape())?;
    let (len, out) = (elements(&input), elements(&problem.output_shape()));
    if out == 0 {
        return Ok(());
    }
    let matrices = ("theta", theta, elements(&[12, input[0]]), WORD);
    let channels = input[1] as u32;
    if dtype == DType::U8 {
        if mode != SampleMode::Nearest {
            return Err(Error::argument("affine_warp3d: mode for labels", "nearest", format!("{mode:?}")));
        }
        let words = [len, out].map(|n| n.div_ceil(4));
        // A position among the labels counts as well as one among the words that hold them.
        fits("affine_warp3d", &[("x", x, len, 1), ("y", y, out, 1)])?;
        fits("affine_warp3d", &[("x", x, words[0], WORD), matrices, ("y", y, words[1], WORD)])?;
        let (count, dim) = grid(words[1])?;
        // SAFETY: each unit writes the word of its own position, below the words that the labels of the result take; it
        // reads the matrix of its image, of which there are n, and voxels inside the image only.
        unsafe {
            warp::affine_warp_labels::launch_unchecked::<R>(
                client,
                count,
                dim,
                array(x, words[0]),
                array(theta, 12 * input[0]),
                array(y, words[1]),
                extent(spatial(input)),
                extent(size),
                channels,
                out as u32,
                padding.into(),
                align_corners,
            );
        }
        return Ok(());
    }
    fits("affine_warp3d", &[("x", x, len, dtype.size()), matrices, ("y", y, out, dtype.size())])?;
    let (count, dim) = grid(out)?;
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
    Ok(())
}
