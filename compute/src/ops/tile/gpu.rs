//! Launching the tile kernels on raw handles. Counts and sizes fit u32 (validated by the ops).

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::tile;

use super::{ResampleLogitsProblem, TileProblem};
use crate::ops::launch::{array, grid, with_float};
use crate::tensor::DType;

/// Cuts a tile out of `n` images: x f32 [n, image, c] to y [n, tile, c] of `dtype`; see [`super::crop`].
pub fn launch_crop<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    y: &Handle,
    n: usize,
    problem: &TileProblem,
) {
    let TileProblem { image, tile, channels, placement } = *problem;
    let len = |size: [usize; 3]| n * channels * size.iter().product::<usize>();
    let (count, dim) = grid(len(tile));
    let ([id, ih, iw], [d, h, w]) = (image.map(|s| s as u32), tile.map(|s| s as u32));
    let ([sd, sh, sw], [md, mh, mw]) = (placement.start.map(|s| s as i32), placement.mirrored.map(u32::from));
    // SAFETY: each unit writes the element of its own position below y's length, and reads x at a voxel it has compared
    // with the image's size on all three axes.
    with_float!(dtype, F => unsafe {
        tile::crop::launch_unchecked::<F, R>(
            client, count, dim, array(x, len(image)), array(y, len(tile)),
            id, ih, iw, d, h, w, channels as u32, sd, sh, sw, md, mh, mw,
        )
    });
}

/// Picks images: x f32 [from, image], indices u32 [to] below `from`, y f32 [to, image]; see [`super::select`].
pub fn launch_select<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    indices: &Handle,
    y: &Handle,
    [from, to]: [usize; 2],
    image: usize,
) {
    let (count, dim) = grid(to * image);
    // SAFETY: each unit writes the element of its own position below y's length and reads the image its index names,
    // which the op has checked to be one of x.
    unsafe {
        tile::select_images::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(x, from * image),
            array(indices, to),
            array(y, to * image),
            image as u32,
        );
    }
}

/// Adds a tile to the sums in place: tile [tile, c] of `dtype`, weight f32 [tile], sum f32 [image, c], total f32 [image];
/// see [`super::Accumulator::add`].
pub fn launch_accumulate<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    tile_data: &Handle,
    weight: &Handle,
    sum: &Handle,
    total: &Handle,
    problem: &TileProblem,
) {
    let TileProblem { image, tile, channels, placement } = *problem;
    let voxels = |size: [usize; 3]| size.iter().product::<usize>();
    let (inside, outside) = (voxels(tile), voxels(image));
    let (count, dim) = grid(inside);
    let ([id, ih, iw], [d, h, w]) = (image.map(|s| s as u32), tile.map(|s| s as u32));
    let ([sd, sh, sw], [md, mh, mw]) = (placement.start.map(|s| s as i32), placement.mirrored.map(u32::from));
    // SAFETY: each unit reads the tile's own voxels and writes one voxel of the sums, whose place it has compared with
    // their size on all three axes; two units never share a voxel, for all are moved by the same start.
    with_float!(dtype, F => unsafe {
        tile::accumulate::launch_unchecked::<F, R>(
            client, count, dim, array(tile_data, inside * channels), array(weight, inside),
            array(sum, outside * channels), array(total, outside),
            id, ih, iw, d, h, w, channels as u32, sd, sh, sw, md, mh, mw,
        )
    });
}

/// y = sum / total over the first `voxels` voxels: sum and y f32 [voxels, c], total f32 [voxels].
pub fn launch_mean<R: Runtime>(
    client: &ComputeClient<R>,
    sum: &Handle,
    total: &Handle,
    y: &Handle,
    voxels: usize,
    channels: usize,
) {
    let len = voxels * channels;
    let (count, dim) = grid(len);
    // SAFETY: each unit touches the element of its own position below y's length, which the sums have at least.
    unsafe {
        tile::mean::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(sum, len),
            array(total, voxels),
            array(y, len),
            channels as u32,
        );
    }
}

/// Resampled logits to labels: x f32 [input, c], y u8 [output] in whole words. `taps` (u32) holds low and high indices
/// of z, of y, of x; `fraction` (f32) those of z, y, x. See [`super::resample_labels`].
pub fn launch_labels<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    taps: &Handle,
    fraction: &Handle,
    y: &Handle,
    problem: &ResampleLogitsProblem,
) {
    let size = Sizes::of(problem);
    let words = size.voxels.div_ceil(4);
    let (count, dim) = grid(words);
    let [d, h, w] = problem.output.map(|s| s as u32);
    // SAFETY: each unit writes the word of its own position below y's length; positions are clamped to the last voxel,
    // and taps were checked to lie inside the logits.
    unsafe {
        tile::labels::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(x, size.logits),
            array(taps, 2 * size.taps),
            array(fraction, size.taps),
            array(y, words),
            size.voxels as u32,
            problem.input[1] as u32,
            problem.input[2] as u32,
            d,
            h,
            w,
            problem.channels as u32,
        );
    }
}

/// Resampled logits to probabilities: y f32 [output, c], the rest as [`launch_labels`]. See
/// [`super::resample_probabilities`].
pub fn launch_probabilities<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    taps: &Handle,
    fraction: &Handle,
    y: &Handle,
    problem: &ResampleLogitsProblem,
) {
    let size = Sizes::of(problem);
    let (count, dim) = grid(size.voxels);
    let [d, h, w] = problem.output.map(|s| s as u32);
    // SAFETY: each unit touches the c elements of the voxel of its own position, below the count of voxels; taps were
    // checked to lie inside the logits.
    unsafe {
        tile::probabilities::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(x, size.logits),
            array(taps, 2 * size.taps),
            array(fraction, size.taps),
            array(y, size.voxels * problem.channels),
            size.voxels as u32,
            problem.input[1] as u32,
            problem.input[2] as u32,
            d,
            h,
            w,
            problem.channels as u32,
        );
    }
}

/// Lengths of the buffers of a resampling.
struct Sizes {
    logits: usize,
    taps: usize,
    voxels: usize,
}

impl Sizes {
    fn of(problem: &ResampleLogitsProblem) -> Self {
        Self {
            logits: problem.input.iter().product::<usize>() * problem.channels,
            taps: problem.output.iter().sum(),
            voxels: problem.output.iter().product(),
        }
    }
}
