//! Several models whose probabilities are averaged, as `nnUNetv2_ensemble` does.

use std::ops::ControlFlow;
use std::path::Path;

use super::Segmenter;
use super::segmentation::{Output, Scan, SegmentOptions, Segmentation, Stage};
use crate::ensure_room;
use crate::error::{Error, Result};
use crate::io::SourceFile;
use crate::models::TargetLabels;
use crate::shown_list;
use crate::volume::{LabelVolume, Volume, Voxels};

/// One model, or several for the same labels and images, such as configurations of one data set.
///
/// Each model's probabilities (softmax or sigmoid) are mapped to the voxels of the scan and averaged in f32, in the models' order.
/// A voxel gets the label of the largest average, the first of equal ones; a region has the voxels whose average is above 0.5,
/// and the last of the regions found at a voxel wins.
#[derive(Debug, Clone)]
pub struct Ensemble {
    members: Vec<Segmenter>,
}

impl Ensemble {
    /// An ensemble of models in the order in which they are averaged.
    ///
    /// # Errors
    /// [`Error::Argument`] without a model, and for models of different labels or channels.
    pub fn new(members: Vec<Segmenter>) -> Result<Self> {
        let Some(first) = members.first() else { return Err(Error::argument("ensemble: models", "at least one", 0)) };
        for (number, member) in (2..).zip(members.iter().skip(1)) {
            let (expected, found) = (first.plan(), member.plan());
            if found.labels != expected.labels {
                let what = format!("ensemble: labels of model {number}");
                let [expected, found] = [expected, found].map(|plan| listed(&plan.labels));
                return Err(Error::argument(what, format!("those of the first, {expected}"), found));
            }
            if found.channels != expected.channels {
                let what = format!("ensemble: channels of model {number}");
                let [expected, found] = [expected, found].map(|plan| shown_list(&plan.channels));
                return Err(Error::argument(what, format!("those of the first, {expected}"), found));
            }
        }
        Ok(Self { members })
    }

    /// The models.
    pub fn members(&self) -> &[Segmenter] {
        &self.members
    }

    /// The labels of the masks, which all models have in common.
    pub fn labels(&self) -> &TargetLabels {
        &self.members[0].plan().labels
    }

    /// The files of all weights, in the models' order.
    pub fn files(&self) -> Vec<SourceFile> {
        self.members.iter().flat_map(|member| member.files().to_vec()).collect()
    }

    /// The folder of the first stage's masks, of which [`Scan::previous`] is to be read for each scan, and the ending of their
    /// names; None where no model needs one.
    pub fn previous_masks(&self) -> Option<(&Path, &str)> {
        self.members.iter().find_map(|member| Some((member.previous_masks()?, member.plan().file_ending.as_str())))
    }

    /// As [`Segmenter::segment_scan`]. Several models need memory for the probabilities of all labels twice: eight bytes for each
    /// voxel of the scan and label, the background included.
    ///
    /// # Errors
    /// As [`Segmenter::segment_scan`], with the model's number.
    pub fn segment(
        &self,
        scan: Scan<'_>,
        options: &SegmentOptions,
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Segmentation> {
        if let [only] = self.members.as_slice() {
            return only.segment_scan(scan, options, progress);
        }
        let all = SegmentOptions { output: Output::Probabilities, ..*options };
        let mut result: Option<Segmentation> = None;
        let mut sums: Vec<Vec<f32>> = Vec::new();
        for (number, member) in (1..).zip(&self.members) {
            // A mask of the previous stage is for those models that take one.
            let takes = member.plan().previous.is_some();
            let own = Scan { previous: scan.previous.filter(|_| takes), ..scan };
            let named = |e: Error| e.context(format!("model {number} ({})", member.plan().configuration));
            let mut found = member.segment_outputs(own, &all, 0, progress).map_err(named)?;
            add(&mut sums, std::mem::take(&mut found.probabilities));
            let warnings = std::mem::take(&mut found.warnings);
            let told = warnings.into_iter().map(|w| format!("model {number}: {w}"));
            let joined = result.get_or_insert_with(|| Segmentation { tiles: 0, working_set: 0, ..found.clone() });
            if number > 1 {
                joined.seconds = joined.seconds.plus(found.seconds);
            }
            joined.tiles += found.tiles;
            joined.working_set = joined.working_set.max(found.working_set);
            joined.warnings.extend(told);
        }
        let Some(mut result) = result else { return Err(Error::argument("ensemble: models", "at least one", 0)) };
        let count = self.members.len() as f32;
        sums.iter_mut().flatten().for_each(|sum| *sum /= count);
        let labels = self.labels();
        result.mask = LabelVolume::new(result.mask.shape(), decide(&sums, labels)?, result.mask.affine())?;
        if options.output.has_probabilities() {
            let image = &scan.channels[0];
            let foreground = match options.output {
                Output::AllProbabilities => 0,
                _ => sums.len() - labels.targets().len(),
            };
            let kept = sums.drain(foreground..).map(|values| image.with_voxels(Voxels::F32(values.into())));
            result.probabilities = kept.collect::<Result<Vec<Volume>>>()?;
        }
        Ok(result)
    }
}

impl From<Segmenter> for Ensemble {
    fn from(only: Segmenter) -> Self {
        Self { members: vec![only] }
    }
}

/// Names and values of labels.
fn listed(labels: &TargetLabels) -> String {
    shown_list(labels.targets().iter().map(|t| format!("{} {}", t.name, t.value)))
}

fn add(sums: &mut Vec<Vec<f32>>, found: Vec<Volume>) {
    let values = found.into_iter().map(|volume| volume.voxels().to_f32());
    if sums.is_empty() {
        sums.extend(values.map(|values| values.to_vec()));
        return;
    }
    for (sum, values) in sums.iter_mut().zip(values) {
        sum.iter_mut().zip(values.iter()).for_each(|(sum, value)| *sum += value);
    }
}

/// The mask of averaged probabilities.
fn decide(averages: &[Vec<f32>], labels: &TargetLabels) -> Result<Vec<u8>> {
    let voxels = averages.first().map_or(0, Vec::len);
    ensure_room::<u8>("ensemble: labels", voxels)?;
    let mut mask = vec![0u8; voxels];
    if labels.are_regions() {
        for (values, target) in averages.iter().zip(labels.targets()) {
            mask.iter_mut().zip(values).filter(|(_, p)| **p > 0.5).for_each(|(label, _)| *label = target.value);
        }
        return Ok(mask);
    }
    let mut best = averages.first().cloned().unwrap_or_default();
    for (values, target) in averages.iter().skip(1).zip(labels.targets()) {
        for ((label, best), value) in mask.iter_mut().zip(&mut best).zip(values) {
            if *value > *best {
                (*label, *best) = (target.value, *value);
            }
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_averages_wins() {
        let labels = TargetLabels::exclusive(&["background", "kidney", "tumour"]);
        let averages = [vec![0.4, 0.2, 0.3], vec![0.4, 0.4, 0.3], vec![0.2, 0.4, 0.4]];
        assert_eq!(decide(&averages, &labels).expect("labels"), [0, 1, 2]);
    }
}
