//! Launching convolutions on raw handles.

use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::{GeometryLaunch, WindowLaunch, backward, direct, implicit_gemm, register_blocked};

use super::algorithm::{self, Algorithm, Facts, Plan};
use super::tiling::Tiling;
use super::{Conv3dProblem, pointwise, stem};
use crate::error::Result;
use crate::ops::launch::{array, cube_grid, grid, vector_width, with_float};
use crate::tensor::{DType, Shape};

/// Output channels a unit makes: the largest number the kernels know that divides a group's.
pub(in crate::ops) fn channels_a_unit(co: usize) -> usize {
    [4, 2].into_iter().find(|c| co.is_multiple_of(*c)).unwrap_or(1)
}

/// The buffer of an optional bias: without one the kernel is compiled not to look at it.
pub(in crate::ops) fn bias_or_nothing<R: Runtime>(client: &ComputeClient<R>, bias: Option<&Handle>) -> Handle {
    bias.cloned().unwrap_or_else(|| client.empty(size_of::<f32>()))
}

/// How the kernel moves over spatial axes `input` -> `output`, which are the ends of the shapes.
pub(in crate::ops) fn windows<R: Runtime>(
    input: Shape,
    output: Shape,
    weight: Shape,
    [stride, padding, dilation]: [[usize; 3]; 3],
) -> [WindowLaunch<R>; 3] {
    [0, 1, 2].map(|a| WindowLaunch::new(input[2 + a], output[2 + a], weight[2 + a], stride[a], padding[a], dilation[a]))
}

impl Conv3dProblem {
    /// The sizes as the kernels take them; channels are a group's.
    pub(super) fn geometry<R: Runtime>(&self) -> GeometryLaunch<R> {
        let p = self.params();
        let steps = [p.stride, p.padding, p.dilation];
        let [z, y, x] = windows(self.input_shape(), self.output_shape(), self.weight_shape(), steps);
        let [co, ci, ..] = self.weight_shape();
        GeometryLaunch::new(z, y, x, ci, co / p.groups, p.groups)
    }
}

/// What the choice of an algorithm needs to know of the device, and of a problem of `ci` channels a group.
pub(in crate::ops) fn facts<R: Runtime>(client: &ComputeClient<R>, dtype: DType, ci: usize) -> Facts {
    let (features, hardware) = (client.features(), &client.properties().hardware);
    let matrix = with_float!(dtype, F => {
        let float = F::as_type_native_unchecked().storage_type();
        let sum = f32::as_type_native_unchecked().storage_type();
        let shape = MmaConfig { a_type: float, b_type: float, cd_type: sum, m: 16, n: 8, k: 16 };
        features.matmul.mma.contains(&shape) && features.matmul.ldmatrix.contains(&float)
    });
    Facts {
        matrix: matrix && features.copy_async && hardware.plane_size_min as usize == implicit_gemm::PLANE,
        copy_async: features.copy_async,
        // Planes as wide as a processor's vectors; no GPU is limited to them.
        software: hardware.plane_size_max <= 8,
        shared_bytes: hardware.max_shared_memory_size,
        units: hardware.max_units_per_cube as usize,
        processors: hardware.num_streaming_multiprocessors.unwrap_or(1) as usize,
        width: vector_width(client, dtype, ci),
        dtype,
    }
}

/// Buffers of a convolution: `b` f32 with a value per output channel, the others of the tensors' type.
#[derive(Clone, Copy)]
pub struct Conv3dHandles<'a> {
    /// [n, d, h, w, ci].
    pub x: &'a Handle,
    /// [co, kd, kh, kw, ci / groups].
    pub w: &'a Handle,
    /// [co].
    pub b: Option<&'a Handle>,
    /// [n, od, oh, ow, co], written whole.
    pub y: &'a Handle,
}

/// y = conv3d(x, w) + b over buffers of `dtype` (a float type) that hold the problem's tensors, each of fewer than 2^32
/// elements; by `algorithm`, or by the one that should be fastest.
///
/// # Errors
/// A problem that the algorithm cannot do; a NEPHRON_CONV that names none.
pub fn launch_conv3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<()> {
    let facts = facts(client, dtype, problem.weight_shape()[1]);
    let plan = match algorithm {
        None => algorithm::choose(problem, &facts)?,
        chosen => algorithm::plan(problem, &facts, chosen)?,
    };
    let launch = Launch { client, dtype, buffers, problem };
    match plan {
        Plan::Naive => launch.direct(1),
        Plan::Direct => launch.direct(channels_a_unit(problem.weight_shape()[0] / problem.params().groups)),
        Plan::Stem(brick) => stem::launch(client, dtype, buffers, problem, &brick),
        Plan::Pointwise => pointwise::launch(client, dtype, buffers, problem, facts.width),
        Plan::RegisterBlocked(tiling) => launch.register_blocked(&tiling, facts.width),
        Plan::ImplicitGemm(tiling) => launch.implicit_gemm(&tiling, facts.width),
    }
    Ok(())
}

/// What every kernel is launched with.
struct Launch<'a, R: Runtime> {
    client: &'a ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'a>,
    problem: &'a Conv3dProblem,
}

