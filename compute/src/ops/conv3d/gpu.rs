//! Launching convolutions on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::finish::{self, EpilogueLaunch};
use nephron_kernels::conv3d::{GeometryLaunch, WindowLaunch, direct};

use super::algorithm::{self, Algorithm, Plan};
use super::facts::{Facts, facts};
use super::halo::{self, After, HaloBuffers, HaloInput};
use super::{Conv3dProblem, pointwise, stem};
use crate::error::Result;
use crate::ops::launch::{WORD, array, elements, fits, grid, launches, vector_width, with_float};
use crate::tensor::{DType, Shape};

launches! {
    pub(crate) trait Conv3dLaunches {
        fn conv_facts = facts(dtype: DType, ci: usize, tf32: bool) -> Facts;
        fn conv3d_planned = launch_planned(
            dtype: DType, buffers: Conv3dHandles<'_>, slope: f32, problem: &Conv3dProblem, plan: &Plan,
        ) -> Result<()>;
    }
}

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

impl Conv3dHandles<'_> {
    /// Refuses buffers that do not hold the problem's tensors.
    fn fit(&self, dtype: DType, problem: &Conv3dProblem) -> Result<()> {
        let lengths = [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| elements(&s));
        let [x, w, y] = lengths.map(|len| (len, dtype.size()));
        fits("conv3d", &[("x", self.x, x.0, x.1), ("weight", self.w, w.0, w.1), ("y", self.y, y.0, y.1)])?;
        if let Some(b) = self.b {
            fits("conv3d", &[("bias", b, problem.weight_shape()[0], WORD)])?;
        }
        self.residual.map_or(Ok(()), |residual| fits("conv3d", &[("residual", residual, y.0, y.1)]))
    }
}

/// y = leaky_relu(conv3d(x, w) + b + residual, slope), where a slope of 1 leaves values as they are, over
/// buffers of `dtype` (a float type) that hold the problem's tensors; by `algorithm`, or by the one that should be fastest.
///
/// # Errors
/// A problem that the algorithm cannot do; a dtype that is not a float type; a buffer that is too short.
pub fn launch_conv3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    slope: f32,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<()> {
    launch_planned(client, dtype, buffers, slope, problem, &plan(client, dtype, problem, algorithm)?)
}

/// [`launch_conv3d`] by a plan made for this problem and device.
pub(in crate::ops) fn launch_planned<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    slope: f32,
    problem: &Conv3dProblem,
    plan: &Plan,
) -> Result<()> {
    buffers.fit(dtype, problem)?;
    let width = vector_width(client, dtype, problem.weight_shape()[1]);
    let launch = Launch { client, dtype, buffers, slope, problem };
    match plan {
        Plan::Naive => launch.direct(1)?,
        Plan::Direct => launch.direct(channels_a_unit(problem.weight_shape()[0] / problem.params().groups))?,
        Plan::Stem(brick) => stem::launch(client, dtype, buffers, problem, brick)?,
        Plan::Pointwise => pointwise::launch(client, dtype, buffers, problem, width)?,
        Plan::RegisterBlocked(tiling) => launch.register_blocked(tiling, width)?,
        Plan::ImplicitGemm(tiling) => launch.implicit_gemm(tiling, width)?,
        Plan::Halo(tiling) => {
            let Conv3dHandles { x, w, b, residual, y } = buffers;
            let after = After::Epilogue { residual, slope };
            halo::launch(client, dtype, HaloInput::Plain(x), HaloBuffers { w, b, y }, problem, tiling, after)?;
        }
    }
    let stored = matches!(plan, Plan::RegisterBlocked(_) | Plan::ImplicitGemm(_) | Plan::Halo(_));
    if !stored && (buffers.residual.is_some() || slope != 1.0) {
        launch.finish_in_place()?;
    }
    Ok(())
}

/// By which kernel a problem is done: by `algorithm`, or by the one that should be fastest; in f32 without tf32.
///
/// # Errors
/// As [`launch_conv3d`].
pub(in crate::ops) fn plan<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    problem: &Conv3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<Plan> {
    algorithm::plan(problem, &facts(client, dtype, problem.weight_shape()[1], false), algorithm)
}

/// What every kernel is launched with.
pub(super) struct Launch<'a, R: Runtime> {
    pub(super) client: &'a ComputeClient<R>,
    pub(super) dtype: DType,
    pub(super) buffers: Conv3dHandles<'a>,
    pub(super) slope: f32,
    pub(super) problem: &'a Conv3dProblem,
}

impl<R: Runtime> Launch<'_, R> {
    /// Elements of x, w, b and y.
    pub(super) fn lengths(&self) -> [usize; 4] {
        let problem = self.problem;
        let [x, w, y] =
            [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
        [x, w, if self.buffers.b.is_some() { problem.weight_shape()[0] } else { 1 }, y]
    }

    /// The epilogue as the kernels take it; `bias` of them.
    pub(super) fn epilogue(&self) -> EpilogueLaunch<R> {
        let Conv3dHandles { b, residual, .. } = self.buffers;
        EpilogueLaunch::new(b.is_some().into(), residual.is_some().into(), self.slope)
    }

    /// `channels` outputs a unit, a divisor of a group's.
    fn direct(&self, channels: usize) -> Result<()> {
        let Conv3dHandles { x, w, b, y, .. } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = grid(y_len / channels)?;
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
        Ok(())
    }

    /// Residual and activation over an output that is there.
    fn finish_in_place(&self) -> Result<()> {
        let Conv3dHandles { residual, y, .. } = self.buffers;
        let y_len = self.lengths()[3];
        let width = vector_width(self.client, self.dtype, self.problem.weight_shape()[0]);
        let (count, dim) = grid(y_len / width)?;
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
        Ok(())
    }
}
