//! Stage 3: subtype probabilities from the phases and their masks.
//!
//! Three phases are the channels of one image; four phases give three images
//! ([`PhaseSet::images`](crate::phase::PhaseSet::images)). The softmax vectors of all images and all models are averaged (Uhm et al.
//! 2021).

use std::path::{Component, Path, PathBuf};

use image::{GrayImage, Luma};
use serde::{Deserialize, Serialize};

pub use super::classifier_config::{ClassifierConfig, ensure_thresholds};
use super::crop::{CropBox, Margin};
use super::lesion_crops::{PhaseCrop, lesion_crops, lesion_image};
use super::lesions::Lesion;
use super::model_folder::ModelDir;
use super::{ModelCard, ScanSlice, Study};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::io::{SourceFile, read_small};
use crate::models::resnet::{FUSION, ResNet, seeded_weights};
use crate::ops::Intensity;
use crate::phase::{Phase, Subtype};
use crate::stats;
use crate::{is_unprintable, shown};

/// The probabilities of one image of three phases, averaged over the models.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Combination {
    /// The phases that are the three channels.
    pub phases: [Phase; 3],
    /// The probabilities in class order.
    pub probabilities: Vec<f32>,
    /// The picture of the network's input, where it was written: the three phases side by side, then as red, green and blue.
    pub picture: Option<PathBuf>,
}

/// The crop of a phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crop {
    /// The phase.
    pub phase: Phase,
    /// The slice and the rectangle on it.
    #[serde(flatten)]
    pub at: CropBox,
    /// The slice of the scan that was given, where it is known ([`Findings::locate`](super::lesion_results::Findings::locate)).
    #[serde(default)]
    pub scan_slice: Option<ScanSlice>,
    /// The picture of the slice with the rectangle, where it was written.
    pub picture: Option<PathBuf>,
}

/// The classification of a lesion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Classification {
    /// The mean of the probabilities over images and models, in class order.
    pub probabilities: Vec<f32>,
    /// The subtype that was decided for.
    pub decision: Subtype,
    /// The probabilities of each image, which were averaged.
    pub images: Vec<Combination>,
    /// The crop of each phase.
    pub crops: Vec<Crop>,
    /// Number of models that were averaged.
    pub models: usize,
    /// The network's input of each phase as grey values; black and white are the ends of `clip`.
    #[serde(skip)]
    pub seen: Vec<(Phase, GrayImage)>,
}

/// An ensemble of ResNets on a device.
pub struct Classifier {
    config: ClassifierConfig,
    models: Vec<ResNet>,
    files: Vec<SourceFile>,
    card: Option<ModelCard>,
    device: Device,
}

