//! Soft Dice and Dice with cross-entropy, with gradients: one pass of sums, one pass of gradients.

mod cpu;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod reference;
mod segmentation;

pub use segmentation::{SegmentationLoss, cross_entropy, segmentation_loss};

use super::span::op_span;
use super::{ensure_float, ensure_same_device, ensure_shape};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor, checked_len};

/// The loss and its gradient by the first argument.
#[derive(Debug, Clone)]
pub struct DiceOutput {
    /// Mean over samples and channels of 1 - Dice.
    pub loss: f32,
    /// d loss / d p, [n, c, d, h, w] of p's dtype.
    pub dp: Tensor,
}

/// The loss and its gradient by the logits.
#[derive(Debug, Clone)]
pub struct DiceCeOutput {
    /// The loss: for [`dice_ce`] mean cross-entropy + mean over samples and channels of 1 - Dice.
    pub loss: f32,
    /// d loss / d logits, [n, c, d, h, w] of the logits' dtype.
    pub dlogits: Tensor,
}

/// loss = mean over n and c of 1 - (2 I + s) / (P + G + s), with I = sum p g, P = sum p, G = sum g over the voxels of
/// one sample and channel and s = `smooth`; and d loss / d p.
///
/// p and g are [n, c, d, h, w] of one float type, used as they are: no softmax, no thresholds. MONAI's `DiceLoss` with
/// `smooth_nr = smooth_dr`. Where P + G + s is 0 (both empty and s = 0) that Dice counts as 1 and its gradient as 0.
///
/// # Errors
/// Shapes, dtypes or devices that differ; an axis of size 0; more elements than kernels index on a GPU; `smooth` negative or not
/// finite; a device that fails.
pub fn dice(p: &Tensor, g: &Tensor, smooth: f32) -> Result<DiceOutput> {
    let _span = op_span!("dice", &[p]);
    ensure_float("dice: p", p)?;
    ensure_same_device("dice: g", p, g)?;
    ensure_shape("dice: g", p.shape(), g)?;
    if g.dtype() != p.dtype() {
        return Err(Error::argument("dice: g: dtype", p.dtype(), g.dtype()));
    }
    let problem = DiceProblem::of("dice", p, smooth)?;
    match p.device() {
        Device::Cpu => {
            let (p, g) = (p.host_floats()?, g.host_floats()?);
            let (loss, coefficients) = problem.finish(&cpu::sums(&problem, p, g));
            let dp = cpu::gradient(&problem, g, &coefficients);
            Ok(DiceOutput { loss: loss as f32, dp: Tensor::host_f32(problem.shape(), dp) })
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            let (loss, coefficients) = problem.finish(&gpu::sums(&device, &problem, p, g)?);
            Ok(DiceOutput { loss: loss as f32, dp: gpu::gradient(&device, &problem, g, &coefficients)? })
        }
    }
}

/// loss = mean over all voxels of -log p[label] + mean over n and c of 1 - (2 I + s) / (P + G + s), with p the softmax
/// of the logits over c, g the one-hot labels, and I, P, G, s as in [`dice`], background included; and d loss / d logits.
///
/// logits [n, c, d, h, w] of a float type, labels u8 [n, 1, d, h, w], each below c.
///
/// # Errors
/// Shapes or devices that do not fit; an axis of size 0; more elements than kernels index on a GPU; a label that is not a channel;
/// `smooth` negative or not finite; a device that fails.
pub fn dice_ce(logits: &Tensor, labels: &Tensor, smooth: f32) -> Result<DiceCeOutput> {
    let _span = op_span!("dice_ce", &[logits]);
    with_cross_entropy("dice_ce", logits, labels, smooth, DiceProblem::finish)
}

