//! Launching transposed convolutions on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv_transpose3d::{PlacementLaunch, direct, gemm};
use nephron_kernels::conv3d::GeometryLaunch;

use super::ConvTranspose3dProblem;
use super::algorithm::{self, Algorithm, Plan, Tiling};
use crate::error::{Error, Result};
use crate::ops::conv3d::facts::{Facts, facts};
use crate::ops::conv3d::gpu::{bias_or_nothing, channels_a_unit, windows};
use crate::ops::launch::{WORD, array, cube_grid, elements, fits, grid, launches, vector_width, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait ConvTranspose3dLaunches {
        fn conv_transpose3d_facts = facts_of(dtype: DType, problem: &ConvTranspose3dProblem) -> Facts;
        fn conv_transpose3d_planned = launch_planned(
            dtype: DType, buffers: ConvTranspose3dHandles<'_>, placement: Placement, problem: &ConvTranspose3dProblem,
            plan: &Plan,
        ) -> Result<()>;
    }
}

/// Buffers of a transposed convolution: `b` f32 with a value per output channel, the others of the tensors' type.
#[derive(Clone, Copy)]
pub struct ConvTranspose3dHandles<'a> {
    /// [n, d, h, w, ci].
    pub x: &'a Handle,
    /// [ci, kd, kh, kw, co / groups].
    pub w: &'a Handle,
    /// [co].
    pub b: Option<&'a Handle>,
    /// [n, od, oh, ow, pitch], channels offset to offset + co of every voxel written.
    pub y: &'a Handle,
}

/// Where the output's channels lie in a buffer that may hold others too, such as the skip they are joined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Channels of the buffer.
    pub pitch: usize,
    /// The first of the output's.
    pub offset: usize,
}

impl Placement {
    /// A buffer of the output alone.
    pub fn alone(problem: &ConvTranspose3dProblem) -> Self {
        Self { pitch: problem.output_shape()[1], offset: 0 }
    }
}

/// y = conv_transpose3d(x, w) + b over buffers of `dtype` (a float type) that hold the problem's tensors; by `algorithm`, or by the one that should be fastest.
///
/// # Errors
/// Channels that do not fit into the pitch; a problem that the algorithm cannot do; a dtype that is not a float type; a
/// buffer that is too short.
pub fn launch_conv_transpose3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: ConvTranspose3dHandles<'_>,
    placement: Placement,
    problem: &ConvTranspose3dProblem,
    algorithm: Option<Algorithm>,
) -> Result<()> {
    let facts = facts_of(client, dtype, problem);
    let plan = algorithm::plan(problem, &facts, algorithm)?;
    launch_planned(client, dtype, buffers, placement, problem, &plan)
}

/// What the choice of a kernel needs to know.
pub(super) fn facts_of<R: Runtime>(client: &ComputeClient<R>, dtype: DType, problem: &ConvTranspose3dProblem) -> Facts {
    facts(client, dtype, problem.weight_shape()[0] / problem.groups(), false)
}

/// [`launch_conv_transpose3d`] by a plan made for this problem and device.
///
/// # Errors
/// As [`launch_conv_transpose3d`].
pub(super) fn launch_planned<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: ConvTranspose3dHandles<'_>,
    placement: Placement,
    problem: &ConvTranspose3dProblem,
    plan: &Plan,
) -> Result<()> {
    let Placement { pitch, offset } = placement;
    let co = problem.output_shape()[1];
    if offset.checked_add(co).is_none_or(|end| end > pitch) {
        let found = format!("{co} from {offset} on");
        return Err(Error::argument("conv_transpose3d: channels", format!("at most the buffer's {pitch}"), found));
    }
    let [n, _, od, oh, ow] = problem.output_shape();
    let [x, w] = [problem.input_shape(), problem.weight_shape()].map(|s| elements(&s));
    let (y, size) = (elements(&[n, od, oh, ow, pitch]), dtype.size());
    let read = [("x", buffers.x, x, size), ("weight", buffers.w, w, size), ("y", buffers.y, y, size)];
    fits("conv_transpose3d", &read)?;
    if let Some(b) = buffers.b {
        fits("conv_transpose3d", &[("bias", b, co, WORD)])?;
    }
    let launch = Launch { client, dtype, buffers, placement, problem };
    match plan {
        Plan::Direct => launch.direct(),
        Plan::Gemm(tiling) => {
            launch.gemm(tiling, vector_width(client, dtype, problem.weight_shape()[0] / problem.groups()))
        }
    }
}

