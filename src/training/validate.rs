//! Validation as users will run the network: the whole pipeline on whole scans.

use std::ops::ControlFlow;

use super::data::{Case, RawDataset};
use super::network::TrainableUNet;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::UNetPlan;
use crate::pipeline::{Scan, SegmentOptions, Segmenter};
use crate::shown;
use crate::tensor::DType;

/// The Dice of each label, the background left out, averaged over cases that are segmented by the sliding window of
/// [`Segmenter::segment_scan`] in f32, without mirroring. A label that a case lacks and the network does not find counts as 1.
///
/// # Errors
/// No case; as [`RawDataset::read`] and [`Segmenter::segment_scan`]; [`Error::Cancelled`] where `progress` breaks. The message names
/// the case.
pub fn validate(
    dataset: &RawDataset,
    cases: &[&Case],
    plan: &UNetPlan,
    network: &TrainableUNet,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<f64>> {
    if cases.is_empty() {
        return Err(Error::argument("training: validation cases", "at least one", 0));
    }
    let segmenter = Segmenter::new(plan.clone(), vec![network.to_unet(device, DType::F32)?])?;
    let labels: Vec<u8> = plan.labels.targets().iter().map(|target| target.value).collect();
    let mut sums = vec![0.0; labels.len()];
    for (done, case) in cases.iter().enumerate() {
        if progress(done, cases.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let named = |e: Error| e.context(format!("case {}", shown(&case.name)));
        let read = dataset.read(case)?;
        let scan = Scan { channels: &read.channels, spacing: Some(read.spacing), previous: None };
        let found = segmenter.segment_scan(scan, &SegmentOptions::default(), &mut |_| ControlFlow::Continue(()));
        let found = found.map_err(named)?;
        for (sum, label) in sums.iter_mut().zip(&labels) {
            *sum += found.mask.dice(&read.labels, &[*label]).map_err(named)?;
        }
    }
    Ok(sums.into_iter().map(|sum| sum / cases.len() as f64).collect())
}