impl Classifier {
    /// Reads `config.json`, the weights that it names and the model's card, where there is one, from `folder`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is missing or invalid, for weights outside the folder, and for a parameter of another shape.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("config.json");
        let text = read_small(&path)?;
        let config: ClassifierConfig = serde_json::from_slice(&text).map_err(|e| Error::in_file(&path, e))?;
        config.ensure_valid().map_err(|e| Error::in_file(&path, e))?;
        if config.weights.is_empty() {
            return Err(Error::file(&path, "expected at least one file under \"weights\", found none"));
        }
        if let Some(outside) = config.weights.iter().find(|file| !is_below(file)) {
            let found = shown(&outside.to_string_lossy());
            let reason = format!("weights: expected paths of files in the model's folder, found '{found}'");
            return Err(Error::file(&path, reason));
        }
        let (dtype, mut files) = (config.precision.dtype(device), Vec::new());
        let read = |file: &PathBuf| {
            let path = folder.join(file);
            let weights = Weights::read(&path)?;
            files.push(weights.source());
            let fusion = config.fusion.unwrap_or_else(|| weights.shape(FUSION).is_some());
            ResNet::new(&config.network(fusion), &weights, device, dtype).map_err(|e| match e {
                Error::File { .. } => e,
                other => Error::in_file(&path, other),
            })
        };
        let models = config.weights.iter().map(read).collect::<Result<_>>()?;
        files.push(SourceFile::of(&path, &text));
        let card = ModelCard::find(&[&ModelDir::open(folder)?])?;
        Ok(Self { config, models, files, card, device: device.clone() })
    }

    /// The files of the weights, then config.json; empty for seeded weights.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// What its maker says of it, where its folder has a model.json.
    pub fn card(&self) -> Option<&ModelCard> {
        self.card.as_ref()
    }

    /// The configuration, with what [`Classifier::adjusted`] has put in place of it.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// The same networks with other thresholds and another margin than the configuration's, where they are given.
    ///
    /// # Errors
    /// As [`ensure_thresholds`].
    pub fn adjusted(mut self, thresholds: Option<Vec<f64>>, margin: Option<Margin>) -> Result<Self> {
        self.config.thresholds = thresholds.or(self.config.thresholds);
        self.config.margin = margin.unwrap_or(self.config.margin);
        self.config.ensure_valid()?;
        Ok(self)
    }

    /// One network with random weights from a seed. Its probabilities have no meaning; its arithmetic is that of a trained network.
    ///
    /// # Errors
    /// A configuration out of range; a device that fails.
    pub fn seeded(config: ClassifierConfig, seed: u64, device: &Device) -> Result<Self> {
        config.ensure_valid()?;
        let network = config.network(config.fusion.unwrap_or(true));
        let dtype = config.precision.dtype(device);
        let model = ResNet::new(&network, &seeded_weights(&network, seed)?, device, dtype)?;
        Ok(Self { config, models: vec![model], files: vec![], card: None, device: device.clone() })
    }

    /// Classifies a lesion that is present in every phase: on the slice with its largest area, the rectangle around it is cropped
    /// from each phase and resized to the network's input.
    ///
    /// # Errors
    /// Fewer than three phases; a lesion of masks of another shape; a lesion that is missing in a phase; a device that fails.
    pub fn classify(&self, study: &Study, lesion: &Lesion) -> Result<Classification> {
        let combinations = study.phases().images()?;
        let (size, intensity) = (self.config.input_size, self.config.intensity());
        let found = lesion_crops(study, lesion, &self.config, &self.device)?;
        let seen = found.iter().map(|crop| (crop.phase, grey(&crop.pixels, size, &intensity))).collect();
        let crops =
            found.iter().map(|crop| Crop { phase: crop.phase, at: crop.at, scan_slice: None, picture: None }).collect();
        let images = combinations.into_iter().map(|c| self.one_image(c, &found)).collect::<Result<Vec<_>>>()?;
        let probabilities = mean_rows(images.iter().map(|i| i.probabilities.as_slice()));
        if probabilities.iter().any(|p| !p.is_finite()) {
            let found = format!("{probabilities:?}");
            return Err(Error::Data(format!("the classifier gave {found}, expected probabilities: check its weights")));
        }
        let wide: Vec<f64> = probabilities.iter().map(|v| f64::from(*v)).collect();
        let decision = Subtype::ALL[stats::decide(&wide, self.config.thresholds.as_deref())];
        Ok(Classification { probabilities, decision, images, crops, models: self.models.len(), seen })
    }

    fn one_image(&self, phases: [Phase; 3], crops: &[PhaseCrop]) -> Result<Combination> {
        let size = self.config.input_size;
        let image = lesion_image(phases, crops);
        let mut rows = Vec::new();
        for model in &self.models {
            rows.extend(model.probabilities(&image, [1, size, size])?);
        }
        Ok(Combination { phases, probabilities: mean_rows(rows.iter().map(Vec::as_slice)), picture: None })
    }
}

/// Whether a path leads from a folder to something in it: it is relative, does not go up, and has the name of a file without control
/// characters.
fn is_below(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    path.file_name().is_some() && path.components().all(plain) && !path.to_string_lossy().chars().any(is_unprintable)
}

/// The network's input as grey values.
fn grey(pixels: &[f32], size: usize, intensity: &Intensity) -> GrayImage {
    let [low, high] = intensity.clip;
    GrayImage::from_fn(size as u32, size as u32, |c, r| {
        let hounsfield = pixels[r as usize * size + c as usize] * intensity.sd + intensity.mean;
        Luma([((hounsfield - low) / (high - low) * 255.0).round().clamp(0.0, 255.0) as u8])
    })
}

/// The mean of rows of probabilities.
pub(crate) fn mean_rows<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut sum: Vec<f64> = Vec::new();
    let mut count = 0.0;
    for row in rows {
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        count += 1.0;
    }
    sum.iter().map(|s| (s / f64::max(count, 1.0)) as f32).collect()
}
