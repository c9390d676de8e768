//! What a classification model's folder says about itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::crop::Margin;
use super::segment::Precision;
use crate::error::{Error, Result};
use crate::models::resnet::ResNetConfig;
use crate::ops::Intensity;
use crate::phase::Subtype;

/// `classification/config.json`. Everything but the weight files has the authors' value by default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Depth of the ResNet: 18, 34, 50, 101 or 152.
    pub depth: usize,
    /// Is there a 1x1 fusion convolution in front? Not given: if the weights have one.
    pub fusion: Option<bool>,
    /// Side of the square image.
    pub input_size: usize,
    /// Hounsfield units are clipped to this range,
    pub clip: [f32; 2],
    /// less this mean,
    pub mean: f32,
    /// over this standard deviation.
    pub sd: f32,
    /// What the tumour's rectangle grows by on each side.
    pub margin: Margin,
    /// A threshold per class, in class order. Given, the decision is the highest score above its own, else the highest.
    pub thresholds: Option<Vec<f64>>,
    /// f32 ("single"), or f16 where a GPU has it ("fastest"): logits within 2e-2 of their range, tests say.
    pub precision: Precision,
    /// Weight files (safetensors or PyTorch's .pth) beside the configuration; several are an ensemble.
    pub weights: Vec<PathBuf>,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            depth: 101,
            fusion: None,
            input_size: 224,
            clip: [-40.0, 347.0],
            mean: 112.754_57,
            sd: 97.874_36,
            margin: Margin::Voxels(0),
            thresholds: None,
            precision: Precision::Single,
            weights: vec![],
        }
    }
}

impl ClassifierConfig {
    pub(super) fn network(&self, fusion: bool) -> ResNetConfig {
        ResNetConfig { depth: self.depth, classes: Subtype::ALL.len(), fusion }
    }

    pub(super) fn intensity(&self) -> Intensity {
        Intensity { clip: self.clip, mean: self.mean, sd: self.sd }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.network(true).blocks()?;
        if !(32..=4096).contains(&self.input_size) {
            return Err(Error::argument("input_size", "32 to 4096", self.input_size));
        }
        let [low, high] = self.clip;
        let finite = [low, high, self.mean, self.sd].iter().all(|v| v.is_finite());
        if !finite || low >= high || self.sd <= 0.0 {
            let found = format!("clip {:?}, mean {}, sd {}", self.clip, self.mean, self.sd);
            return Err(Error::argument("intensities", "finite values, clip ascending, sd above 0", found));
        }
        self.thresholds.as_deref().map_or(Ok(()), check_thresholds)
    }
}

/// Are these thresholds, a number from 0 to 1 for each class?
///
/// # Errors
/// Another count, or a number outside.
pub fn check_thresholds(thresholds: &[f64]) -> Result<()> {
    let classes = Subtype::ALL.len();
    if thresholds.len() == classes && thresholds.iter().all(|t| (0.0..=1.0).contains(t)) {
        return Ok(());
    }
    Err(Error::argument("thresholds", format!("{classes} numbers from 0 to 1"), format!("{thresholds:?}")))
}
