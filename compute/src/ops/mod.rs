//! The operations, each in a module of its own with the same files: `mod.rs` has the public function, its problem struct, validation
//! and choice of algorithm; `gpu.rs` the launch functions; `cpu.rs` the production CPU code; `reference.rs` a plain f64 reference that
//! shares no code with them.

pub mod activation;
pub mod adaptive_pool;
pub mod affine_dice;
pub mod affine_dice_optimizer;
pub mod arithmetic;
pub mod bspline;
pub mod conv3d;
pub mod conv3d_backward;
pub mod conv_block;
#[cfg(feature = "gpu")]
pub mod conv_plan;
pub mod conv_problem;
pub mod conv_transpose3d;
pub mod conv_transpose3d_backward;
pub mod dice;
pub mod gate;
pub mod grid_sample;
pub mod interpolate;
#[cfg(feature = "gpu")]
pub(crate) mod launch;
pub mod linear;
pub mod norm;
pub mod pool;
pub mod resample;
mod sampling;
pub mod sgd;
mod simd;
pub mod softmax;
pub mod span;
pub mod tile;
pub mod warp;

pub use activation::{leaky_relu, leaky_relu_backward, relu};
pub use adaptive_pool::adaptive_avg_pool3d;
pub use affine_dice::{AffineDiceOutput, AffineDiceParams, Channels, affine_dice};
pub use arithmetic::{add, add_leaky_relu, add_scaled, concat, scale, split};
pub use bspline::{bspline_resample3d, bspline_resample3d_slices, bspline_slices};
#[cfg(feature = "gpu")]
pub use conv_block::conv_blocks_by;
pub use conv_block::{ConvBlockNorm, ConvBlockWeights, conv_block, conv_blocks};
#[cfg(feature = "gpu")]
pub use conv_plan::{Conv3dAlgorithm, ConvTranspose3dAlgorithm};
pub use conv_problem::{Conv3dParams, ConvTranspose3dParams};
pub use conv_transpose3d::conv_transpose3d;
#[cfg(feature = "gpu")]
pub use conv_transpose3d::conv_transpose3d_by;
pub use conv_transpose3d_backward::{ConvTranspose3dGradients, conv_transpose3d_backward};
#[cfg(feature = "gpu")]
pub use conv3d::conv3d_by;
pub use conv3d::{Epilogue as ConvEpilogue, conv3d, conv3d_then};
pub use conv3d_backward::{Conv3dGradients, conv3d_backward, conv3d_backward_weights};
pub use dice::{DiceCeOutput, DiceOutput, SegmentationLoss, cross_entropy, dice, dice_ce, segmentation_loss};
pub use gate::gated_residual;
pub use grid_sample::{PaddingMode, SampleMode, affine_grid3d, grid_sample3d};
pub use interpolate::{InterpolateMode, interpolate3d};
#[cfg(feature = "gpu")]
pub use launch::MAX_ELEMENTS;
pub use linear::{LinearGradients, linear, linear_backward};
pub use norm::{
    BatchNormOutput, NormGradients, batch_norm, batch_norm_train, batch_norm_train_backward, instance_norm,
    instance_norm_backward,
};
pub use pool::{Pool3dParams, avg_pool3d, avg_pool3d_backward, max_pool3d, max_pool3d_backward};
pub use resample::{Intensity, Interpolation, Outside, ResampleParams, resample};
pub use sgd::{sgd_step, squared_norm};
pub use softmax::{argmax, softmax};
pub use warp::{affine_warp3d, warp3d};

use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor};

