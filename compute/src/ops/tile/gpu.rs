//! Launching the tile kernels on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::tile;

use super::{AxisTaps, Heads, ResampleLogitsProblem, TileProblem};
use crate::error::{Error, Result};
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait TileLaunches {
        fn crop = launch_crop(dtypes: [DType; 2], x: &Handle, y: &Handle, n: usize, problem: &TileProblem) -> Result<()>;
        fn select = launch_select(
            x: &Handle, indices: &[u32], y: &Handle, from: usize, image: usize,
        ) -> Result<()>;
        fn accumulate = launch_accumulate(
            dtypes: [DType; 2], tile_data: &Handle, weight: &Handle, sum: &Handle, total: &Handle, problem: &TileProblem,
        ) -> Result<()>;
        fn mean = launch_mean(
            dtype: DType, sum: &Handle, total: &Handle, y: &Handle, voxels: usize, channels: usize,
        ) -> Result<()>;
        fn labels = launch_labels(
            x: &Handle, axes: [&AxisTaps; 3], y: &Handle, problem: &ResampleLogitsProblem, heads: Heads<'_>,
        ) -> Result<()>;
        fn probabilities = launch_probabilities(
            x: &Handle, axes: [&AxisTaps; 3], y: &Handle, problem: &ResampleLogitsProblem, heads: Heads<'_>,
        ) -> Result<()>;
    }
}

/// Crops a tile from `n` images: x [n, image, c] to y [n, tile, c], of the two `dtypes`; see [`super::crop`].
///
/// # Errors
/// A dtype that is not a float type; a tile too far away; a buffer that is too short.
pub fn launch_crop<R: Runtime>(
    client: &ComputeClient<R>,
    dtypes: [DType; 2],
    x: &Handle,
    y: &Handle,
    n: usize,
    problem: &TileProblem,
) -> Result<()> {
    let [from, dtype] = dtypes;
    let TileProblem { image, tile, channels, placement } = *problem;
    placement.checked("crop")?;
    let [source, target] = [image, tile].map(|[d, h, w]| elements(&[n, channels, d, h, w]));
    fits("crop", &[("x", x, source, from.size()), ("y", y, target, dtype.size())])?;
    let (count, dim) = grid(target)?;
    let ([id, ih, iw], [d, h, w]) = (image.map(|s| s as u32), tile.map(|s| s as u32));
    let ([sd, sh, sw], [md, mh, mw]) = (placement.start.map(|s| s as i32), placement.mirrored.map(u32::from));
    // SAFETY: each unit writes the element of its own position below y's length, and reads x at a voxel it has compared
    // with the image's size on all three axes.
    with_float!(from, X => with_float!(dtype, F => unsafe {
        tile::crop::launch_unchecked::<X, F, R>(
            client, count, dim, array(x, source), array(y, target),
            id, ih, iw, d, h, w, channels as u32, sd, sh, sw, md, mh, mw,
        )
    }));
    Ok(())
}

/// Selects images: x f32 [from, image], y f32 [indices, image]; see [`super::select`].
///
/// # Errors
/// An index that is not below `from`; a buffer that is too short.
pub fn launch_select<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    indices: &[u32],
    y: &Handle,
    from: usize,
    image: usize,
) -> Result<()> {
    if let Some(index) = indices.iter().find(|&&i| i as usize >= from) {
        return Err(Error::argument("select: indices", format!("below {from}"), index));
    }
    let [source, target] = [from, indices.len()].map(|n| elements(&[n, image]));
    fits("select", &[("x", x, source, WORD), ("y", y, target, WORD)])?;
    if target == 0 {
        return Ok(());
    }
    let chosen = client.create_from_slice(bytemuck::cast_slice(indices));
    let (count, dim) = grid(target)?;
    // SAFETY: each unit writes the element of its own position below y's length and reads the image its index names,
    // which was checked to be one of x.
    unsafe {
        tile::select_images::launch_unchecked::<R>(
            client,
            count,
            dim,
            array(x, source),
            array(&chosen, indices.len()),
            array(y, target),
            image as u32,
        );
    }
    Ok(())
}

