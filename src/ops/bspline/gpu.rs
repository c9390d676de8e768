//! Launching B-spline kernels on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::bspline;
use nephron_kernels::common::interpolation::{Elements, Floats, PackedI16, PackedU8};

use crate::ops::launch::{array, grid, with_float};
use crate::tensor::{DType, Shape};

/// The B-spline coefficients f32 of `x` [n, d, h, w, c] of any dtype, clipped first if asked for.
pub fn launch_coefficients<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    coefficients: &Handle,
    shape: Shape,
    clip: Option<[f32; 2]>,
) {
    let len: usize = shape.iter().product();
    if len == 0 {
        return;
    }
    match dtype {
        DType::I16 => decode::<PackedI16, R>(client, x, len.div_ceil(2), coefficients, len, clip),
        DType::U8 => decode::<PackedU8, R>(client, x, len.div_ceil(4), coefficients, len, clip),
        _ => with_float!(dtype, F => decode::<Floats<F>, R>(client, x, len, coefficients, len, clip)),
    }
    let [_, c, d, h, w] = shape;
    for (axis, stride) in [(d, h * w * c), (h, w * c), (w, c)] {
        if axis == 1 {
            continue; // one voxel is a constant, which is its own spline
        }
        let (count, dim) = grid(len / axis);
        // SAFETY: each unit works on the line of its own position, below their number; the lines cover the buffer once.
        unsafe {
            bspline::prefilter::launch_unchecked::<R>(
                client,
                count,
                dim,
                array(coefficients, len),
                (len / axis) as u32,
                axis as u32,
                stride as u32,
            );
        }
    }
}

/// `x`, stored as `stored` elements of `S`, to `len` f32 values.
fn decode<S: Elements, R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    stored: usize,
    values: &Handle,
    len: usize,
    clip: Option<[f32; 2]>,
) {
    let (count, dim) = grid(len);
    let [low, high] = clip.unwrap_or_default();
    // SAFETY: each unit reads and writes the element of its own position, below `len`, which `stored` elements hold.
    unsafe {
        bspline::decode::launch_unchecked::<S, R>(
            client,
            count,
            dim,
            array(x, stored),
            array(values, len),
            low,
            high,
            clip.is_some(),
        );
    }
}
