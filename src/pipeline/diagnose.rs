//! The whole pipeline: scans in; masks, aligned phases, probabilities, pictures and a report out.
//!
//! A result folder holds `masks/` (each on its own scan's grid), `aligned/` (images and masks on the reference's grid),
//! `pictures/`, `report.html` and, written last, `result.json`: where it is, the run is whole.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::align::{Scan, align};
use super::classify::{Classifier, LEAST_PHASES, PhaseImage};
use super::crop::TUMOUR;
use super::findings::findings;
use super::labels::LabelMap;
use super::lesions::LesionChoice;
pub use super::result::{Diagnosis, Models, PhaseResult, SCHEMA_VERSION, Seconds, clear};
use super::{SegmentOptions, Segmenter, Stage, pictures};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::nifti::{self, Image};
use crate::io::{SourceFile, hash_files, write_atomic};
use crate::phase::{Phase, Subtype};
use crate::registration::{RegistrationOptions, transform};
use crate::volume::{Diameter, Orientation, Volume, Voxels, components};

/// One phase to work on.
pub struct PhaseInput {
    /// Which phase.
    pub phase: Phase,
    /// Where the scan came from, for the result.
    pub path: PathBuf,
    /// The files it was read from, and its mask, with their hashes.
    pub files: Vec<SourceFile>,
    /// CT in Hounsfield units.
    pub image: Image,
    /// 1 kidney, 2 tumour, on the image's grid: then nothing is segmented.
    pub mask: Option<Volume>,
}

/// The trained parts on a device.
pub struct System {
    /// Finds kidneys and tumours; not needed where every phase brings its mask.
    pub segmenter: Option<Segmenter>,
    /// Tells the subtypes apart; not needed for patients of two phases.
    pub classifier: Option<Classifier>,
    /// What every result of these models must carry: that they are untrained, or for phantoms only.
    pub notes: Vec<String>,
}

/// How to go about it.
#[derive(Debug, Clone, Default)]
pub struct DiagnoseOptions {
    /// Of each phase.
    pub segment: SegmentOptions,
    /// Of every phase but the reference.
    pub registration: RegistrationOptions,
    /// Which lesions are classified.
    pub lesion: LesionChoice,
}

/// What is under way.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    /// A phase's segmentation.
    Segment(Phase, Stage),
    /// Registration.
    Align,
    /// Classification, pictures, report.
    Classify,
}

