//! Launching convolutions on raw handles.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};

use cubecl::ir::features::MmaConfig;
use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::finish::{self, EpilogueLaunch};
use nephron_kernels::conv3d::{GeometryLaunch, WindowLaunch, direct, implicit_gemm, register_blocked};

use super::algorithm::{self, Algorithm, Facts, Plan};
use super::halo::{self, HaloBuffers, HaloInput};
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

static TF32: AtomicBool = AtomicBool::new(false);

/// From now on convolutions of f32 tensors may round their operands to tf32 (10 bits of mantissa instead of 23) where a GPU
/// multiplies those much faster; sums stay f32. As PyTorch's `torch.backends.cudnn.allow_tf32`, but off at first.
pub fn allow_tf32(on: bool) {
    TF32.store(on, Ordering::Relaxed);
}

fn tf32_allowed() -> bool {
    TF32.load(Ordering::Relaxed)
}

/// What the choice of an algorithm needs to know of the device, and of a problem of `ci` channels a group.
pub(in crate::ops) fn facts<R: Runtime>(client: &ComputeClient<R>, dtype: DType, ci: usize) -> Facts {
    let (features, hardware) = (client.features(), &client.properties().hardware);
    let sum = f32::as_type_native_unchecked().storage_type();
    let multiplies =
        |a_type, k| features.matmul.mma.contains(&MmaConfig { a_type, b_type: a_type, cd_type: sum, m: 16, n: 8, k });
    let width = vector_width(client, dtype, ci);
    let matrix = match dtype {
        DType::F32 => tf32_allowed() && width == 4 && multiplies(tf32::as_type_native_unchecked().storage_type(), 8),
        _ => with_float!(dtype, F => {
            let float = F::as_type_native_unchecked().storage_type();
            multiplies(float, 16) && features.matmul.ldmatrix.contains(&float)
        }),
    };
    // Planes as wide as a processor's vectors; no GPU is limited to them.
    let software = hardware.plane_size_max <= 8;
    Facts {
        matrix: matrix && features.copy_async && hardware.plane_size_min as usize == implicit_gemm::PLANE,
        copy_async: features.copy_async,
        software,
        shared_bytes: hardware.max_shared_memory_size,
        units: hardware.max_units_per_cube as usize,
        processors: hardware.num_streaming_multiprocessors.map_or_else(|| processors(software), |n| n as usize),
        width,
        dtype,
    }
}

/// Cubes that run side by side where the runtime does not say: threads of the machine, or what a small GPU has.
fn processors(software: bool) -> usize {
    if software { std::thread::available_parallelism().map_or(1, NonZero::get) } else { 16 }
}

/// Buffers of a convolution: `b` f32 with a value per output channel, the others of the tensors' type.
#[derive(Debug, Clone, Copy)]
pub struct Conv3dHandles<'a> {
    /// [n, d, h, w, ci].
    pub x: &'a Handle,
    /// [co, kd, kh, kw, ci / groups].
    pub w: &'a Handle,
    /// [co].
    pub b: Option<&'a Handle>,
    /// [n, od, oh, ow, co], added to the output.
    pub residual: Option<&'a Handle>,
    /// [n, od, oh, ow, co], written whole.
    pub y: &'a Handle,
}

/// y = leaky_relu(conv3d(x, w) + b + residual, slope), where a slope of 1 leaves values as they are, over buffers of `dtype` (a float type) that hold the problem's tensors, each of
/// fewer than 2^32 elements; by `algorithm`, or by the one that should be fastest.
///
/// # Errors
/// A problem that the algorithm cannot do; a NEPHRON_CONV that names none.
pub fn launch_conv3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    slope: f32,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<()> {
    launch_planned(client, dtype, buffers, slope, problem, &plan(client, dtype, problem, algorithm)?);
    Ok(())
}