impl<R: Runtime> Launch<'_, R> {
    /// Elements of x, w, b and y.
    fn lengths(&self) -> [usize; 4] {
        let problem = self.problem;
        let [x, w, y] =
            [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
        [x, w, if self.buffers.b.is_some() { problem.weight_shape()[0] } else { 1 }, y]
    }

    /// Voxels of the output, and cubes that make `tiling`'s tiles of it.
    fn rows_and_cubes(&self, tiling: &Tiling) -> (usize, CubeCount) {
        let [n, co, od, oh, ow] = self.problem.output_shape();
        let rows = n * od * oh * ow;
        (rows, cube_grid(rows.div_ceil(tiling.tiles.m) * co.div_ceil(tiling.tiles.n)))
    }

    /// `channels` outputs a unit, a divisor of a group's.
    fn direct(&self, channels: usize) {
        let Conv3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = grid(y_len / channels);
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: a unit writes the `channels` outputs at its position, below the length of y; the loops are cut to taps
        // whose input voxel exists, and the problem's shapes agree with the buffers.
        with_float!(self.dtype, F => unsafe {
            direct::conv3d_direct::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                self.problem.geometry(),
                b.is_some(),
                channels,
            )
        });
    }

    fn register_blocked(&self, tiling: &Tiling, width: usize) {
        let Conv3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (rows, count) = self.rows_and_cubes(tiling);
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: outputs are stored below `rows` and co; inputs are loaded where the tap's bits say that they exist, else
        // from element 0; the tiling divides its tiles among its units (a test), so shared indices stay in their stage.
        with_float!(self.dtype, F => unsafe {
            register_blocked::conv3d_register_blocked::launch_unchecked::<F, R>(
                self.client,
                count,
                CubeDim::new_1d(tiling.tiles.units as u32),
                width,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                self.problem.geometry(),
                rows,
                b.is_some().into(),
                tiling.tiles,
                tiling.block,
            )
        });
    }

    fn implicit_gemm(&self, tiling: &Tiling, width: usize) {
        let Conv3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (rows, count) = self.rows_and_cubes(tiling);
        let bias = bias_or_nothing(self.client, b);
        let pair = if self.problem.weight_shape()[0].is_multiple_of(2) { 2 } else { 1 };
        // SAFETY: as above; `pair` divides co, so a store never crosses into the next voxel.
        with_float!(self.dtype, F => unsafe {
            implicit_gemm::conv3d_implicit_gemm::launch_unchecked::<F, R>(
                self.client,
                count,
                CubeDim::new_1d(tiling.tiles.units as u32),
                width,
                pair,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                self.problem.geometry(),
                rows,
                b.is_some().into(),
                tiling.tiles,
                tiling.planes,
                tiling.step,
            )
        });
    }
}

/// Units that keep any device busy: where a gradient has fewer elements, its sums are cut into splits.
const BUSY: usize = 1 << 16;
/// Splits that the second stage adds at most.
const MAX_SPLITS: usize = 256;

/// Splits of a sum over `terms` rows into `units` units' results. From shapes alone: the same on every device.
fn splits(units: usize, terms: usize) -> usize {
    (BUSY / units).clamp(1, MAX_SPLITS).min(terms)
}

/// dw = the gradient by the weight of sum(dy * conv3d(x, w)), over buffers of `dtype` (a float type) that hold the
/// problem's tensors, each of fewer than 2^32 elements.
pub fn launch_conv3d_backward_weight<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    x: &Handle,
    dy: &Handle,
    dw: &Handle,
    problem: &Conv3dProblem,
) {
    let [n, co, od, oh, _] = problem.output_shape();
    let [x_len, w_len, y_len]: [usize; 3] =
        [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
    let channels = channels_a_unit(co / problem.params().groups);
    let rows = n * od * oh;
    let splits = splits(w_len / channels, rows);
    let parts = client.empty(splits * w_len * size_of::<f32>());
    let (count, dim) = grid(splits * w_len / channels);
    // SAFETY: a unit writes its own `channels` elements of `parts`; it reads rows below `rows` and input voxels that its
    // bounds checks found inside, and the problem's shapes agree with the buffers.
    with_float!(dtype, F => unsafe {
        backward::conv3d_weight_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(x, x_len),
            array(dy, y_len),
            array(&parts, splits * w_len),
            problem.geometry(),
            rows,
            splits,
            channels,
        )
    });
    launch_sum_parts(client, dtype, &parts, dw, w_len, splits);
}

/// db = the gradient by the bias: f32 sums over `dy` of `dtype` (a float type), a value per output channel.
pub fn launch_conv3d_backward_bias<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    dy: &Handle,
    db: &Handle,
    problem: &Conv3dProblem,
) {
    let [n, co, od, oh, ow] = problem.output_shape();
    let voxels = n * od * oh * ow;
    let splits = splits(co, voxels);
    let parts = client.empty(splits * co * size_of::<f32>());
    let (count, dim) = grid(splits * co);
    // SAFETY: a unit writes its own element of `parts` and reads one channel of voxels below `voxels`.
    with_float!(dtype, F => unsafe {
        backward::conv3d_bias_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(dy, voxels * co),
            array(&parts, splits * co),
            voxels,
            splits,
        )
    });
    launch_sum_parts(client, DType::F32, &parts, db, co, splits);
}

fn launch_sum_parts<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    parts: &Handle,
    out: &Handle,
    len: usize,
    splits: usize,
) {
    let (count, dim) = grid(len);
    // SAFETY: a unit writes the element of its position, below the length of `out`, and reads it in each of the splits.
    with_float!(dtype, F => unsafe {
        backward::sum_parts::launch_unchecked::<F, R>(
            client,
            count,
            dim,
            array(parts, splits * len),
            array(out, len),
            splits,
        )
    });
}