/// The launch functions of all ops, for the client of any runtime, as a [`Gpu`](crate::device::Gpu) holds it.
#[cfg(feature = "gpu")]
pub(crate) trait Launches:
    crate::device::client::Client
    + activation::gpu::ActivationLaunches
    + adaptive_pool::gpu::AdaptivePoolLaunches
    + affine_dice::launches::AffineDiceLaunches
    + arithmetic::gpu::ArithmeticLaunches
    + bspline::gpu::BsplineLaunches
    + conv3d::gpu::Conv3dLaunches
    + conv3d_backward::gpu::Conv3dBackwardLaunches
    + conv_block::gpu::ConvBlockLaunches
    + conv_plan::ConvPlanLaunches
    + conv_transpose3d::gpu::ConvTranspose3dLaunches
    + dice::gpu::DiceLaunches
    + gate::gpu::GateLaunches
    + grid_sample::gpu::GridSampleLaunches
    + interpolate::gpu::InterpolateLaunches
    + linear::backward_gpu::LinearBackwardLaunches
    + linear::gpu::LinearLaunches
    + norm::backward_gpu::NormBackwardLaunches
    + norm::gpu::NormLaunches
    + pool::backward_gpu::PoolBackwardLaunches
    + pool::gpu::PoolLaunches
    + resample::gpu::ResampleLaunches
    + sgd::gpu::SgdLaunches
    + softmax::gpu::SoftmaxLaunches
    + tile::gpu::TileLaunches
    + warp::gpu::WarpLaunches
{
}

#[cfg(feature = "gpu")]
impl<R: cubecl::Runtime> Launches for cubecl::client::ComputeClient<R> {}

/// Checks that a tensor has a float type, as every arithmetic op requires.
///
/// # Errors
/// [`Error::Argument`] for another type.
pub fn ensure_float(what: &str, x: &Tensor) -> Result<()> {
    if x.dtype().is_float() {
        Ok(())
    } else {
        Err(Error::argument(format!("{what}: dtype"), "f32, f16 or bf16", x.dtype()))
    }
}

/// Checks that two operands are on one device.
///
/// # Errors
/// [`Error::Argument`] for operands on different devices.
pub fn ensure_same_device(what: &str, x: &Tensor, y: &Tensor) -> Result<()> {
    let (expected, found) = (x.device(), y.device());
    if expected == found {
        Ok(())
    } else {
        Err(Error::argument(format!("{what}: device"), expected.name(), found.name()))
    }
}

/// Checks that two operands have the same type.
///
/// # Errors
/// [`Error::Argument`] for operands of different types.
pub fn ensure_same_dtype(what: &str, x: &Tensor, y: &Tensor) -> Result<()> {
    if x.dtype() == y.dtype() { Ok(()) } else { Err(Error::argument(format!("{what}: dtype"), x.dtype(), y.dtype())) }
}

/// Checks that operands share the float type and the device of `x`.
///
/// # Errors
/// An operand of another type or on another device.
pub fn ensure_operands(op: &str, x: &Tensor, others: &[(&str, &Tensor)]) -> Result<()> {
    ensure_float(op, x)?;
    for (name, other) in others {
        ensure_same_device(&format!("{op}: {name}"), x, other)?;
        if other.dtype() != x.dtype() {
            return Err(Error::argument(format!("{op}: dtype of {name}"), x.dtype(), other.dtype()));
        }
    }
    Ok(())
}

/// Checks that a tensor, which messages call `what`, has a shape.
///
/// # Errors
/// Another shape.
pub fn ensure_shape(what: impl Into<String>, expected: Shape, tensor: &Tensor) -> Result<()> {
    let found = tensor.shape();
    if found == expected { Ok(()) } else { Err(Error::shape(what, format!("{expected:?}"), format!("{found:?}"))) }
}

/// Checks that a parameter has one value for each channel: f32 [1, c, 1, 1, 1] on the device of `x`.
///
/// # Errors
/// Another shape, type or device.
pub fn ensure_vector(what: &str, x: &Tensor, parameter: &Tensor, channels: usize) -> Result<()> {
    ensure_same_device(what, x, parameter)?;
    ensure_shape(what, [1, channels, 1, 1, 1], parameter)?;
    if parameter.dtype() != DType::F32 {
        return Err(Error::argument(format!("{what}: dtype"), DType::F32, parameter.dtype()));
    }
    Ok(())
}
