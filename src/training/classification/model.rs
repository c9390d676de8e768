//! The classifier's folder: what `nephron diagnose` reads, and beside it what a training needs to go on.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::record::ClassifierEpoch;
use crate::error::{Error, Result};
use crate::io::weights::TrainingNotes;
use crate::io::{read_small, write_atomic};
use crate::phase::Subtype;
use crate::pipeline::ModelCard;
use crate::pipeline::classify::ClassifierConfig;
use crate::training::TrainableResNet;

/// The files of one fold of a classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClassifierFiles {
    /// The folder of the classifier in the model's.
    folder: PathBuf,
    /// The name of the fold's weights there.
    name: String,
    /// The folder of logs and of the checkpoint.
    pub(super) training: PathBuf,
    /// The checkpoint.
    pub(super) checkpoint: PathBuf,
    /// The folder of the patients' crops, which the folds share.
    pub(super) crops: PathBuf,
}

impl ClassifierFiles {
    pub(super) fn new(model: &Path, fold: Option<usize>) -> Self {
        let name = fold.map_or("all".to_owned(), |fold| fold.to_string());
        let classifier = model.join("training").join("classification");
        let training = classifier.join(format!("fold_{name}"));
        Self {
            folder: model.join("classification"),
            name: format!("fold_{name}.safetensors"),
            checkpoint: training.join("checkpoint.safetensors"),
            crops: classifier.join("crops"),
            training,
        }
    }

    /// The fold's weights.
    pub(super) fn weights(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    /// Refuses what this training would not fit.
    ///
    /// # Errors
    /// A fold that is finished, or interrupted and not resumed; a folder with another classifier.
    pub(super) fn ensure_fits(&self, config: &ClassifierConfig, resumes: bool) -> Result<()> {
        if self.weights().is_file() {
            let reason = "exists: this fold is trained already, expected another fold or folder";
            return Err(Error::file(self.weights(), reason));
        }
        if !resumes && self.checkpoint.is_file() {
            let reason = "exists: a training was interrupted here already, expected to resume it, or another folder";
            return Err(Error::file(&self.checkpoint, reason));
        }
        self.earlier(config).map(|_| ())
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub(super) fn make_folders(&self) -> Result<()> {
        for folder in [&self.folder, &self.training, &self.crops] {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "cannot be made", e))?;
        }
        Ok(())
    }

    /// The configuration that other folds left, which is the same but for its weights, thresholds and precision.
    fn earlier(&self, config: &ClassifierConfig) -> Result<Option<ClassifierConfig>> {
        let path = self.config();
        if !path.is_file() {
            return Ok(None);
        }
        let read = serde_json::from_slice::<ClassifierConfig>(&read_small(&path)?);
        let found = read.map_err(|e| Error::in_file(&path, e))?;
        let network = |config: &ClassifierConfig| -> Result<Value> {
            let same = ClassifierConfig {
                weights: Vec::new(),
                thresholds: None,
                precision: ClassifierConfig::default().precision,
                ..config.clone()
            };
            serde_json::to_value(same).map_err(|e| Error::in_file(&path, e))
        };
        let [expected, there] = [network(config)?, network(&found)?];
        if expected != there {
            let reason = format!("is of another classifier than this training's: expected {expected}, found {there}");
            return Err(Error::file(&path, reason));
        }
        Ok(Some(found))
    }

    /// Writes the weights, the configuration with them, and the card.
    ///
    /// # Errors
    /// A file that cannot be written; a device that fails.
    pub(super) fn finish(&self, network: &TrainableResNet, config: &ClassifierConfig, card: &ModelCard) -> Result<()> {
        let mut notes = TrainingNotes::default();
        notes.configuration = Some(format!("ResNet-{}", config.depth));
        network.save(&self.weights(), &notes)?;
        let mut config = self.earlier(config)?.unwrap_or_else(|| config.clone());
        config.weights.push(PathBuf::from(&self.name));
        config.weights.sort();
        config.weights.dedup();
        write_json(&self.config(), &config)?;
        // A card that a user completed, or that of the first fold, stays.
        let path = self.folder.join("model.json");
        if !path.exists() {
            write_json(&path, card)?;
        }
        // It has served; what is left of it would only take space.
        std::fs::remove_file(&self.checkpoint).map_err(|e| Error::io(&self.checkpoint, "cannot be removed", e))
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::io(path, "cannot be written", e))?;
    write_atomic(path, |file| writeln!(file, "{text}"))
}

/// What is known of a classifier that was trained so. `validated` is the number of validation patients, which may be those that it was
/// trained on (`on_training`).
pub(super) fn card(
    data: &str,
    patients: &[Subtype],
    (validated, on_training): (usize, bool),
    last: Option<&ClassifierEpoch>,
) -> ModelCard {
    let counts = Subtype::ALL.into_iter().filter_map(|subtype| {
        let count = patients.iter().filter(|of| **of == subtype).count();
        (count > 0).then(|| format!("{count} {subtype}"))
    });
    let counts: Vec<String> = counts.collect();
    let scores = last.and_then(|record| record.validation).map(|found| {
        let which = if on_training { "of the patients that it was trained on" } else { "validation patients" };
        let auc = found.auc.map_or(String::new(), |auc| format!(", mean AUC {auc:.3}"));
        format!("; on {validated} {which}: accuracy {:.3}{auc}", found.accuracy)
    });
    ModelCard {
        trained_on: Some(format!("{} patients of {data}: {}", patients.len(), counts.join(", "))),
        intended_input: Some("three or four contrast phases of a CT with a renal tumour in each".into()),
        licence: None,
        notes: Some(format!("trained by its user, not for clinical use{}", scores.unwrap_or_default())),
    }
}
