//! What the launches of all kernels share: buffers, sizes, and the pass behind kernels that do not finish their output.

use cubecl::prelude::*;
use cubecl::server::Handle;
use nephron_kernels::conv3d::finish::{self, EpilogueLaunch};
use nephron_kernels::conv3d::{GeometryLaunch, WindowLaunch};

use crate::error::Result;
use crate::ops::conv_plan::Conv3dPlan;
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::launch::{WORD, array, elements, fits, grid, with_float};
use crate::tensor::{DType, Shape};

/// The buffer of an optional bias. Without one the kernel is compiled not to read it.
pub(in crate::ops) fn bias_or_nothing<R: Runtime>(client: &ComputeClient<R>, bias: Option<&Handle>) -> Handle {
    bias.cloned().unwrap_or_else(|| client.empty(size_of::<f32>()))
}

/// How the kernel moves over the spatial axes of `input` and `output`, the last three of each shape.
pub(in crate::ops) fn windows<R: Runtime>(
    input: Shape,
    output: Shape,
    weight: Shape,
    [stride, padding, dilation]: [[usize; 3]; 3],
) -> [WindowLaunch<R>; 3] {
    [0, 1, 2].map(|a| WindowLaunch::new(input[2 + a], output[2 + a], weight[2 + a], stride[a], padding[a], dilation[a]))
}

/// The sizes of a problem as the kernels take them. Channels are those of one group.
pub(in crate::ops) fn geometry<R: Runtime>(problem: &Conv3dProblem) -> GeometryLaunch<R> {
    let p = problem.params();
    let steps = [p.stride, p.padding, p.dilation];
    let [z, y, x] = windows(problem.input_shape(), problem.output_shape(), problem.weight_shape(), steps);
    let [co, ci, ..] = problem.weight_shape();
    GeometryLaunch::new(z, y, x, ci, co / p.groups, p.groups)
}

/// Buffers of a convolution: `b` f32 with one value per output channel, the others of the tensors' type.
#[derive(Debug, Clone, Copy)]
pub struct Conv3dHandles<'a> {
    /// Input, [n, d, h, w, ci].
    pub x: &'a Handle,
    /// Weight, [co, kd, kh, kw, ci / groups].
    pub w: &'a Handle,
    /// Bias, [co].
    pub b: Option<&'a Handle>,
    /// Residual, [n, od, oh, ow, co], added to the output.
    pub residual: Option<&'a Handle>,
    /// Output, [n, od, oh, ow, co], all of it written.
    pub y: &'a Handle,
}

impl Conv3dHandles<'_> {
    /// Refuses buffers that do not hold the problem's tensors.
    pub(super) fn fit(&self, dtype: DType, problem: &Conv3dProblem) -> Result<()> {
        let lengths = [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| elements(&s));
        let [x, w, y] = lengths.map(|len| (len, dtype.size()));
        fits("conv3d", &[("x", self.x, x.0, x.1), ("weight", self.w, w.0, w.1), ("y", self.y, y.0, y.1)])?;
        if let Some(b) = self.b {
            fits("conv3d", &[("bias", b, problem.weight_shape()[0], WORD)])?;
        }
        self.residual.map_or(Ok(()), |residual| fits("conv3d", &[("residual", residual, y.0, y.1)]))
    }
}

/// What every kernel is launched with, beside its own tile.
pub(super) struct Launch<'a, R: Runtime> {
    pub(super) client: &'a ComputeClient<R>,
    pub(super) dtype: DType,
    pub(super) buffers: Conv3dHandles<'a>,
    pub(super) slope: f32,
    pub(super) problem: &'a Conv3dProblem,
    pub(super) plan: &'a Conv3dPlan,
}

impl<R: Runtime> Launch<'_, R> {
    /// Elements of x, w, b and y.
    pub(super) fn lengths(&self) -> [usize; 4] {
        let problem = self.problem;
        let [x, w, y] =
            [problem.input_shape(), problem.weight_shape(), problem.output_shape()].map(|s| s.iter().product());
        [x, w, if self.buffers.b.is_some() { problem.weight_shape()[0] } else { 1 }, y]
    }

    /// The epilogue as the kernels take it.
    pub(super) fn epilogue(&self) -> EpilogueLaunch<R> {
        let Conv3dHandles { b, residual, .. } = self.buffers;
        EpilogueLaunch::new(b.is_some().into(), residual.is_some().into(), self.slope)
    }

    /// Adds the residual and applies the activation to an output that a kernel has stored without them.
    pub(super) fn finish_in_place(&self) -> Result<()> {
        let Conv3dHandles { residual, y, .. } = self.buffers;
        let (y_len, width) = (self.lengths()[3], self.plan.finish_width);
        let (count, dim) = grid(y_len / width)?;
        let rest = residual.cloned().unwrap_or_else(|| self.client.empty(width * size_of::<f32>()));
        // SAFETY: a thread reads and writes the vector at its position, below the length of y and of a residual that
        // exists.
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
