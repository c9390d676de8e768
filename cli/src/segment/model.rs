//! Which models `segment` runs.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use nephron::Device;
use nephron::error::Error as LibraryError;
use nephron::pipeline::{Ensemble, ModelCard, ModelOptions, Precision, Segmenter};

/// The models and the parts of them that are used.
#[derive(Debug, clap::Args)]
pub struct ModelArgs {
    /// Model folder: plans.json, dataset.json and weights (fold_*/checkpoint_final.pth, or weights or fold_* as
    /// .safetensors or .pth), in it, in its segmentation/ or in a folder of training results in it; or a .zip of
    /// nnUNetv2_export_model. Given several times, the models' probabilities are averaged
    #[arg(long, required = true, value_name = "DIR")]
    pub model: Vec<PathBuf>,
    /// Configuration of plans.json (the one that the weights were trained by); for several models one for all or one for each
    #[arg(long)]
    configuration: Vec<String>,
    /// Folds to average, such as 0,1,2, or all for fold_all (every numbered one)
    #[arg(long, value_delimiter = ',')]
    folds: Option<Vec<String>>,
    /// Checkpoint of each fold: final, best or latest (final)
    #[arg(long)]
    checkpoint: Option<String>,
    /// First stage of a cascade: its model folder, or a folder of its masks, <case>.nii.gz (the model beside the cascade's)
    #[arg(long, value_name = "DIR")]
    previous_stage: Option<PathBuf>,
    /// What a GPU computes with (a CPU: f32)
    #[arg(long, value_enum, default_value_t)]
    precision: PrecisionArg,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum PrecisionArg {
    /// f16 where the GPU has it
    #[default]
    Fastest,
    /// f32
    Single,
}

/// A model in the record of `segment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    #[serde(serialize_with = "nephron::io::lossy")]
    model: PathBuf,
    pub(super) configuration: String,
    folds: usize,
    /// What its maker says of it.
    card: Option<ModelCard>,
}

impl ModelArgs {
    /// Reads the models.
    pub fn load(&self, device: &Device) -> Result<Ensemble> {
        let (models, asked) = (self.model.len(), self.configuration.len());
        if asked > 1 && asked != models {
            return Err(Error::Usage(format!(
                "--configuration: expected one, or one for each of {models} models, found {asked}"
            )));
        }
        let mut members = Vec::new();
        let mut takes_previous = self.previous_stage.is_none();
        for (i, model) in self.model.iter().enumerate() {
            let options = ModelOptions {
                configuration: self.configuration.get(if asked > 1 { i } else { 0 }).cloned(),
                folds: self.folds.clone(),
                checkpoint: self.checkpoint.clone(),
                previous_stage: self.previous_stage.clone(),
            };
            // Of several models only the cascades among them take a previous stage.
            let member = match self.load_one(model, &options, device) {
                Err(LibraryError::Argument { what, .. }) if models > 1 && what == "segment: previous stage" => {
                    self.load_one(model, &ModelOptions { previous_stage: None, ..options }, device).map_err(usage)?
                }
                member => {
                    takes_previous = true;
                    member.map_err(|e| if options == ModelOptions::default() { e.into() } else { usage(e) })?
                }
            };
            members.push(member);
        }
        if !takes_previous {
            return Err(Error::Usage("--previous-stage: expected a cascade among the models, found none".into()));
        }
        Ensemble::new(members).map_err(usage)
    }

    fn load_one(&self, model: &Path, options: &ModelOptions, device: &Device) -> Result<Segmenter, LibraryError> {
        let precision = match self.precision {
            PrecisionArg::Fastest => Precision::Fastest,
            PrecisionArg::Single => Precision::Single,
        };
        Segmenter::load(model, options, precision, device)
    }

    /// Tells what the models' makers say of them.
    pub fn tell_cards(&self, ensemble: &Ensemble) {
        for (model, member) in self.model.iter().zip(ensemble.members()) {
            for (name, text) in member.card().iter().flat_map(|card| card.lines()) {
                note!("model {}: {name}: {text}", model.display());
            }
        }
    }

    /// The models as they were read, for the record.
    pub fn reports(&self, ensemble: &Ensemble) -> Vec<ModelReport> {
        let report = |(model, member): (&PathBuf, &Segmenter)| ModelReport {
            model: model.clone(),
            configuration: member.plan().configuration.clone(),
            folds: member.folds(),
            card: member.card().cloned(),
        };
        self.model.iter().zip(ensemble.members()).map(report).collect()
    }
}

/// A configuration or fold that the model does not have is a wrong call, not a wrong model.
fn usage(error: LibraryError) -> Error {
    if matches!(error, LibraryError::Argument { .. }) { Error::Usage(error.to_string()) } else { error.into() }
}
