//! Validation as users will run the classifier: the probabilities of a patient's images, averaged.

use std::ops::ControlFlow;

use super::patients::Patient;
use super::record::Validation;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::phase::Subtype;
use crate::pipeline::classify::mean_rows;
use crate::stats;
use crate::tensor::DType;
use crate::training::TrainableResNet;

/// The validation of a network in f32, by the code of inference.
///
/// # Errors
/// No patient; a device that fails; [`Error::Cancelled`] where `progress` breaks.
pub(super) fn validate(
    network: &TrainableResNet,
    patients: &[Patient],
    size: usize,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Validation> {
    let resnet = network.to_resnet(device, DType::F32)?;
    let mut rows = Vec::with_capacity(patients.len());
    for (done, patient) in patients.iter().enumerate() {
        if progress(done, patients.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let mut images = Vec::new();
        for number in 0..patient.images.len() {
            images.extend(resnet.probabilities(&patient.image(number), [1, size, size])?);
        }
        rows.push(mean_rows(images.iter().map(Vec::as_slice)));
    }
    let truth: Vec<Subtype> = patients.iter().map(|patient| patient.subtype).collect();
    score(&rows, &truth)
}

/// The scores of rows of probabilities in class order.
fn score(rows: &[Vec<f32>], truth: &[Subtype]) -> Result<Validation> {
    if rows.is_empty() {
        return Err(Error::argument("training: validation patients", "at least one", 0));
    }
    let rows: Vec<Vec<f64>> = rows.iter().map(|row| row.iter().map(|p| f64::from(*p)).collect()).collect();
    let (mut loss, mut right) = (0.0, 0);
    for (row, subtype) in rows.iter().zip(truth) {
        // The smallest normal f32: a probability of 0 has no logarithm.
        loss -= row[*subtype as usize].max(f64::from(f32::MIN_POSITIVE)).ln();
        right += usize::from(stats::decide(row, None) == *subtype as usize);
    }
    let aucs = Subtype::ALL.into_iter().filter_map(|class| {
        let scores: Vec<f64> = rows.iter().map(|row| row[class as usize]).collect();
        let positive: Vec<bool> = truth.iter().map(|subtype| *subtype == class).collect();
        stats::auc(&scores, &positive)
    });
    let aucs: Vec<f64> = aucs.collect();
    let auc = (!aucs.is_empty()).then(|| aucs.iter().sum::<f64>() / aucs.len() as f64);
    let count = rows.len() as f64;
    Ok(Validation { loss: loss / count, accuracy: right as f64 / count, auc })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Subtype::{Angiomyolipoma as AML, ClearCell as CC, Papillary as P};

    #[test]
    fn scores_are_those_of_the_statistics() {
        let rows = [
            vec![0.0, 0.75, 0.0, 0.25, 0.0],
            vec![0.0, 0.5, 0.0, 0.25, 0.25],
            vec![0.0, 0.25, 0.0, 0.5, 0.25],
            vec![0.0, 0.0, 0.0, 0.0, 1.0],
        ];
        let found = score(&rows, &[AML, P, P, CC]).expect("scores");
        let loss = -(0.75f64.ln() + 0.25f64.ln() + 0.5f64.ln() + 0.0) / 4.0;
        assert!((found.loss - loss).abs() < 1e-12, "{found:?}");
        assert_eq!(found.accuracy, 0.75);
        // AML and ccRCC are perfect; of the pairs of pRCC three and a half of four are in order.
        assert!((found.auc.expect("an AUC") - (1.0 + 1.0 + 3.5 / 4.0) / 3.0).abs() < 1e-12, "{found:?}");
        assert_eq!(score(&rows[..1], &[AML]).expect("scores").auc, None);
        assert!(score(&rows[..1], &[CC]).expect("scores").loss.is_finite());
        assert!(score(&[], &[]).is_err());
    }
}
