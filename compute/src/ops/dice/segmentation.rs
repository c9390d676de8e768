//! Losses of training: nnU-Net's Dice with cross-entropy, and cross-entropy alone.

use super::{DiceCeOutput, DiceProblem, Sums, with_cross_entropy};
use crate::error::{Error, Result};
use crate::ops::span::op_span;
use crate::tensor::Tensor;

/// The smallest denominator of a Dice in nnU-Net's loss.
const MIN_DENOMINATOR: f64 = 1e-8;

/// The options of [`segmentation_loss`]. The default is that of nnU-Net's trainer without batch Dice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SegmentationLoss {
    /// Whether sums are taken over the whole batch before the Dice of a class is computed (nnU-Net's `batch_dice`).
    pub batch: bool,
    /// Whether channel 0, the background, has a Dice too (nnU-Net's `do_bg`). The cross-entropy always has it.
    pub background: bool,
    /// Added above and below; not negative.
    pub smooth: f32,
}

impl Default for SegmentationLoss {
    fn default() -> Self {
        Self { batch: false, background: false, smooth: 1e-5 }
    }
}

/// loss = mean over all voxels of -log p[label] - mean over classes of (2 I + s) / max(P + G + s, 1e-8), with p the softmax of the
/// logits over c, g the one-hot labels, I = sum p g, P = sum p, G = sum g and s = `smooth`; and d loss / d logits. Classes are the channels from
/// 1 on, or from 0 on with `background`. Sums are over the voxels of a sample and the mean is over samples too; with `batch` sums are over
/// the batch. nnU-Net v2's `DC_and_CE_loss` with weights of 1 and without an ignored label. (Isensee et al. 2021.)
///
/// logits [n, c, d, h, w] of a float type, labels u8 [n, 1, d, h, w], each below c.
///
/// # Errors
/// Shapes or devices that do not fit; an axis of size 0; no class but a background that is left out; more elements than kernels index on
/// a GPU; a label that is not a channel; `smooth` negative or not finite; a device that fails.
pub fn segmentation_loss(logits: &Tensor, labels: &Tensor, loss: &SegmentationLoss) -> Result<DiceCeOutput> {
    let _span = op_span!("segmentation_loss", &[logits]);
    let [_, channels, ..] = logits.shape();
    if channels == 1 && !loss.background {
        return Err(Error::shape("segmentation_loss: logits", "at least 2 channels without the background", channels));
    }
    with_cross_entropy("segmentation_loss", logits, labels, loss.smooth, |problem, sums| finish(loss, problem, sums))
}

/// loss = mean over samples and voxels of -log p[label] with p the softmax of the logits over c, and d loss / d logits: PyTorch's
/// `cross_entropy`.
///
/// logits [n, c, d, h, w] of a float type (of a classifier [n, c, 1, 1, 1]), labels u8 [n, 1, d, h, w], each below c.
///
/// # Errors
/// Shapes or devices that do not fit; an axis of size 0; more elements than kernels index on a GPU; a label that is not a channel; a device that
/// fails.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<DiceCeOutput> {
    let _span = op_span!("cross_entropy", &[logits]);
    with_cross_entropy("cross_entropy", logits, labels, 0.0, |_, sums| (0.0, vec![[0.0; 2]; sums.len()]))
}

/// Minus the mean Dice, and (a, b) of each sample and channel such that its derivative by p is a g + b.
fn finish(loss: &SegmentationLoss, problem: &DiceProblem, sums: &[Sums]) -> (f64, Vec<[f32; 2]>) {
    let (c, first) = (problem.channels, usize::from(!loss.background));
    // The groups of samples that share a Dice.
    let rows: Vec<Vec<Sums>> = if loss.batch {
        let mut batch = vec![Sums::default(); c];
        for (i, sums) in sums.iter().enumerate() {
            let total = &mut batch[i % c];
            total.intersection += sums.intersection;
            total.p += sums.p;
            total.g += sums.g;
        }
        vec![batch]
    } else {
        sums.chunks(c).map(<[Sums]>::to_vec).collect()
    };
    let terms = (rows.len() * (c - first)) as f64;
    let mut mean = 0.0;
    let mut coefficients = Vec::with_capacity(sums.len());
    for row in &rows {
        for (channel, sums) in row.iter().enumerate() {
            if channel < first {
                coefficients.push([0.0, 0.0]);
                continue;
            }
            let (above, sum) = (2.0 * sums.intersection + problem.smooth, sums.p + sums.g + problem.smooth);
            let below = if sum < MIN_DENOMINATOR { MIN_DENOMINATOR } else { sum };
            mean += above / below / terms;
            // A denominator that was raised does not depend on p.
            let by_denominator = if sum < MIN_DENOMINATOR { 0.0 } else { above / (below * below) / terms };
            coefficients.push([(-2.0 / below / terms) as f32, by_denominator as f32]);
        }
    }
    let shared = coefficients.clone();
    coefficients.extend(shared.iter().cycle().take(sums.len() - shared.len()));
    (-mean, coefficients)
}
