//! Stage 3: subtype probabilities from the phases and their masks.
//!
//! Three phases make one image, a phase a channel. Four make three images, each leaving out one contrast phase:
//! (N, A, P), (N, A, D), (N, P, D); the softmax vectors of all images and all models are averaged (Uhm et al. 2021).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::crop::{self, CropBox};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::models::resnet::{ResNet, ResNetConfig, seeded_weights};
use crate::ops::Intensity;
use crate::phase::{Phase, Subtype};
use crate::stats;
use crate::tensor::DType;
use crate::volume::Volume;

/// `classification/config.json`. Everything but the weight files has the authors' value by default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Depth of the ResNet: 18, 34, 50, 101 or 152.
    pub depth: usize,
    /// Is there a 1x1 fusion convolution in front?
    pub fusion: bool,
    /// Side of the square image.
    pub input_size: usize,
    /// Hounsfield units are clipped to this range,
    pub clip: [f32; 2],
    /// less this mean,
    pub mean: f32,
    /// over this standard deviation.
    pub sd: f32,
    /// Voxels that the tumour's rectangle grows by on each side.
    pub margin: usize,
    /// A threshold per class, in class order. Given, the decision is the highest score above its own, else the highest.
    pub thresholds: Option<Vec<f32>>,
    /// Weight files beside the configuration; several are an ensemble.
    pub weights: Vec<PathBuf>,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            depth: 101,
            fusion: true,
            input_size: 224,
            clip: [-40.0, 347.0],
            mean: 112.754_57,
            sd: 97.874_36,
            margin: 0,
            thresholds: None,
            weights: vec![],
        }
    }
}

/// One phase of a patient with its mask, both in LPS orientation on one grid.
pub struct PhaseImage {
    /// Which phase.
    pub phase: Phase,
    /// CT in Hounsfield units.
    pub image: Volume,
    /// 1 kidney, 2 tumour.
    pub mask: Volume,
}

/// The answer for one image of three phases, averaged over the models.
#[derive(Debug, Clone, Serialize)]
pub struct Combination {
    /// The phases, a channel each.
    pub phases: [Phase; 3],
    /// In class order.
    pub probabilities: Vec<f32>,
}

/// The answer for a patient.
#[derive(Debug, Clone, Serialize)]
pub struct Classification {
    /// Mean over images and models, in class order.
    pub probabilities: Vec<f32>,
    /// The subtype decided for.
    pub decision: Subtype,
    /// What was averaged.
    pub images: Vec<Combination>,
    /// Where each phase was cropped.
    pub crops: Vec<(Phase, CropBox)>,
    /// Models averaged.
    pub models: usize,
}

/// An ensemble on a device.
pub struct Classifier {
    config: ClassifierConfig,
    models: Vec<ResNet>,
    device: Device,
}

