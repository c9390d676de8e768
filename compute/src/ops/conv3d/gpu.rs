//! Launching convolutions on raw handles.

use cubecl::prelude::*;
use cubecl::server::Handle;

use super::halo_launch::{self, After, HaloBuffers, HaloInput};
use super::launch::Launch;
use crate::device::Gpu;
use crate::error::Result;
use crate::ops::conv_plan::{Conv3dAlgorithm, Conv3dKernel, Conv3dPlan, DeviceCaps, choose_conv3d, plan};
use crate::ops::conv_problem::Conv3dProblem;
use crate::ops::launch::launches;
use crate::tensor::DType;

pub use super::launch::Conv3dHandles;

launches! {
    pub(crate) trait Conv3dLaunches {
        fn conv3d_planned = launch_planned(
            dtype: DType, buffers: Conv3dHandles<'_>, slope: f32, problem: &Conv3dProblem, plan: &Conv3dPlan,
        ) -> Result<()>;
    }
}

/// y = leaky_relu(conv3d(x, w) + b + residual, slope), where a slope of 1 leaves values as they are, over
/// buffers of `dtype` (a float type) that hold the problem's tensors; by `algorithm`, or by the one that should be fastest,
/// in f32 without tf32.
///
/// # Errors
/// A problem that the algorithm cannot do; a dtype that is not a float type; a buffer that is too short.
pub fn launch_conv3d<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    slope: f32,
    problem: &Conv3dProblem,
    algorithm: Option<Conv3dAlgorithm>,
) -> Result<()> {
    let plan = plan(problem, &DeviceCaps::of_client(client, dtype, false), algorithm)?;
    launch_planned(client, dtype, buffers, slope, problem, &plan)
}

/// [`launch_conv3d`] by a plan made for this problem and device.
pub(in crate::ops) fn launch_planned<R: Runtime>(
    client: &ComputeClient<R>,
    dtype: DType,
    buffers: Conv3dHandles<'_>,
    slope: f32,
    problem: &Conv3dProblem,
    plan: &Conv3dPlan,
) -> Result<()> {
    buffers.fit(dtype, problem)?;
    let launch = Launch { client, dtype, buffers, slope, problem, plan };
    match &plan.kernel {
        Conv3dKernel::Naive => launch.direct(1)?,
        Conv3dKernel::Direct { channels } => launch.direct(*channels)?,
        Conv3dKernel::Stem(tile) => launch.stem(tile)?,
        Conv3dKernel::Pointwise { width } => launch.pointwise(*width)?,
        Conv3dKernel::RegisterBlocked(tile) => launch.register_blocked(tile)?,
        Conv3dKernel::ImplicitGemm(tile) => launch.implicit_gemm(tile)?,
        Conv3dKernel::Halo(tile) => {
            let Conv3dHandles { x, w, b, residual, y } = buffers;
            let (input, buffers) = (HaloInput::Plain(x), HaloBuffers { w, b, y });
            let after = After::Epilogue { residual, slope };
            halo_launch::launch(client, dtype, input, buffers, problem, plan, tile, after)?;
        }
    }
    if !plan.fuses_epilogue() && (buffers.residual.is_some() || slope != 1.0) {
        launch.finish_in_place()?;
    }
    Ok(())
}

/// The plan for a convolution on an opened device.
///
/// # Errors
/// A problem that `algorithm` cannot do.
pub(in crate::ops) fn chosen_plan(
    device: &Gpu,
    dtype: DType,
    problem: &Conv3dProblem,
    algorithm: Option<Conv3dAlgorithm>,
) -> Result<Conv3dPlan> {
    choose_conv3d(device, dtype, problem, algorithm, &|[x, w, y]: [&Handle; 3], plan| {
        let buffers = Conv3dHandles { x, w, b: None, residual: None, y };
        device.run(|client| client.conv3d_planned(dtype, buffers, 1.0, problem, plan))
    })
}
