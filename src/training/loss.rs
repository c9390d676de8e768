//! nnU-Net's loss over the heads of a network: Dice with cross-entropy at every resolution.

use crate::error::{Error, Result};
use crate::ops::{SegmentationLoss, scale, segmentation_loss};
use crate::tensor::Tensor;

/// The weights of the heads, the full resolution first: 1/2^i, the last 0, of sum 1. One head alone has the weight 1.
pub fn head_weights(heads: usize) -> Vec<f64> {
    let used = if heads > 1 { heads - 1 } else { heads };
    let total: f64 = (0..used).map(|i| 0.5f64.powi(i as i32)).sum();
    (0..heads).map(|i| if i < used { 0.5f64.powi(i as i32) / total } else { 0.0 }).collect()
}

/// The weighted sum of the losses of the heads, and its gradient by the logits of each: None where the weight is 0.
///
/// # Errors
/// Another number of labels than heads; as [`segmentation_loss`].
pub fn deep_supervision(
    logits: &[Tensor],
    labels: &[Tensor],
    loss: &SegmentationLoss,
) -> Result<(f64, Vec<Option<Tensor>>)> {
    if logits.len() != labels.len() {
        return Err(Error::argument("training: labels of heads", logits.len(), labels.len()));
    }
    let (mut total, mut gradients) = (0.0, Vec::with_capacity(logits.len()));
    for ((logits, labels), weight) in logits.iter().zip(labels).zip(head_weights(logits.len())) {
        if weight == 0.0 {
            gradients.push(None);
            continue;
        }
        let found = segmentation_loss(logits, labels, loss)?;
        total += weight * f64::from(found.loss);
        gradients.push(Some(scale(&found.dlogits, weight as f32)?));
    }
    Ok((total, gradients))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_nnunets() {
        assert_eq!(head_weights(1), [1.0]);
        assert_eq!(head_weights(2), [1.0, 0.0]);
        assert_eq!(head_weights(4), [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0, 0.0]);
    }
}
