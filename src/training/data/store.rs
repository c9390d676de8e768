//! Prepared cases in memory, and where each class lies in them.

use std::ops::ControlFlow;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::dataset::{Case, RawDataset};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::{Normalization, UNetPlan};
use crate::pipeline::Scan;
use crate::pipeline::training_case::{OUTSIDE, TrainingCase};
use crate::shown;

/// The label of voxels outside the image's non-zero part: background without a vote. nnU-Net's -1.
pub const NO_LABEL: u8 = OUTSIDE;

/// Voxels of a class that are kept for placing patches: all up to this number, a hundredth of more than a hundred times as many.
const LOCATIONS: usize = 10_000;
const SHARE: f64 = 0.01;
/// nnU-Net's seed of their choice; its generator is another one.
const SEED: u64 = 1234;

/// A case in the network's axes and spacing, normalised.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of the case.
    pub name: String,
    /// The image, in the order c, z, y, x.
    pub image: Vec<f32>,
    /// The label of each voxel; [`NO_LABEL`] outside the image's non-zero part.
    pub labels: Vec<u8>,
    /// Voxels along (z, y, x).
    pub shape: [usize; 3],
    /// For each class but the background the offsets of voxels that have it, drawn uniformly and without repetition; empty for a
    /// class that the case lacks.
    pub locations: Vec<Vec<usize>>,
}

impl Sample {
    /// A sample of `classes` classes, the background included.
    ///
    /// # Errors
    /// Lengths that do not belong to the shape; no channel; a label that is neither a class nor [`NO_LABEL`].
    pub fn new(name: &str, image: Vec<f32>, labels: Vec<u8>, shape: [usize; 3], classes: usize) -> Result<Self> {
        let voxels: usize = shape.iter().product();
        if labels.len() != voxels || image.is_empty() || !image.len().is_multiple_of(voxels.max(1)) {
            let expected = format!("{voxels} labels and that many values a channel for {shape:?}");
            return Err(Error::shape("sample", expected, format!("{} and {}", labels.len(), image.len())));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut all = vec![Vec::new(); classes.saturating_sub(1)];
        for (offset, &label) in labels.iter().enumerate() {
            match label {
                0 | NO_LABEL => {}
                label => match all.get_mut(usize::from(label) - 1) {
                    Some(found) => found.push(offset),
                    None => return Err(Error::argument("sample: label", format!("below {classes}"), label)),
                },
            }
        }
        let locations = all.into_iter().map(|found| thinned(found, &mut rng)).collect();
        Ok(Self { name: name.to_owned(), image, labels, shape, locations })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.image.len() / self.labels.len().max(1)
    }
}

fn thinned(found: Vec<usize>, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let kept = found.len().min(LOCATIONS).max((found.len() as f64 * SHARE).ceil() as usize);
    if kept == found.len() {
        return found;
    }
    let mut chosen: Vec<usize> = index::sample(rng, found.len(), kept).into_iter().map(|i| found[i]).collect();
    chosen.sort_unstable();
    chosen
}

/// Prepares cases for a plan, exactly as their images would be prepared to be segmented, and keeps them in memory: 4 bytes for each
/// voxel and channel and 1 for its label. `progress` is called with the number of cases that are done and that of all.
///
/// # Errors
/// As [`RawDataset::read`]; what segmentation refuses; a plan that needs the mask of a previous stage; [`Error::Cancelled`] where
/// `progress` breaks. The message names the case.
pub fn prepare_cases(
    dataset: &RawDataset,
    cases: &[&Case],
    plan: &UNetPlan,
    device: &Device,
    warn: &mut dyn FnMut(String),
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<Sample>> {
    if let Some(previous) = &plan.previous {
        let found = format!("{}, whose image holds the mask of {}", plan.configuration, previous.configuration);
        return Err(Error::argument("training: configuration", "one without a previous stage", found));
    }
    let mut samples = Vec::with_capacity(cases.len());
    for (done, case) in cases.iter().enumerate() {
        if progress(done, cases.len()).is_break() {
            return Err(Error::Cancelled);
        }
        let read = dataset.read(case)?;
        let named = |e: Error| e.context(format!("case {}", shown(&case.name)));
        let scan = Scan { channels: &read.channels, spacing: Some(read.spacing), previous: None };
        let found = TrainingCase::new(scan, &read.labels, plan, device).map_err(named)?;
        let warnings = found.warnings.into_iter().map(|warning| format!("case {}: {warning}", shown(&case.name)));
        read.warnings.into_iter().chain(warnings).for_each(&mut *warn);
        let classes = plan.labels.outputs();
        samples.push(Sample::new(&case.name, found.image, found.labels, found.shape, classes).map_err(named)?);
    }
    Ok(samples)
}

/// The channels whose values outside the image's non-zero part stay 0.
pub fn masked_channels(plan: &UNetPlan) -> Vec<usize> {
    let is_masked =
        |channel: &crate::models::ChannelNormalization| channel.inside_mask && channel.scheme == Normalization::ZScore;
    plan.normalization.iter().enumerate().filter(|(_, channel)| is_masked(channel)).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_keeps_its_voxels_or_a_hundredth() {
        let count = 2_000_000;
        let mut labels = vec![1; count];
        labels[..5].copy_from_slice(&[0, NO_LABEL, 2, 2, 0]);
        let sample = Sample::new("a", vec![0.0; count], labels.clone(), [1, 1, count], 4).expect("a sample");
        assert_eq!(sample.locations[1], [2, 3]);
        assert_eq!(sample.locations[2], [0usize; 0]);
        let ones = &sample.locations[0];
        assert_eq!(ones.len(), 20_000);
        assert!(ones.windows(2).all(|w| w[0] < w[1]) && ones.iter().all(|&i| labels[i] == 1));
        // Uniform: half of them lie in the first half, to within six standard deviations.
        let first = ones.iter().filter(|&&i| i < count / 2).count() as f64;
        assert!((first - 10_000.0).abs() < 6.0 * 5000f64.sqrt(), "{first}");
        assert!(Sample::new("a", vec![0.0; 3], vec![0, 1, 4], [1, 1, 3], 4).is_err());
        assert!(Sample::new("a", vec![0.0; 4], vec![0, 1, 2], [1, 1, 3], 4).is_err());
    }
}