/// The mean cross-entropy of the softmax plus a function of its sums against the labels, which returns its value and (a, b) of each
/// sample and channel such that its derivative by a probability p is a g + b; `what` names the op in errors.
fn with_cross_entropy(
    what: &str,
    logits: &Tensor,
    labels: &Tensor,
    smooth: f32,
    finish: impl FnOnce(&DiceProblem, &[Sums]) -> (f64, Vec<[f32; 2]>),
) -> Result<DiceCeOutput> {
    ensure_float(&format!("{what}: logits"), logits)?;
    ensure_same_device(&format!("{what}: labels"), logits, labels)?;
    let [n, _, d, h, w] = logits.shape();
    ensure_shape(format!("{what}: labels"), [n, 1, d, h, w], labels)?;
    if labels.dtype() != DType::U8 {
        return Err(Error::argument(format!("{what}: labels: dtype"), DType::U8, labels.dtype()));
    }
    let problem = DiceProblem::of(what, logits, smooth)?;
    let count = (n * problem.voxels) as f64;
    let (sums, entropy) = match logits.device() {
        Device::Cpu => cpu::cross_entropy_sums(&problem, logits.host_floats()?, labels.host_labels()?),
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => gpu::cross_entropy_sums(&device, &problem, logits, labels)?,
    };
    // The backends only count such labels; their values are searched for here, for the message.
    if entropy.bad_labels > 0.0 {
        let highest = labels.to_u8()?.into_iter().max().unwrap_or(0);
        let expected = format!("labels below {} channels", problem.channels);
        return Err(Error::argument(format!("{what}: labels"), expected, highest));
    }
    let (loss, coefficients) = finish(&problem, &sums);
    let dlogits = match logits.device() {
        Device::Cpu => {
            let (logits, labels) = (logits.host_floats()?, labels.host_labels()?);
            let data = cpu::cross_entropy_gradient(&problem, logits, labels, &coefficients, 1.0 / count);
            Tensor::host_f32(problem.shape(), data)
        }
        #[cfg(feature = "gpu")]
        Device::Gpu(device) => {
            gpu::cross_entropy_gradient(&device, &problem, logits, labels, &coefficients, 1.0 / count)?
        }
    };
    Ok(DiceCeOutput { loss: (loss + entropy.sum / count) as f32, dlogits })
}

/// The problem of both losses: a reduction over `samples` x `voxels` x `channels`, channels innermost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiceProblem {
    /// Number of samples, n.
    samples: usize,
    /// Number of channels, c.
    channels: usize,
    /// Number of voxels, d * h * w.
    voxels: usize,
    shape: Shape,
    smooth: f64,
}

/// I, P and G of one sample and channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    intersection: f64,
    p: f64,
    g: f64,
}

/// The sum of -log p[label] over all voxels with a valid label, and the number of voxels without one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Entropy {
    sum: f64,
    bad_labels: f64,
}

impl DiceProblem {
    fn of(what: &str, x: &Tensor, smooth: f32) -> Result<Self> {
        let problem = Self::new(what, x.shape(), smooth)?;
        #[cfg(feature = "gpu")]
        if x.device() != Device::Cpu {
            super::launch::ensure_addressable(what, &[x.shape()])?;
        }
        Ok(problem)
    }

    /// A problem for operands of `shape` [n, c, d, h, w]; `what` names the op in errors.
    ///
    /// # Errors
    /// An axis of size 0; `smooth` negative or not finite.
    pub fn new(what: &str, shape: Shape, smooth: f32) -> Result<Self> {
        let [n, c, d, h, w] = shape;
        checked_len(what, shape)?;
        if shape.contains(&0) {
            return Err(Error::shape(what, "no axis of size 0", format!("{shape:?}")));
        }
        if !(smooth.is_finite() && smooth >= 0.0) {
            return Err(Error::argument(format!("{what}: smooth"), "a finite number, 0 or more", smooth));
        }
        Ok(Self { samples: n, channels: c, voxels: d * h * w, shape, smooth: smooth.into() })
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    /// The loss, and (a, b) of each sample and channel such that d loss / d p = a g + b.
    fn finish(&self, sums: &[Sums]) -> (f64, Vec<[f32; 2]>) {
        let count = (self.samples * self.channels) as f64;
        let mut loss = 0.0;
        let coefficients = sums
            .iter()
            .map(|s| {
                let (above, below) = (2.0 * s.intersection + self.smooth, s.p + s.g + self.smooth);
                if below == 0.0 {
                    return [0.0, 0.0];
                }
                loss += 1.0 - above / below;
                [(-2.0 / below / count) as f32, (above / (below * below) / count) as f32]
            })
            .collect();
        (loss / count, coefficients)
    }
}
