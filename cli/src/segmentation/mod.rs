//! How `segment` and `diagnose` segment: which parts of which models are used, and with which settings.

pub(crate) mod names;
mod postprocessing;
pub(crate) mod previous;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use nephron::Device;
use nephron::error::Error as LibraryError;
use nephron::models::OrientationRule;
use nephron::pipeline::{
    Ensemble, Mirroring, ModelCard, ModelOptions, Postprocessing, Precision, SegmentOptions, Segmenter, Sums,
    parse_bytes,
};

/// The heading of these options in the help.
const HEADING: &str = "Segmentation";

/// The options that both subcommands share.
#[derive(Debug, clap::Args)]
pub struct SegmentationArgs {
    /// Configuration of plans.json (the one that the weights were trained by); for several models one for all or one for each
    #[arg(long, help_heading = HEADING)]
    configuration: Vec<String>,
    /// Folds to average, such as 0,1,2, or all for fold_all (every numbered one)
    #[arg(long, help_heading = HEADING, value_delimiter = ',')]
    folds: Option<Vec<String>>,
    /// Checkpoint of each fold: final, best or latest (final)
    #[arg(long, help_heading = HEADING)]
    checkpoint: Option<String>,
    /// First stage of a cascade: its model folder, or a folder of its masks, <case>.nii.gz (the model beside the cascade's)
    #[arg(long, help_heading = HEADING, value_name = "DIR")]
    pub previous_stage: Option<PathBuf>,
    /// What a GPU computes with (a CPU: f32)
    #[arg(long, help_heading = HEADING, value_enum, default_value_t)]
    precision: PrecisionArg,
    /// Type of the sums over overlapping tiles; f16 takes half the memory, and overflow is an error
    #[arg(long, help_heading = HEADING, value_enum, default_value_t)]
    sums: SumsArg,
    /// Average over the mirrored copies of each tile, eight where the weights allow all axes: so many times the work, a little
    /// more accurate
    #[arg(long, help_heading = HEADING)]
    pub tta: bool,
    /// Distance of neighbouring tiles, in tiles
    #[arg(long, help_heading = HEADING, alias = "step-size", default_value_t = 0.5, value_parser = parse_step)]
    pub step: f64,
    /// The most memory for the resampled image, the network's sums, activations and slabs: bytes, or with KB, MB, GB, KiB, MiB, GiB.
    /// With it no image is read or written while another is segmented
    #[arg(long, help_heading = HEADING, value_parser = parse_budget)]
    memory_budget: Option<u64>,
    /// How the network sees the image's axes: stored, or three letters such as RAS or LPS (what plans.json says)
    #[arg(long, help_heading = HEADING, value_parser = parse_orientation)]
    pub orientation: Option<OrientationRule>,
    /// nnU-Net's postprocessing of the masks: none, auto for that of the model folder, or a postprocessing.pkl or .json, which is
    /// read as data
    #[arg(
        long, help_heading = HEADING, default_value = "none", value_name = "FILE|none|auto",
        value_parser = postprocessing::parse
    )]
    postprocessing: postprocessing::Choice,
}

/// The names of these options, for subcommands that also run without a segmentation.
pub const OPTIONS: [&str; 11] = [
    "configuration",
    "folds",
    "checkpoint",
    "previous_stage",
    "precision",
    "sums",
    "tta",
    "step",
    "memory_budget",
    "orientation",
    "postprocessing",
];

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum PrecisionArg {
    /// f16 where the GPU has it
    #[default]
    Fastest,
    /// f32
    Single,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum SumsArg {
    /// As accurate as the network
    #[default]
    F32,
    /// nnU-Net's
    F16,
}

fn parse_step(text: &str) -> Result<f64, String> {
    let step: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.05..=1.0).contains(&step) { Ok(step) } else { Err(format!("expected 0.05 to 1 tile, found {step}")) }
}

fn parse_budget(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|e| e.to_string())
}

fn parse_orientation(text: &str) -> Result<OrientationRule, String> {
    if text.eq_ignore_ascii_case("stored") {
        return Ok(OrientationRule::Stored);
    }
    text.parse().map(OrientationRule::Fixed).map_err(|e: LibraryError| e.to_string())
}

