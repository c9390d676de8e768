//! The configuration of a classification model.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::crop::Margin;
use super::lesions::LesionChoice;
use super::segmentation::Precision;
use crate::error::{Error, Result};
use crate::models::resnet::{ResNetConfig, TORCHVISION_WIDTH};
use crate::ops::Intensity;
use crate::phase::Subtype;

/// The content of `classification/config.json`. Every field but the weight files has the authors' value by default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Depth of the ResNet: 18, 34, 50, 101 or 152.
    pub depth: usize,
    /// Number of channels of the first stage: 64, as in torchvision, or another for a network that was trained so.
    pub width: usize,
    /// Whether the network begins with a 1x1 fusion convolution. By default it does where the weights contain one.
    pub fusion: Option<bool>,
    /// Number of rows and columns of the network's square input.
    pub input_size: usize,
    /// The range to which Hounsfield units are clipped.
    pub clip: [f32; 2],
    /// The mean that is subtracted after clipping, in Hounsfield units.
    pub mean: f32,
    /// The standard deviation by which the difference is divided, in Hounsfield units.
    pub sd: f32,
    /// The margin that is added on each side of the tumour's rectangle.
    pub margin: Margin,
    /// What the network was trained on: the `largest` lesion of each patient, or all tumour voxels `together`, as the authors crop
    /// them. The pipeline classifies the same where nothing else is asked for.
    pub lesion: LesionChoice,
    /// A threshold for each class, in class order. With thresholds the decision is the highest score among those above their
    /// class's threshold, or the highest of all scores where none is; without them always the highest.
    pub thresholds: Option<Vec<f64>>,
    /// The storage type: f32 ("single"), or f16 where the device supports it ("fastest"). The tests bound the difference of the
    /// logits by 2e-2 of their range.
    pub precision: Precision,
    /// The weight files (safetensors or PyTorch's .pth), relative to the folder of the configuration; several are an ensemble.
    pub weights: Vec<PathBuf>,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            depth: 101,
            width: TORCHVISION_WIDTH,
            fusion: None,
            input_size: 224,
            clip: [-40.0, 347.0],
            mean: 112.754_57,
            sd: 97.874_36,
            margin: Margin::Voxels(0),
            lesion: LesionChoice::Largest,
            thresholds: None,
            precision: Precision::Single,
            weights: vec![],
        }
    }
}

impl ClassifierConfig {
    pub(crate) fn network(&self, fusion: bool) -> ResNetConfig {
        ResNetConfig { depth: self.depth, width: self.width, classes: Subtype::ALL.len(), fusion }
    }

    pub(crate) fn intensity(&self) -> Intensity {
        Intensity { clip: self.clip, mean: self.mean, sd: self.sd }
    }

    /// Checks that every value is in range.
    ///
    /// # Errors
    /// [`Error::Argument`] with the field and the values that are expected.
    pub(crate) fn ensure_valid(&self) -> Result<()> {
        self.network(true).ensure_valid()?;
        if !(32..=4096).contains(&self.input_size) {
            return Err(Error::argument("input_size", "32 to 4096", self.input_size));
        }
        if !matches!(self.lesion, LesionChoice::Largest | LesionChoice::Together) {
            return Err(Error::argument("lesion", "largest or together", self.lesion));
        }
        let [low, high] = self.clip;
        let finite = [low, high, self.mean, self.sd].iter().all(|v| v.is_finite());
        if !finite || low >= high || self.sd <= 0.0 {
            let found = format!("clip {:?}, mean {}, sd {}", self.clip, self.mean, self.sd);
            return Err(Error::argument("intensities", "finite values, clip ascending, sd above 0", found));
        }
        self.thresholds.as_deref().map_or(Ok(()), ensure_thresholds)
    }
}

/// Checks that there is a threshold from 0 to 1 for each class.
///
/// # Errors
/// [`Error::Argument`] for another number of thresholds, or a threshold outside that range.
pub fn ensure_thresholds(thresholds: &[f64]) -> Result<()> {
    let classes = Subtype::ALL.len();
    if thresholds.len() == classes && thresholds.iter().all(|t| (0.0..=1.0).contains(t)) {
        return Ok(());
    }
    Err(Error::argument("thresholds", format!("{classes} numbers from 0 to 1"), format!("{thresholds:?}")))
}