/// [`launch_conv3d`] by a plan made for this problem and device.
pub(in crate::ops) fn launch_planned<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    slope: f32,
    problem: &Conv3dProblem,
    plan: &Plan,
) {
    let width = vector_width(client, dtype, problem.weight_shape()[1]);
    let launch = Launch { client, dtype, buffers, slope, problem };
    match plan {
        Plan::Naive => launch.direct(1),
        Plan::Direct => launch.direct(channels_a_unit(problem.weight_shape()[0] / problem.params().groups)),
        Plan::Stem(brick) => stem::launch(client, dtype, buffers, problem, brick),
        Plan::Pointwise => pointwise::launch(client, dtype, buffers, problem, width),
        Plan::RegisterBlocked(tiling) => launch.register_blocked(tiling, width),
        Plan::ImplicitGemm(tiling) => launch.implicit_gemm(tiling, width),
        Plan::Halo(tiling) => {
            let Conv3dHandles { x, w, b, y, .. } = buffers;
            halo::launch(client, dtype, HaloInput::Plain(x), HaloBuffers { w, b, y }, problem, tiling, false);
        }
    }
    if !matches!(plan, Plan::RegisterBlocked(_) | Plan::ImplicitGemm(_)) && (buffers.residual.is_some() || slope != 1.0)
    {
        launch.finish_in_place();
    }
}

/// By which kernel a problem is done: by `algorithm`, or by the one that should be fastest.
///
/// # Errors
/// As [`launch_conv3d`].
pub(in crate::ops) fn plan<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<Plan> {
    let facts = facts(client, dtype, problem.weight_shape()[1]);
    match algorithm {
        None => algorithm::choose(problem, &facts),
        chosen => algorithm::plan(problem, &facts, chosen),
    }
}

