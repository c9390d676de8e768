//! What a diagnosis was asked for, as its result holds it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::classify::Classifier;
use super::diagnose::{DiagnoseOptions, System};
use super::lesion_results::lesion_choice;
use super::{Ensemble, Mirroring, Postprocessing, SegmentOptions, Segmenter, Sums};
use crate::io::lossy_option;

/// What decides a result besides scans and weights. A run continues only results of the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunOptions {
    /// Whether masks were given instead of segmented.
    pub given_masks: bool,
    /// Whether the segmentation averaged mirrored copies.
    pub mirroring: bool,
    /// Which lesions were to be classified.
    pub lesion: String,
    /// The margin around a lesion; None without a classifier.
    pub margin: Option<String>,
    /// The thresholds of the decision; None for the highest score.
    pub thresholds: Option<Vec<f64>>,
    /// How the phases were segmented; None with given masks, and in results of versions that did not write it.
    #[serde(default)]
    pub segmentation: Option<SegmentationRun>,
}

/// How the phases were segmented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SegmentationRun {
    /// The models whose probabilities were averaged.
    pub models: Vec<ModelRun>,
    /// What the networks computed with, `f32` or `f16`.
    pub precision: String,
    /// The distance of neighbouring tiles, in tiles.
    pub step: f64,
    /// How the logits of overlapping tiles were added up.
    #[serde(default)]
    pub sums: Sums,
    /// The orientation that was asked for instead of the plan's.
    pub orientation: Option<String>,
    /// What was done to the masks; None for nothing.
    pub postprocessing: Option<Postprocessing>,
    /// The folder of a cascade's first stage's masks, where they were given.
    #[serde(serialize_with = "lossy_option")]
    pub previous_masks: Option<PathBuf>,
}

/// A model as it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelRun {
    /// Its configuration.
    pub configuration: String,
    /// Its folds, where the files of the weights name them.
    pub folds: Vec<String>,
    /// The axes of the network's images, of z, y and x, along which its weights allow mirroring.
    pub mirroring_allowed: String,
}

impl SegmentationRun {
    pub(super) fn of(models: &Ensemble, options: &SegmentOptions, postprocessing: Option<&Postprocessing>) -> Self {
        let model = |member: &Segmenter| ModelRun {
            configuration: member.plan().configuration.clone(),
            folds: member.fold_names().to_vec(),
            mirroring_allowed: member.mirrored_axes().join(","),
        };
        Self {
            models: models.members().iter().map(model).collect(),
            precision: models.members()[0].dtype().to_string(),
            step: options.step,
            sums: options.sums,
            orientation: options.orientation.map(|rule| rule.to_string()),
            postprocessing: postprocessing.cloned(),
            previous_masks: models.previous_masks().map(|(folder, _)| folder.to_path_buf()),
        }
    }
}

/// What a run is asked for, as its result holds it; `given_masks` says whether masks are given instead of segmented.
pub fn run_options(system: &System, options: &DiagnoseOptions, given_masks: bool) -> RunOptions {
    let config = system.classifier.as_ref().map(Classifier::config);
    RunOptions {
        given_masks,
        mirroring: !given_masks && options.segment.mirroring == Mirroring::AllAxes,
        lesion: lesion_choice(options.lesion, system.classifier.as_ref()).to_string(),
        margin: config.map(|config| config.margin.to_string()),
        thresholds: config.and_then(|config| config.thresholds.clone()),
        segmentation: system
            .segmenter
            .as_ref()
            .filter(|_| !given_masks)
            .map(|models| SegmentationRun::of(models, &options.segment, options.postprocessing.as_ref())),
    }
}