/// A model in the record of `segment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    #[serde(serialize_with = "nephron::io::lossy")]
    model: PathBuf,
    pub configuration: String,
    folds: usize,
    /// The axes of the network's images, of z, y and x, along which the weights allow mirroring.
    #[serde(default)]
    mirroring_allowed: String,
    /// What its maker says of it.
    card: Option<ModelCard>,
}

impl SegmentationArgs {
    /// Reads the models of these folders.
    pub fn load(&self, models: &[PathBuf], device: &Device) -> Result<Ensemble> {
        let (count, asked) = (models.len(), self.configuration.len());
        if asked > 1 && asked != count {
            return Err(Error::Usage(format!(
                "--configuration: expected one, or one for each of {count} models, found {asked}"
            )));
        }
        let mut members = Vec::new();
        let mut takes_previous = self.previous_stage.is_none();
        for (i, model) in models.iter().enumerate() {
            let options = ModelOptions {
                configuration: self.configuration.get(if asked > 1 { i } else { 0 }).cloned(),
                folds: self.folds.clone(),
                checkpoint: self.checkpoint.clone(),
                previous_stage: self.previous_stage.clone(),
            };
            // Of several models only the cascades among them take a previous stage.
            let member = match self.load_one(model, &options, device) {
                Err(LibraryError::Argument { what, .. }) if count > 1 && what == "segment: previous stage" => {
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

    /// The options of the segmentation itself.
    pub fn options(&self) -> SegmentOptions {
        SegmentOptions {
            step: self.step,
            mirroring: if self.tta { Mirroring::AllAxes } else { Mirroring::Off },
            memory_budget: self.memory_budget,
            orientation: self.orientation,
            sums: match self.sums {
                SumsArg::F32 => Sums::F32,
                SumsArg::F16 => Sums::F16,
            },
            ..SegmentOptions::default()
        }
    }

    /// The postprocessing to apply. Says what was found and not applied, or asked for and not found.
    pub fn postprocessing(&self, ensemble: &Ensemble) -> Result<Option<Postprocessing>> {
        postprocessing::load(&self.postprocessing, ensemble)
    }

    /// Tells what the models' makers say of them, and where nnU-Net itself would have mirrored.
    pub fn tell(&self, models: &[PathBuf], ensemble: &Ensemble) {
        for (model, member) in models.iter().zip(ensemble.members()) {
            for (name, text) in member.card().iter().flat_map(|card| card.lines()) {
                note!("model {}: {name}: {text}", model.display());
            }
        }
        self.tell_mirroring(ensemble);
    }

    /// Tells whoever compares with nnU-Net that it mirrors by default.
    pub fn tell_mirroring(&self, ensemble: &Ensemble) {
        let member = ensemble.members().iter().find(|member| member.mirrors_by_default());
        if let Some(member) = member.filter(|_| !self.tta) {
            let axes = member.mirrored_axes().join(", ");
            note!("note: mirroring is off; by default nnU-Net mirrors this model along {axes}, as --tta does");
        }
    }
}

/// The models as they were read, for the record.
pub fn reports(models: &[PathBuf], ensemble: &Ensemble) -> Vec<ModelReport> {
    let report = |(model, member): (&PathBuf, &Segmenter)| ModelReport {
        model: model.clone(),
        configuration: member.plan().configuration.clone(),
        folds: member.folds(),
        mirroring_allowed: member.mirrored_axes().join(","),
        card: member.card().cloned(),
    };
    models.iter().zip(ensemble.members()).map(report).collect()
}

/// A configuration or fold that the model does not have is a wrong call, not a wrong model.
fn usage(error: LibraryError) -> Error {
    if matches!(error, LibraryError::Argument { .. }) { Error::Usage(error.to_string()) } else { error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_options_are_complete() {
        let command = <SegmentationArgs as clap::Args>::augment_args(clap::Command::new("segment"));
        let names: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        assert_eq!(names, OPTIONS);
    }
}