/// Adds a tile to the sums in place: tile [tile, c] and sum [image, c] of the two `dtypes`, weight f32 [tile], total f32 [image];
/// see [`super::Accumulator::add`].
///
/// # Errors
/// As [`launch_crop`].
pub fn launch_accumulate<R: Runtime>(
    client: &ComputeClient<R>,
    dtypes: [DType; 2],
    tile_data: &Handle,
    weight: &Handle,
    sum: &Handle,
    total: &Handle,
    problem: &TileProblem,
) -> Result<()> {
    let TileProblem { image, tile, channels, placement } = *problem;
    placement.checked("accumulator")?;
    let [dtype, sums_in] = dtypes;
    let [(inside, inputs), (outside, sums)] =
        [tile, image].map(|[d, h, w]| (elements(&[d, h, w]), elements(&[d, h, w, channels])));
    let read = [("tile", tile_data, inputs, dtype.size()), ("weight", weight, inside, WORD)];
    fits("accumulator", &read)?;
    fits("accumulator", &[("sum", sum, sums, sums_in.size()), ("total", total, outside, WORD)])?;
    let (count, dim) = grid(inside)?;
    let ([id, ih, iw], [d, h, w]) = (image.map(|s| s as u32), tile.map(|s| s as u32));
    let ([sd, sh, sw], [md, mh, mw]) = (placement.start.map(|s| s as i32), placement.mirrored.map(u32::from));
    // SAFETY: each unit reads the tile's own voxels and writes one voxel of the sums, whose index it has compared with
    // their size on all three axes; two units never write the same voxel, because all are translated by the same start.
    with_float!(dtype, F => with_float!(sums_in, S => unsafe {
        tile::accumulate::launch_unchecked::<F, S, R>(
            client, count, dim, array(tile_data, inputs), array(weight, inside),
            array(sum, sums), array(total, outside),
            id, ih, iw, d, h, w, channels as u32, sd, sh, sw, md, mh, mw,
        )
    }));
    Ok(())
}

/// y = sum / total over the first `voxels` voxels: sum of `dtype` and y f32 [voxels, c], total f32 [voxels].
///
/// # Errors
/// A buffer that is too short.
pub fn launch_mean<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    sum: &Handle,
    total: &Handle,
    y: &Handle,
    voxels: usize,
    channels: usize,
) -> Result<()> {
    let len = elements(&[voxels, channels]);
    fits("accumulator", &[("sum", sum, len, dtype.size()), ("total", total, voxels, WORD), ("mean", y, len, WORD)])?;
    let (count, dim) = grid(len)?;
    // SAFETY: each unit touches the element of its own position below y's length, which the sums have at least.
    with_float!(dtype, S => unsafe {
        tile::mean::launch_unchecked::<S, R>(
            client,
            count,
            dim,
            array(sum, len),
            array(total, voxels),
            array(y, len),
            channels as u32,
        );
    });
    Ok(())
}

/// Resampled logits to labels: x f32 [input, c], y u8 [output] in whole words. See [`super::resample_labels`].
///
/// # Errors
/// Taps of another output, or outside the logits; no class or more than 255; values that are not one a class, or above 254; a
/// buffer that is too short.
pub fn launch_labels<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    axes: [&AxisTaps; 3],
    y: &Handle,
    problem: &ResampleLogitsProblem,
    heads: Heads<'_>,
) -> Result<()> {
    heads.ensure_valid("resample_labels", problem.channels)?;
    let size = Sizes::of("resample_labels", problem, axes)?;
    let words = size.voxels.div_ceil(4);
    fits("resample_labels", &[("logits", x, size.logits, WORD), ("labels", y, size.voxels, 1)])?;
    fits("resample_labels", &[("labels", y, words, WORD)])?;
    let (taps, fraction) = upload_taps(client, axes);
    let (count, dim) = grid(words)?;
    let [d, h, w] = problem.output.map(|s| s as u32);
    let (len, row, column) = (size.voxels as u32, problem.input[1] as u32, problem.input[2] as u32);
    let channels = problem.channels as u32;
    match heads {
        // SAFETY: each unit writes the word of its own position below y's length; positions are clamped to the last voxel, and
        // taps were checked to lie inside the logits.
        Heads::Softmax => unsafe {
            tile::labels::launch_unchecked::<R>(
                client,
                count,
                dim,
                array(x, size.logits),
                array(&taps, 2 * size.taps),
                array(&fraction, size.taps),
                array(y, words),
                len,
                row,
                column,
                d,
                h,
                w,
                channels,
            );
        },
        Heads::Sigmoid(values) => {
            let values: Vec<u32> = values.iter().map(|&v| v.into()).collect();
            let uploaded = client.create_from_slice(bytemuck::cast_slice(&values));
            // SAFETY: as above; the values were checked to be as many as the channels.
            unsafe {
                tile::regions::launch_unchecked::<R>(
                    client,
                    count,
                    dim,
                    array(x, size.logits),
                    array(&taps, 2 * size.taps),
                    array(&fraction, size.taps),
                    array(&uploaded, values.len()),
                    array(y, words),
                    len,
                    row,
                    column,
                    d,
                    h,
                    w,
                    channels,
                );
            }
        }
    }
    Ok(())
}