/// What every kernel is launched with.
struct Launch<'a, R: Runtime> {
    client: &'a ComputeClient<R>,
    dtype: DType,
    buffers: ConvTranspose3dHandles<'a>,
    placement: Placement,
    problem: &'a ConvTranspose3dProblem,
}

impl<R: Runtime> Launch<'_, R> {
    /// Elements of x, w, b and y's buffer.
    fn lengths(&self) -> [usize; 4] {
        let problem = self.problem;
        let [x, w] = [problem.input_shape(), problem.weight_shape()].map(|s| s.iter().product());
        let [n, co, od, oh, ow] = problem.output_shape();
        [x, w, if self.buffers.b.is_some() { co } else { 1 }, n * od * oh * ow * self.placement.pitch]
    }

    fn geometry(&self) -> GeometryLaunch<R> {
        let problem = self.problem;
        let (groups, weight) = (problem.groups(), problem.weight_shape());
        let steps = [problem.stride(), problem.padding(), problem.dilation()];
        let [z, y, x] = windows(problem.input_shape(), problem.output_shape(), weight, steps);
        GeometryLaunch::new(z, y, x, weight[0] / groups, weight[1], groups)
    }

    fn direct(&self) -> Result<()> {
        let ConvTranspose3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let channels = channels_a_unit(self.problem.weight_shape()[1]);
        let outputs: usize = self.problem.output_shape().iter().product();
        let (count, dim) = grid(outputs / channels)?;
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: a unit writes `channels` of the outputs, whose channels fit into the pitch (checked); the loops are cut to
        // taps whose input voxel exists, and the problem's shapes agree with the buffers.
        with_float!(self.dtype, F => unsafe {
            direct::conv_transpose3d_direct::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                self.geometry(),
                PlacementLaunch::new(self.placement.pitch, self.placement.offset),
                outputs,
                b.is_some(),
                channels,
            )
        });
        Ok(())
    }

    fn gemm(&self, tiling: &Tiling, width: usize) -> Result<()> {
        let ConvTranspose3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let ([m, n, _], t) = (algorithm::product(self.problem), tiling.tiles);
        let Placement { pitch, offset } = self.placement;
        let runs = [self.problem.output_shape()[1], pitch, offset];
        let store = self.client.io_optimized_vector_sizes(self.dtype.size());
        let store = store.filter(|s| *s <= 8).find(|s| runs.iter().all(|r| r.is_multiple_of(*s))).unwrap_or(1);
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: A is read below `m` rows and ci, B below ci rows and `n` columns; a (row, column) is one output, whose
        // channels fit into the pitch (checked), and `store` of them never cross a tap; the tiling divides its tiles among
        // its units (a test), so shared indices stay in their stage.
        with_float!(self.dtype, F => unsafe {
            gemm::conv_transpose3d_gemm::launch_unchecked::<F, R>(
                self.client,
                cube_grid(m.div_ceil(t.m) * n.div_ceil(t.n))?,
                CubeDim::new_1d(t.units as u32),
                width,
                algorithm::pair(self.problem),
                store,
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                self.geometry(),
                PlacementLaunch::new(pitch, offset),
                m,
                b.is_some().into(),
                t,
                tiling.planes,
                tiling.step,
            )
        });
        Ok(())
    }
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
