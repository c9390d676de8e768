//! Launching transposed convolutions on raw handles.

use std::iter;

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv_transpose3d::{PlacementLaunch, direct, gemm};
use nephron_kernels::conv3d::GeometryLaunch;

use crate::device::Gpu;
use crate::error::{Error, Result};
use crate::ops::conv_plan::{
    ConvTranspose3dAlgorithm, ConvTranspose3dKernel, ConvTranspose3dPlan, DeviceCaps, TransposedTile,
    choose_conv_transpose3d, plan,
};
use crate::ops::conv_problem::ConvTranspose3dProblem;
use crate::ops::conv3d::launch::{bias_or_nothing, windows};
use crate::ops::launch::{WORD, array, elements, fits, launches, with_float};
use crate::tensor::DType;

launches! {
    pub(crate) trait ConvTranspose3dLaunches {
        fn conv_transpose3d_planned = launch_planned(
            dtype: DType, buffers: ConvTranspose3dHandles<'_>, placement: Placement, problem: &ConvTranspose3dProblem,
            plan: &ConvTranspose3dPlan,
        ) -> Result<()>;
    }
}

/// Buffers of a transposed convolution: `b` f32 with one value per output channel, the others of the tensors' type.
#[derive(Clone, Copy)]
pub struct ConvTranspose3dHandles<'a> {
    /// Input, [n, d, h, w, ci].
    pub x: &'a Handle,
    /// Weight, [ci, kd, kh, kw, co / groups].
    pub w: &'a Handle,
    /// Bias, [co].
    pub b: Option<&'a Handle>,
    /// Output, [n, od, oh, ow, pitch]: channels offset to offset + co of every voxel are written.
    pub y: &'a Handle,
}

/// Where the output's channels lie in a buffer that may hold others too, such as the skip they are joined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Channels of the buffer.
    pub pitch: usize,
    /// The channel of the buffer that is the first of the output.
    pub offset: usize,
}

impl Placement {
    /// The placement in a buffer that holds the output alone.
    pub fn alone(problem: &ConvTranspose3dProblem) -> Self {
        Self { pitch: problem.output_shape()[1], offset: 0 }
    }

    /// The largest part of `store` channels (a power of two) that are stored at once without crossing into channels of
    /// others.
    fn narrowed(&self, store: usize) -> usize {
        let divides = |s: usize| self.pitch.is_multiple_of(s) && self.offset.is_multiple_of(s);
        iter::successors(Some(store), |s| Some(s / 2)).find(|s| divides(*s)).unwrap_or(1)
    }
}

/// y = conv_transpose3d(x, w) + b over buffers of `dtype` (a float type) that hold the problem's tensors; by `algorithm`, or
/// by the one that should be fastest.
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
    algorithm: Option<ConvTranspose3dAlgorithm>,
) -> Result<()> {
    let plan = plan(problem, &DeviceCaps::of_client(client, dtype, false), algorithm)?;
    launch_planned(client, dtype, buffers, placement, problem, &plan)
}

/// The plan for a transposed convolution on an opened device.
///
/// # Errors
/// A problem that `algorithm` cannot do.
pub(super) fn chosen_plan(
    device: &Gpu,
    dtype: DType,
    problem: &ConvTranspose3dProblem,
    algorithm: Option<ConvTranspose3dAlgorithm>,
) -> Result<ConvTranspose3dPlan> {
    choose_conv_transpose3d(device, dtype, problem, algorithm, &|[x, w, y]: [&Handle; 3], plan| {
        let buffers = ConvTranspose3dHandles { x, w, b: None, y };
        let placement = Placement::alone(problem);
        device.run(|client| client.conv_transpose3d_planned(dtype, buffers, placement, problem, plan))
    })
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
    plan: &ConvTranspose3dPlan,
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
    let launch = Launch { client, dtype, buffers, placement, problem, plan };
    match &plan.kernel {
        ConvTranspose3dKernel::Direct { channels } => launch.direct(*channels),
        ConvTranspose3dKernel::Gemm(tile) => launch.gemm(tile),
    }
}

/// What every kernel is launched with.
struct Launch<'a, R: Runtime> {
    client: &'a ComputeClient<R>,
    dtype: DType,
    buffers: ConvTranspose3dHandles<'a>,
    placement: Placement,
    problem: &'a ConvTranspose3dProblem,
    plan: &'a ConvTranspose3dPlan,
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

    fn direct(&self, channels: usize) -> Result<()> {
        let ConvTranspose3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let outputs: usize = self.problem.output_shape().iter().product();
        let (count, dim) = self.plan.grid.dimensions()?;
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: a thread writes `channels` of the outputs, whose channels fit into the pitch (checked). The loops are cut
        // to taps whose input voxel exists, and the problem's shapes agree with the buffers.
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

    fn gemm(&self, tile: &TransposedTile) -> Result<()> {
        let ConvTranspose3dHandles { x, w, b, y } = self.buffers;
        let [x_len, w_len, b_len, y_len] = self.lengths();
        let (count, dim) = self.plan.grid.dimensions()?;
        let Placement { pitch, offset } = self.placement;
        let [n, _, d, h, width] = self.problem.input_shape();
        let rows = n * d * h * width;
        let bias = bias_or_nothing(self.client, b);
        // SAFETY: A is read below `rows` and ci, B below ci rows and its columns. A (row, column) is one output, whose
        // channels fit into the pitch (checked), and those stored at once never cross a tap. The threads of a cube share
        // its tile out evenly (a test), so shared indices stay in their stage.
        with_float!(self.dtype, F => unsafe {
            gemm::conv_transpose3d_gemm::launch_unchecked::<F, R>(
                self.client,
                count,
                dim,
                tile.width,
                tile.pair,
                self.placement.narrowed(tile.store),
                array(x, x_len),
                array(w, w_len),
                array(&bias, b_len),
                array(y, y_len),
                self.geometry(),
                PlacementLaunch::new(pitch, offset),
                rows,
                b.is_some().into(),
                tile.tiles,
                tile.planes,
                tile.step,
            )
        });
        Ok(())
    }
}

#[cfg(test)]
#[path = "gpu_tests.rs"]
mod tests;
