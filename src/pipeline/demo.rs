//! The models that come with the program. They run the whole pipeline on a phantom and are not for patients.

use std::io::Write;
use std::path::Path;

use super::classify::{Classifier, ClassifierConfig};
use super::diagnose::System;
use super::{ModelOptions, Precision, Segmenter};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::write_atomic;

/// The small U-Net of models/demo, trained on phantoms (scripts/train-demo).
const FILES: [(&str, &[u8]); 4] = [
    ("plans.json", include_bytes!("../../models/demo/segmentation/plans.json")),
    ("model.json", include_bytes!("../../models/demo/segmentation/model.json")),
    ("dataset.json", include_bytes!("../../models/demo/segmentation/dataset.json")),
    ("weights.safetensors", include_bytes!("../../models/demo/segmentation/weights.safetensors")),
];

/// The seed of the weights of the demo's classifier.
const SEED: u64 = 101;

/// Writes the segmentation model to `folder`/segmentation, a model folder like any other, and loads it from there. The classifier
/// is a ResNet-101 with seeded weights.
///
/// # Errors
/// A folder that cannot be written; a device that fails.
pub fn system(folder: &Path, device: &Device) -> Result<System> {
    let segmentation = folder.join("segmentation");
    std::fs::create_dir_all(&segmentation).map_err(|e| Error::io(&segmentation, "the folder cannot be created", e))?;
    for (name, bytes) in FILES {
        write_atomic(segmentation.join(name), |file| file.write_all(bytes))?;
    }
    Ok(System {
        segmenter: Some(Segmenter::load(&segmentation, &ModelOptions::default(), Precision::Fastest, device)?.into()),
        classifier: Some(Classifier::seeded(ClassifierConfig::default(), SEED, device)?),
        notes: vec![
            "The segmentation network was trained on synthetic patients only.".into(),
            "No trained classifier is shipped: the subtype probabilities come from seeded weights and mean nothing."
                .into(),
        ],
    })
}
