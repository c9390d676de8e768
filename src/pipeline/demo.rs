//! The models that come with the program. They run the whole pipeline on a phantom and are not for patients.

use std::io::Write;
use std::path::Path;

use super::classify::Classifier;
use super::diagnose::System;
use super::{ModelOptions, Precision, Segmenter};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::write_atomic;

/// A file of models/demo, by its folder and name.
macro_rules! shipped {
    ($folder:literal, $name:literal) => {
        ($folder, $name, include_bytes!(concat!("../../models/demo/", $folder, "/", $name)) as &[u8])
    };
}

/// A small U-Net and a small ResNet, trained on phantoms (scripts/train-demo).
const FILES: [(&str, &str, &[u8]); 7] = [
    shipped!("segmentation", "plans.json"),
    shipped!("segmentation", "model.json"),
    shipped!("segmentation", "dataset.json"),
    shipped!("segmentation", "fold_0.safetensors"),
    shipped!("classification", "config.json"),
    shipped!("classification", "model.json"),
    shipped!("classification", "fold_0.safetensors"),
];

/// Writes both models to `folder`, which is a model folder like any other, and loads them from there.
///
/// # Errors
/// A folder that cannot be written; a device that fails.
pub fn system(folder: &Path, device: &Device) -> Result<System> {
    for (part, name, bytes) in FILES {
        let place = folder.join(part);
        std::fs::create_dir_all(&place).map_err(|e| Error::io(&place, "the folder cannot be created", e))?;
        write_atomic(place.join(name), |file| file.write_all(bytes))?;
    }
    let segmenter =
        Segmenter::load(&folder.join("segmentation"), &ModelOptions::default(), Precision::Fastest, device)?;
    Ok(System {
        segmenter: Some(segmenter.into()),
        classifier: Some(Classifier::read(&folder.join("classification"), device)?),
        notes: vec!["Both networks were trained on synthetic patients only: they are not for real scans.".into()],
    })
}