/// What every kernel is launched with.
struct Launch<'a, R: Runtime> {
    client: &'a ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'a>,
    slope: f32,
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

    /// Voxels of the output, and cubes that make `tiling`'s tiles and splits of it.
    fn rows_and_cubes(&self, tiling: &Tiling) -> (usize, CubeCount) {
        let [n, co, od, oh, ow] = self.problem.output_shape();
        let rows = n * od * oh * ow;
        (rows, cube_grid(rows.div_ceil(tiling.tiles.m) * co.div_ceil(tiling.tiles.n) * tiling.splits))
    }

    /// The epilogue as the kernels take it; `bias` of them.
    fn epilogue(&self) -> EpilogueLaunch<R> {
        let Conv3dHandles { b, residual, .. } = self.buffers;
        EpilogueLaunch::new(b.is_some().into(), residual.is_some().into(), self.slope)
    }

    /// `channels` outputs a unit, a divisor of a group's.
    fn direct(&self, channels: usize) {
        let Conv3dHandles { x, w, b, y, .. } = self.buffers;
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
        let Conv3dHandles { x, w, b, .. } = self.buffers;
        let [x_len, w_len, b_len, _] = self.lengths();
        let (rows, count) = self.rows_and_cubes(tiling);
        let bias = bias_or_nothing(self.client, b);
        let target = self.target(tiling);
        // SAFETY: outputs are stored below `rows`, co and the splits; inputs are loaded where the tap's bits say that they
        // exist, else from element 0; the tiling divides its tiles among its units (a test), so shared indices stay in
        // their stage; the residual is read where it is there, at the element that is stored.
        with_float!(self.dtype, F => with_float!(target.dtype, O => unsafe {
            register_blocked::conv3d_register_blocked::launch_unchecked::<F, O, R>(
                self.client,
                count,
                CubeDim::new_1d(tiling.tiles.units as u32),
                width,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(&target.residual, target.residual_len),
                array(&target.y, target.len),
                self.problem.geometry(),
                rows,
                tiling.splits,
                target.epilogue(self),
                tiling.tiles,
                tiling.block,
            )
        }));
        self.finish_parts(tiling, &target);
    }

    fn implicit_gemm(&self, tiling: &Tiling, width: usize) {
        let Conv3dHandles { x, w, b, .. } = self.buffers;
        let [x_len, w_len, b_len, _] = self.lengths();
        let (rows, count) = self.rows_and_cubes(tiling);
        let bias = bias_or_nothing(self.client, b);
        let target = self.target(tiling);
        // SAFETY: as above; `pair` divides co, so a store never crosses into the next voxel.
        with_float!(self.dtype, F => with_float!(target.dtype, O => unsafe {
            implicit_gemm::conv3d_implicit_gemm::launch_unchecked::<F, O, R>(
                self.client,
                count,
                CubeDim::new_1d(tiling.tiles.units as u32),
                width,
                self.pair(),
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(&target.residual, target.residual_len),
                array(&target.y, target.len),
                self.problem.geometry(),
                rows,
                tiling.splits,
                target.epilogue(self),
                tiling.tiles,
                tiling.planes,
                tiling.step,
            )
        }));
        self.finish_parts(tiling, &target);
    }

    /// Channels that a unit stores at a time.
    fn pair(&self) -> usize {
        if self.problem.weight_shape()[0].is_multiple_of(2) { 2 } else { 1 }
    }

    /// What a kernel that may split its sums writes.
    fn target(&self, tiling: &Tiling) -> Target {
        let y_len = self.lengths()[3];
        let nothing = || self.client.empty(size_of::<f32>());
        if tiling.splits > 1 {
            let len = tiling.splits * y_len;
            let y = self.client.empty(len * size_of::<f32>());
            return Target { dtype: DType::F32, y, len, residual: nothing(), residual_len: 1, parts: true };
        }
        let (residual, residual_len) = self.buffers.residual.map_or_else(|| (nothing(), 1), |r| (r.clone(), y_len));
        Target { dtype: self.dtype, y: self.buffers.y.clone(), len: y_len, residual, residual_len, parts: false }
    }

    /// The sum of the parts and the epilogue, where sums were split.
    fn finish_parts(&self, tiling: &Tiling, target: &Target) {
        if !target.parts {
            return;
        }
        let Conv3dHandles { b, residual, y, .. } = self.buffers;
        let ([_, _, b_len, y_len], pair) = (self.lengths(), self.pair());
        let (count, dim) = grid(y_len / pair);
        let bias = b.cloned().unwrap_or_else(|| self.client.empty(pair * size_of::<f32>()));
        let rest = residual.cloned().unwrap_or_else(|| self.client.empty(pair * size_of::<f32>()));
        // SAFETY: a unit writes the vector of its position, below the length of y, and reads it in each of the splits, in
        // the residual and, by its channel, in the bias, where those are there.
        with_float!(self.dtype, F => unsafe {
            finish::finish_parts::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                pair,
                array(&target.y, target.len),
                array(&bias, b_len.max(pair)),
                array(&rest, if residual.is_some() { y_len } else { pair }),
                array(y, y_len),
                tiling.splits,
                self.problem.weight_shape()[0] / pair,
                self.epilogue(),
            )
        });
    }

    /// Residual and activation over an output that is there.
    fn finish_in_place(&self) {
        let Conv3dHandles { residual, y, .. } = self.buffers;
        let y_len = self.lengths()[3];
        let width = vector_width(self.client, self.dtype, self.problem.weight_shape()[0]);
        let (count, dim) = grid(y_len / width);
        let rest = residual.cloned().unwrap_or_else(|| self.client.empty(width * size_of::<f32>()));
        // SAFETY: a unit reads and writes the vector of its position, below the length of y and of a residual that is there.
        with_float!(self.dtype, F => unsafe {
            finish::finish_in_place::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                width,
                array(&rest, if residual.is_some() { y_len } else { width }),
                array(y, y_len),
                self.epilogue(),
            )
        });
    }
}

/// Where a kernel that may split its sums stores them: straight into the output, or in parts of f32.
struct Target {
    dtype: DType,
    y: Handle,
    len: usize,
    residual: Handle,
    residual_len: usize,
    parts: bool,
}

impl Target {
    /// Parts are summed up before anything is done to them.
    fn epilogue<R: Runtime>(&self, launch: &Launch<'_, R>) -> EpilogueLaunch<R> {
        if self.parts { EpilogueLaunch::new(0, 0, 1.0) } else { launch.epilogue() }
    }
}