impl Classifier {
    /// Reads `config.json` and the weights that it names from `folder`.
    ///
    /// # Errors
    /// A file that is missing or wrong, a parameter of another shape; each names the file.
    pub fn read(folder: &Path, device: &Device) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::file(&path, e))?;
        let config: ClassifierConfig = serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
        config.check().map_err(|e| Error::file(&path, e))?;
        if config.weights.is_empty() {
            return Err(Error::file(&path, "expected at least one file under \"weights\", found none"));
        }
        let read = |file: &PathBuf| {
            let path = folder.join(file);
            ResNet::new(&config.network(), &Weights::read(&path)?, device, DType::F32).map_err(|e| match e {
                Error::File { .. } => e,
                other => Error::file(&path, other),
            })
        };
        let models = config.weights.iter().map(read).collect::<Result<_>>()?;
        Ok(Self { config, models, device: device.clone() })
    }

    /// One network with weights drawn from a seed: its answers mean nothing, its arithmetic is the real one.
    ///
    /// # Errors
    /// A configuration out of range; a device that fails.
    pub fn seeded(config: ClassifierConfig, seed: u64, device: &Device) -> Result<Self> {
        config.check()?;
        let network = config.network();
        let model = ResNet::new(&network, &seeded_weights(&network, seed)?, device, DType::F32)?;
        Ok(Self { config, models: vec![model], device: device.clone() })
    }

    /// Probabilities for a patient. None when some phase has no tumour in its mask: there is nothing to classify.
    ///
    /// # Errors
    /// Fewer than three phases; a mask and an image of different shapes; a device that fails.
    pub fn classify(&self, phases: &[PhaseImage]) -> Result<Option<Classification>> {
        let combinations = combinations(&phases.iter().map(|p| p.phase).collect::<Vec<_>>())?;
        let mut crops = Vec::new();
        let mut channels = Vec::new();
        for p in phases {
            p.image.validate()?;
            p.mask.validate()?;
            if p.image.shape != p.mask.shape {
                let (image, mask) = (format!("{:?}", p.image.shape), format!("{:?}", p.mask.shape));
                return Err(Error::shape(format!("{} mask", p.phase), image, mask));
            }
            let Some(at) = crop::tumour_box(crop::labels(&p.mask)?, p.mask.shape, self.config.margin) else {
                return Ok(None);
            };
            let size = self.config.input_size;
            channels.push((p.phase, crop::crop(&p.image, &at, &self.config.intensity(), size, &self.device)?));
            crops.push((p.phase, at));
        }
        let images = combinations.into_iter().map(|c| self.one_image(c, &channels)).collect::<Result<Vec<_>>>()?;
        let probabilities = mean_rows(images.iter().map(|i| i.probabilities.as_slice()));
        if probabilities.iter().any(|p| !p.is_finite()) {
            let found = format!("{probabilities:?}");
            return Err(Error::Data(format!("the classifier gave {found}, expected probabilities: check its weights")));
        }
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let thresholds = self.config.thresholds.as_deref().map(wide);
        let decision = Subtype::ALL[stats::decide(&wide(&probabilities), thresholds.as_deref())];
        Ok(Some(Classification { probabilities, decision, images, crops, models: self.models.len() }))
    }

    fn one_image(&self, phases: [Phase; 3], channels: &[(Phase, Vec<f32>)]) -> Result<Combination> {
        let size = self.config.input_size;
        let mut image = Vec::with_capacity(3 * size * size);
        for phase in phases {
            for (_, pixels) in channels.iter().filter(|(p, _)| *p == phase) {
                image.extend_from_slice(pixels);
            }
        }
        let mut rows = Vec::new();
        for model in &self.models {
            rows.extend(model.probabilities(&image, [1, size, size])?);
        }
        Ok(Combination { phases, probabilities: mean_rows(rows.iter().map(Vec::as_slice)) })
    }
}

impl ClassifierConfig {
    fn network(&self) -> ResNetConfig {
        ResNetConfig { depth: self.depth, classes: Subtype::ALL.len(), fusion: self.fusion }
    }

    fn intensity(&self) -> Intensity {
        Intensity { clip: self.clip, mean: self.mean, sd: self.sd }
    }

    fn check(&self) -> Result<()> {
        self.network().blocks()?;
        if !(32..=4096).contains(&self.input_size) {
            return Err(Error::argument("input_size", "32 to 4096", self.input_size));
        }
        let [low, high] = self.clip;
        let finite = [low, high, self.mean, self.sd].iter().all(|v| v.is_finite());
        if !finite || low >= high || self.sd <= 0.0 {
            let found = format!("clip {:?}, mean {}, sd {}", self.clip, self.mean, self.sd);
            return Err(Error::argument("intensities", "finite values, clip ascending, sd above 0", found));
        }
        match &self.thresholds {
            Some(t) if t.len() != Subtype::ALL.len() => {
                Err(Error::argument("thresholds", format!("{} numbers", Subtype::ALL.len()), t.len()))
            }
            _ => Ok(()),
        }
    }
}

/// The images of a set of phases: itself for three, three for all four.
pub(super) fn combinations(phases: &[Phase]) -> Result<Vec<[Phase; 3]>> {
    let mut sorted = phases.to_vec();
    sorted.sort();
    sorted.dedup();
    if sorted.len() != phases.len() {
        return Err(Error::Usage("a phase is given twice".into()));
    }
    match *sorted {
        [a, b, c] => Ok(vec![[a, b, c]]),
        [n, a, p, d] => Ok(vec![[n, a, p], [n, a, d], [n, p, d]]),
        _ => Err(Error::Usage(format!("classification needs three or four phases, {} given", phases.len()))),
    }
}

fn mean_rows<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut sum: Vec<f64> = Vec::new();
    let mut count = 0.0;
    for row in rows {
        sum.resize(row.len(), 0.0);
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
        count += 1.0;
    }
    sum.iter().map(|s| (s / f64::max(count, 1.0)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_phases_leave_out_one_contrast_phase_each() {
        use Phase::{Arterial as A, Delayed as D, NonContrast as N, Portal as P};
        assert_eq!(combinations(&[P, D, N, A]).expect("four"), [[N, A, P], [N, A, D], [N, P, D]]);
        assert_eq!(combinations(&[D, A, P]).expect("three"), [[A, P, D]]);
        assert!(combinations(&[A, P]).is_err());
        assert!(combinations(&[A, P, P]).is_err());
    }
}
