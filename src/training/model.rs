//! The model's folder: what `nephron segment` reads, and beside it what a training needs to go on.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::PlanFiles;
use super::network::TrainableUNet;
use super::record::EpochRecord;
use crate::error::{Error, Result};
use crate::io::weights::TrainingNotes;
use crate::io::write_atomic;
use crate::models::{JsonFile, UNetPlan};
use crate::pipeline::ModelCard;
use crate::shown_list;

/// The files of one fold in a model's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelFiles {
    /// The model's folder.
    pub(super) folder: PathBuf,
    /// The weights of the fold.
    pub(super) weights: PathBuf,
    /// The folder of logs and of the checkpoint.
    pub(super) training: PathBuf,
    /// The checkpoint.
    pub(super) checkpoint: PathBuf,
    /// The folder of prepared cases, which all folds share.
    pub(super) prepared: PathBuf,
}

impl ModelFiles {
    pub(super) fn new(folder: &Path, fold: Option<usize>) -> Self {
        let name = fold.map_or("all".to_owned(), |fold| fold.to_string());
        let prepared = folder.join("training").join("prepared");
        let training = folder.join("training").join(format!("fold_{name}"));
        Self {
            prepared,
            folder: folder.to_path_buf(),
            weights: folder.join(format!("fold_{name}.safetensors")),
            checkpoint: training.join("checkpoint.safetensors"),
            training,
        }
    }

    /// Makes the folders and writes the plan's files, or takes those of the folds before. Returns them as they are read from there, so
    /// that every run has the same numbers: text may round the last digit.
    ///
    /// # Errors
    /// A fold that is finished, or interrupted and not resumed; a folder with another plan; a file that cannot be written.
    pub(super) fn prepare(&self, files: &PlanFiles, resumes: bool) -> Result<PlanFiles> {
        if self.weights.is_file() {
            let reason = "exists: this fold is trained already, expected another fold or folder";
            return Err(Error::file(&self.weights, reason));
        }
        if !resumes && self.checkpoint.is_file() {
            let reason = "exists: a training was interrupted here already, expected to resume it, or another folder";
            return Err(Error::file(&self.checkpoint, reason));
        }
        let plans = self.folder.join("plans.json");
        if plans.is_file() && !same(JsonFile::read(&plans)?.value(), &files.plans) {
            let reason = "holds another plan than this training's, expected the same for every fold of a model";
            return Err(Error::file(&plans, reason));
        }
        std::fs::create_dir_all(&self.training).map_err(|e| Error::io(&self.training, "cannot be made", e))?;
        if !plans.is_file() {
            files.write(&self.folder)?;
        }
        let read = |name: &str| Ok::<_, Error>(JsonFile::read(&self.folder.join(name))?.value().clone());
        Ok(PlanFiles { plans: read("plans.json")?, dataset: read("dataset.json")? })
    }

    /// Writes the weights and the card of a trained fold.
    ///
    /// # Errors
    /// A file that cannot be written; a device that fails.
    pub(super) fn finish(&self, network: &TrainableUNet, plan: &UNetPlan, card: &ModelCard) -> Result<()> {
        let mut notes = TrainingNotes::default();
        notes.configuration = Some(plan.configuration.clone());
        let axes = if plan.architecture.planar { 2 } else { 3 };
        notes.mirror_axes = Some((0..axes).collect());
        network.save(&self.weights, &notes)?;
        // A card that a user completed, or that of the first fold, stays.
        let path = self.folder.join("model.json");
        if !path.exists() {
            let text = serde_json::to_string_pretty(card).map_err(|e| Error::other("model.json", e))?;
            write_atomic(path, |file| file.write_all(text.as_bytes()))?;
        }
        // It has served; what is left of it would only take space.
        std::fs::remove_file(&self.checkpoint).map_err(|e| Error::io(&self.checkpoint, "cannot be removed", e))
    }
}

/// Whether two files hold the same, but for the last digits of numbers.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// What is known of a model that was trained so. `cases` are those trained on and those validated on, which may be the same
/// (`on_training`).
pub(super) fn card(
    plan: &UNetPlan,
    data: &str,
    cases: [usize; 2],
    on_training: bool,
    last: Option<&EpochRecord>,
) -> ModelCard {
    let names: Vec<&str> = plan.labels.targets().iter().map(|target| target.name.as_str()).collect();
    let dice = last.and_then(|record| record.dice.as_ref()).map(|dice| {
        let each = names.iter().zip(dice).map(|(name, dice)| format!("{name} {dice:.3}"));
        let which = if on_training { "of the cases that it was trained on" } else { "validation cases" };
        format!("; Dice on {} {which}: {}", cases[1], each.collect::<Vec<_>>().join(", "))
    });
    let [z, y, x] = plan.spacing;
    ModelCard {
        trained_on: Some(format!("{} cases of {data}, labels {}", cases[0], shown_list(&names))),
        intended_input: Some(format!("channels {}, resampled to {x} x {y} x {z} mm", shown_list(&plan.channels))),
        licence: None,
        notes: Some(format!("trained by its user, not for clinical use{}", dice.unwrap_or_default())),
    }
}