/// Runs every stage and writes the result folder, which is made when missing. Two phases are segmented and aligned; three are
/// needed to classify, and the result says so.
///
/// # Errors
/// Fewer than two phases or one twice; whatever a stage fails with, the phase named. No tumour is no error.
pub fn diagnose(
    inputs: &[PhaseInput],
    system: &System,
    options: &DiagnoseOptions,
    device: &Device,
    folder: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<Diagnosis> {
    let started = Instant::now();
    let phases: Vec<Phase> = inputs.iter().map(|i| i.phase).collect();
    if phases.len() < 2 {
        return Err(Error::Usage(format!("diagnose needs two to four phases, {} given", phases.len())));
    }
    if phases.len() >= LEAST_PHASES {
        super::classify::combinations(&phases)?;
        system.classifier.as_ref().ok_or_else(|| Error::Usage("expected a classification model, found none".into()))?;
    }
    super::align::reference(&phases)?;
    for input in inputs {
        check_mask(input, system)?;
    }
    let labels = system.segmenter.as_ref().map(|s| LabelMap::new(&s.plan().labels)).transpose()?;
    for name in ["masks", "aligned", "pictures"] {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|e| Error::file(&path, format!("the folder cannot be made: {e}")))?;
    }
    clear(folder, &["result.json", "report.html"])?;
    let mut seconds = Seconds::default();
    let mut warnings = Vec::new();

    let (lps, mut scans, mut results) = (Orientation::LPS, Vec::new(), Vec::new());
    for input in inputs {
        let named = |e: Error| Error::Data(format!("{} ({} phase): {e}", input.path.display(), input.phase));
        let mut noted = input.image.warnings.clone();
        let found = match (&input.mask, &system.segmenter, &labels) {
            (None, Some(segmenter), Some(labels)) => {
                let mut tell = |stage| progress(Step::Segment(input.phase, stage));
                let found = segmenter.segment(&input.image.volume, &options.segment, &mut tell).map_err(named)?;
                noted.extend(found.warnings);
                seconds.segment += found.seconds.preprocess + found.seconds.network + found.seconds.export;
                labels.apply(&found.mask)
            }
            // `check_mask` has seen that there is one.
            (mask, ..) => mask.clone().ok_or_else(|| Error::Data("neither a mask nor a segmentation model".into()))?,
        };
        warnings.extend(noted.iter().map(|w| format!("{} phase: {w}", input.phase)));
        let mask = PathBuf::from(format!("masks/{}_mask.nii.gz", input.phase));
        let clock = Instant::now();
        nifti::write(folder.join(&mask), &input.image.with_volume(found.clone()))?;
        seconds.write += clock.elapsed().as_secs_f64();
        scans.push(Scan { phase: input.phase, image: input.image.volume.reorient(lps)?, mask: found.reorient(lps)? });
        results.push(PhaseResult {
            phase: input.phase,
            input: input.path.clone(),
            files: input.files.clone(),
            mask,
            kidney_ml: millilitres(&found, 1),
            tumour_ml: millilitres(&found, TUMOUR),
            tumour_diameter: largest_diameter(&scans[scans.len() - 1].mask),
            aligned: format!("aligned/{}.nii.gz", input.phase).into(),
            aligned_mask: format!("aligned/{}_mask.nii.gz", input.phase).into(),
            registration: None,
            transform: None,
            pictures: vec![],
        });
    }

    progress(Step::Align);
    let clock = Instant::now();
    let alignment = align(&scans, &options.registration, device)?;
    seconds.align = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    for ((result, scan), found) in results.iter_mut().zip(&alignment.scans).zip(&alignment.moves) {
        let reference = inputs.iter().find(|i| i.phase == alignment.reference).unwrap_or(&inputs[0]);
        let own = reference.image.volume.orientation();
        for (path, volume) in [(&result.aligned, &scan.image), (&result.aligned_mask, &scan.mask)] {
            nifti::write(folder.join(path), &reference.image.with_volume(volume.reorient(own)?))?;
        }
        if let Some(found) = found {
            warnings.extend(found.warnings.iter().map(|w| format!("{} phase: {w}", scan.phase)));
            let path = PathBuf::from(format!("aligned/{}.tfm", scan.phase));
            transform::write_itk(folder.join(&path), &found.transform)?;
            result.transform = Some(path);
        }
        result.registration.clone_from(found);
    }
    seconds.write += clock.elapsed().as_secs_f64();

    progress(Step::Classify);
    let clock = Instant::now();
    let image = |s: &Scan| PhaseImage { phase: s.phase, image: s.image.clone(), mask: s.mask.clone() };
    let images: Vec<PhaseImage> = alignment.scans.iter().map(image).collect();
    let mut findings = findings(&images, system.classifier.as_ref(), options.lesion)?;
    seconds.classify = clock.elapsed().as_secs_f64();
    warnings.append(&mut findings.warnings);
    let clock = Instant::now();
    findings.write_pictures(&images, folder)?;
    for (result, scan) in results.iter_mut().zip(&alignment.scans) {
        result.pictures = pictures::write(scan, &alignment, folder)?;
    }
    seconds.write += clock.elapsed().as_secs_f64();
    seconds.total = started.elapsed().as_secs_f64();
    let diagnosis = Diagnosis {
        schema_version: SCHEMA_VERSION,
        program: format!("nephron {}", env!("CARGO_PKG_VERSION")),
        device: device.name(),
        models: Models {
            segmentation: system.segmenter.as_ref().map(|s| s.files().to_vec()).unwrap_or_default(),
            classification: system.classifier.as_ref().map(|c| c.files().to_vec()).unwrap_or_default(),
        },
        notes: system.notes.clone(),
        warnings,
        reference: alignment.reference,
        slices: alignment.slices,
        phases: results,
        classes: Subtype::ALL,
        findings,
        seconds,
    };
    let page = pictures::page(&diagnosis).html();
    write_atomic(folder.join("report.html"), |file| file.write_all(page.as_bytes()))?;
    let text = serde_json::to_string_pretty(&diagnosis).map_err(|e| Error::Data(format!("result.json: {e}")))?;
    write_atomic(folder.join("result.json"), |file| writeln!(file, "{text}"))?;
    Ok(diagnosis)
}

impl PhaseInput {
    /// Reads a scan and, if one is given, its mask.
    ///
    /// # Errors
    /// As [`nifti::read_ct`] and [`nifti::read_labels`].
    pub fn read(phase: Phase, path: &Path, mask: Option<&Path>) -> Result<Self> {
        let mut image = nifti::read_ct(path)?;
        let labels = mask.map(nifti::read_labels).transpose()?;
        image.warnings.extend(labels.iter().flat_map(|mask| &mask.warnings).map(|w| format!("mask: {w}")));
        let files: Vec<PathBuf> =
            nifti::files(path).into_iter().chain(mask.into_iter().flat_map(nifti::files)).collect();
        Ok(Self { phase, path: path.to_path_buf(), files: hash_files(&files)?, image, mask: labels.map(|m| m.volume) })
    }
}

/// Of a mask in LPS orientation.
fn largest_diameter(mask: &Volume) -> Diameter {
    let Voxels::U8(labels) = &mask.voxels else { return Diameter::default() };
    let largest = components(labels, mask.shape, TUMOUR).into_iter().next();
    largest.map(|c| c.diameter(&mask.affine)).unwrap_or_default()
}

/// A given mask holds labels on the image's grid; without one there is a model to make it.
fn check_mask(input: &PhaseInput, system: &System) -> Result<()> {
    let Some(mask) = &input.mask else {
        let none =
            || Error::Data(format!("{} phase: expected a mask or a segmentation model, found neither", input.phase));
        return system.segmenter.as_ref().map(drop).ok_or_else(none);
    };
    if !matches!(mask.voxels, Voxels::U8(_)) {
        return Err(Error::argument(format!("{} phase: mask: dtype", input.phase), "u8", mask.voxels.dtype()));
    }
    if !mask.grid().matches(&input.image.volume.grid()) {
        let [image, mask] = [&input.image.volume, mask].map(|v| format!("{:?} at {:?}", v.shape, v.affine.0));
        return Err(Error::shape(format!("{} phase: mask's grid", input.phase), image, mask));
    }
    Ok(())
}

fn millilitres(mask: &Volume, label: u8) -> f64 {
    let Voxels::U8(labels) = &mask.voxels else { return 0.0 };
    let voxels = labels.iter().filter(|l| **l == label).count();
    voxels as f64 * mask.affine.determinant().abs() / 1000.0
}