/// Resampled logits to probabilities: y f32 [output, c], the rest as [`launch_labels`]. See
/// [`super::resample_probabilities`].
///
/// # Errors
/// As [`launch_labels`].
pub fn launch_probabilities<R: Runtime>(
    client: &ComputeClient<R>,
    x: &Handle,
    axes: [&AxisTaps; 3],
    y: &Handle,
    problem: &ResampleLogitsProblem,
    heads: Heads<'_>,
) -> Result<()> {
    heads.ensure_valid("resample_probabilities", problem.channels)?;
    let size = Sizes::of("resample_probabilities", problem, axes)?;
    let len = elements(&[size.voxels, problem.channels]);
    fits("resample_probabilities", &[("logits", x, size.logits, WORD), ("probabilities", y, len, WORD)])?;
    let (taps, fraction) = upload_taps(client, axes);
    let (count, dim) = grid(size.voxels)?;
    let [d, h, w] = problem.output.map(|s| s as u32);
    let (voxels, row, column) = (size.voxels as u32, problem.input[1] as u32, problem.input[2] as u32);
    let channels = problem.channels as u32;
    // SAFETY: each unit touches the c elements of the voxel of its own position, below the count of voxels; taps were
    // checked to lie inside the logits.
    unsafe {
        let (logits, y) = (array(x, size.logits), array(y, len));
        let (taps, fraction) = (array(&taps, 2 * size.taps), array(&fraction, size.taps));
        match heads {
            Heads::Softmax => tile::probabilities::launch_unchecked::<R>(
                client, count, dim, logits, taps, fraction, y, voxels, row, column, d, h, w, channels,
            ),
            Heads::Sigmoid(_) => tile::sigmoids::launch_unchecked::<R>(
                client, count, dim, logits, taps, fraction, y, voxels, row, column, d, h, w, channels,
            ),
        }
    }
    Ok(())
}

/// Lengths of the buffers of a resampling.
struct Sizes {
    logits: usize,
    taps: usize,
    voxels: usize,
}

impl Sizes {
    fn of(op: &str, problem: &ResampleLogitsProblem, axes: [&AxisTaps; 3]) -> Result<Self> {
        let ResampleLogitsProblem { input: input @ [d, h, w], output, channels } = *problem;
        if !(1..=255).contains(&channels) {
            return Err(Error::argument(format!("{op}: classes"), "1 to 255", channels));
        }
        for (taps, size) in axes.into_iter().zip(input) {
            taps.ensure_within(&format!("{op}: taps"), size)?;
        }
        if axes.map(AxisTaps::len) != output {
            let found = format!("{:?}", axes.map(AxisTaps::len));
            return Err(Error::shape(format!("{op}: taps"), format!("{output:?}"), found));
        }
        let logits = elements(&[d, h, w, channels]);
        Ok(Self { logits, taps: output.iter().sum(), voxels: elements(&output) })
    }
}

/// u32 low and high indices of z, of y, of x; and f32 fractions of z, y, x.
fn upload_taps<R: Runtime>(client: &ComputeClient<R>, axes: [&AxisTaps; 3]) -> (Handle, Handle) {
    let taps: Vec<u32> = axes.iter().flat_map(|a| a.low().iter().chain(a.high())).copied().collect();
    let fraction: Vec<f32> = axes.iter().flat_map(|a| a.fraction()).copied().collect();
    let upload = |bytes: &[u8]| client.create_from_slice(bytes);
    (upload(bytemuck::cast_slice(&taps)), upload(bytemuck::cast_slice(&fraction)))
}
