//! Planning on an opened device: its options, what it planned before, and the model or the clock.

use std::path::Path;

use super::algorithm::{Conv3dAlgorithm, ConvTranspose3dAlgorithm};
use super::autotune::{LaunchOn, tuned_plan};
use super::capabilities::DeviceCaps;
use super::choices::{Choices, Plans};
use super::plan::{Conv3dPlan, ConvTranspose3dPlan, Convolution, plan};
use crate::device::Autotune;
use crate::device::gpu::Gpu;
use crate::error::Result;
use crate::ops::conv_problem::{Conv3dProblem, ConvTranspose3dProblem};
use crate::tensor::DType;

/// The plan for a forward convolution on a device: by `algorithm`, by the kernel that the device's options prefer, by timing
/// (with `launch`) if the options ask for it, else by the cost model.
///
/// # Errors
/// A problem that `algorithm` cannot do.
pub(crate) fn choose_conv3d(
    device: &Gpu,
    dtype: DType,
    problem: &Conv3dProblem,
    algorithm: Option<Conv3dAlgorithm>,
    launch: LaunchOn<'_, Conv3dPlan>,
) -> Result<Conv3dPlan> {
    let plans = &device.choices().conv3d;
    choose(device, dtype, problem, algorithm, device.options().conv3d, plans, launch)
}

/// The plan for a transposed convolution on a device, as [`choose_conv3d`]. Without timing the matrix product is taken
/// where it can be done.
///
/// # Errors
/// As [`choose_conv3d`].
pub(crate) fn choose_conv_transpose3d(
    device: &Gpu,
    dtype: DType,
    problem: &ConvTranspose3dProblem,
    algorithm: Option<ConvTranspose3dAlgorithm>,
    launch: LaunchOn<'_, ConvTranspose3dPlan>,
) -> Result<ConvTranspose3dPlan> {
    let plans = &device.choices().conv_transpose3d;
    choose(device, dtype, problem, algorithm, device.options().conv_transpose3d, plans, launch)
}

fn choose<C: Convolution>(
    device: &Gpu,
    dtype: DType,
    problem: &C,
    algorithm: Option<C::Algorithm>,
    preferred: Option<C::Algorithm>,
    plans: &Plans<C>,
    launch: LaunchOn<'_, C::Plan>,
) -> Result<C::Plan> {
    let caps = DeviceCaps::of(device, dtype);
    if algorithm.is_some() {
        return plan(problem, &caps, algorithm);
    }
    let tuned = |cache: Option<&Path>| tuned_plan(device, problem, &caps, cache, launch);
    plans.get_or_make(problem, &caps, || match (&device.options().autotune, preferred) {
        (Autotune::InMemory, None) => tuned(None),
        (Autotune::Cached(file), None) => tuned(Some(file)),
        _ => preferred_plan(problem, &caps, preferred, device.choices()),
    })
}

/// The plan of `preferred` where that can do the problem, else the best of all. The choice is logged.
fn preferred_plan<C: Convolution>(
    problem: &C,
    caps: &DeviceCaps,
    preferred: Option<C::Algorithm>,
    choices: &Choices,
) -> Result<C::Plan> {
    let chosen = plan(problem, caps, preferred);
    let refused = preferred.and(chosen.as_ref().err().map(ToString::to_string));
    let chosen = if refused.is_some() { plan(problem, caps, None)? } else { chosen? };
    choices.log_choice(|| {
        let why = if refused.is_some() { ", the preferred kernel cannot" } else { "" };
        let ([x, w, _], [m, n, k]) = (problem.shapes(), problem.product());
        format!("{} {} {x:?} by {w:?} ({m} x {n} x {k}): {chosen}{why}", C::OP, caps.dtype)
    });
    if let Some(reason) = refused {
        choices.warn(format!("{reason}; {} instead", C::algorithm_of(&chosen)));
    }
    Ok(chosen)
}
