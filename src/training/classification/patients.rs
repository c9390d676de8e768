//! Patients of a training: from scans and masks to the classifier's images, by the pipeline's own code.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::kept_crops;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::{SourceFile, hash_files, images};
use crate::phase::{Phase, PhaseSet, Subtype};
use crate::pipeline::align::align;
use crate::pipeline::classify::ClassifierConfig;
use crate::pipeline::diagnose::PhaseInput;
use crate::pipeline::labels::LabelMap;
use crate::pipeline::{
    Ensemble, PhaseCrop, Postprocessing, SegmentOptions, Segmenting, Stage, Study, lesion_crops, lesion_image,
    lesion_of, masked_scan,
};
use crate::registration::RegistrationOptions;
use crate::shown;
use crate::volume::Orientation;

/// The files of one patient, with the subtype of the tumour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatientFiles {
    /// The name, which no other patient has; that of a file.
    pub name: String,
    /// The subtype.
    pub subtype: Subtype,
    /// The scans, three or four.
    pub scans: Vec<ScanFiles>,
}

/// The files of one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanFiles {
    /// The phase.
    pub phase: Phase,
    /// The scan.
    pub image: PathBuf,
    /// Its mask of kidney and tumour; None where it is to be segmented.
    pub mask: Option<PathBuf>,
}

/// How patients become images; what decides them is the same as in [`diagnose`](crate::pipeline::diagnose::diagnose()).
#[derive(Clone, Copy)]
pub struct Preparation<'a> {
    /// Size, intensities and margin of the images, and the lesion that is cropped.
    pub config: &'a ClassifierConfig,
    /// The segmentation of scans without a mask; not needed where all have one.
    pub segmenter: Option<&'a Ensemble>,
    /// Its options.
    pub segment: &'a SegmentOptions,
    /// What is done to its masks.
    pub postprocessing: Option<&'a Postprocessing>,
    /// The alignment of the phases.
    pub registration: &'a RegistrationOptions,
    /// Where it is computed.
    pub device: &'a Device,
}

/// A patient whose crops are in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Patient {
    /// The name.
    pub name: String,
    /// The subtype.
    pub subtype: Subtype,
    /// The phases of each image's channels.
    pub images: Vec<[Phase; 3]>,
    /// The crop of each phase.
    pub crops: Vec<PhaseCrop>,
}

impl PatientFiles {
    fn phases(&self) -> Result<PhaseSet> {
        PhaseSet::new(self.scans.iter().map(|scan| scan.phase))
    }

    /// Refuses a patient without enough phases.
    ///
    /// # Errors
    /// Fewer than three phases; the error names the patient.
    pub(super) fn ensure_classifiable(&self) -> Result<()> {
        let enough = self.phases().and_then(|phases| phases.ensure_classifiable());
        enough.map_err(|e| e.context(self.shown()))
    }

    fn shown(&self) -> String {
        format!("patient {}", shown(&self.name))
    }

    /// The patient's crops, out of `folder` where they are kept there of the same files, models and options, else made and kept.
    ///
    /// # Errors
    /// A file that cannot be read or written; fewer than three phases; a phase without a mask and no model; masks that cannot be
    /// registered; no tumour that is present in every phase; a device that fails; [`Error::Cancelled`]. The error names the patient.
    pub fn prepare(
        &self,
        how: &Preparation<'_>,
        folder: &Path,
        warn: &mut dyn FnMut(String),
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Patient> {
        let mut named = |warning: String| warn(format!("{}: {warning}", self.shown()));
        let patient = self.prepared(how, folder, &mut named, progress);
        patient.map_err(|e| if matches!(e, Error::Cancelled) { e } else { e.context(self.shown()) })
    }

    fn prepared(
        &self,
        how: &Preparation<'_>,
        folder: &Path,
        warn: &mut dyn FnMut(String),
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Patient> {
        let images = self.phases()?.images()?;
        let path = folder.join(format!("{}.safetensors", self.name));
        let key = self.key(how)?;
        let size = how.config.input_size;
        let crops = match kept_crops::read(&path, &key, size) {
            Some(crops) => crops,
            None => {
                let crops = self.crops(how, warn, progress)?;
                kept_crops::write(&path, &key, size, &crops)?;
                crops
            }
        };
        Ok(Patient { name: self.name.clone(), subtype: self.subtype, images, crops })
    }

    fn crops(
        &self,
        how: &Preparation<'_>,
        warn: &mut dyn FnMut(String),
        progress: &mut dyn FnMut(Stage) -> ControlFlow<()>,
    ) -> Result<Vec<PhaseCrop>> {
        let labels = how.segmenter.map(|model| LabelMap::new(model.labels())).transpose()?;
        let segmenting = how.segmenter.zip(labels.as_ref()).map(|(model, labels)| Segmenting {
            model,
            labels,
            options: how.segment,
            postprocessing: how.postprocessing,
        });
        let mut scans = Vec::with_capacity(self.scans.len());
        for ScanFiles { phase, image, mask } in &self.scans {
            let input = PhaseInput::read(*phase, image, mask.as_deref())?;
            let (scan, told) = masked_scan(&input, segmenting, progress)?;
            input.image.warnings.iter().chain(&told).for_each(|w| warn(format!("{phase} phase: {w}")));
            scans.push(scan.reorient(Orientation::LPS)?);
        }
        let alignment = align(&Study::new(scans)?, how.registration, how.device)?;
        let found = alignment.registrations.iter().zip(&self.scans);
        for (registration, scan) in found.filter_map(|(found, scan)| Some((found.as_ref()?, scan))) {
            registration.warnings.iter().for_each(|w| warn(format!("{} phase: {w}", scan.phase)));
        }
        let lesion = lesion_of(&alignment.scans, how.config.lesion)?;
        lesion_crops(&alignment.scans, &lesion, how.config, how.device)
    }

    /// What the crops depend on, as text.
    fn key(&self, how: &Preparation<'_>) -> Result<String> {
        let mut scans = Vec::new();
        for ScanFiles { phase, image, mask } in &self.scans {
            let files: Vec<PathBuf> =
                images::files(image).into_iter().chain(mask.iter().flat_map(images::files)).collect();
            let hashes: Vec<String> = hash_files(&files)?.into_iter().map(|source| source.sha256).collect();
            scans.push(json!({ "phase": phase, "files": hashes }));
        }
        let ClassifierConfig { input_size, clip, mean, sd, margin, .. } = how.config;
        let segments = self.scans.iter().any(|scan| scan.mask.is_none());
        let segmentation = how.segmenter.filter(|_| segments).map(|model| {
            let hashes: Vec<String> = model.files().into_iter().map(|source: SourceFile| source.sha256).collect();
            json!({ "models": hashes, "options": format!("{:?} {:?}", how.segment, how.postprocessing) })
        });
        let key = json!({
            "scans": scans,
            "segmentation": segmentation,
            "registration": format!("{:?}", how.registration),
            "lesion": how.config.lesion,
            "crop": format!("{input_size} {clip:?} {mean} {sd} {margin}"),
        });
        Ok(key.to_string())
    }
}

impl Patient {
    /// An image as the network sees it: three channels, one behind the other.
    pub fn image(&self, number: usize) -> Vec<f32> {
        self.images.get(number).map_or_else(Vec::new, |phases| lesion_image(*phases, &self.crops))
    }
}
