//! The whole pipeline: from scans to masks, aligned phases, probabilities, pictures and a report.
//!
//! A result folder with a `result.json` is complete: that file is written last, and the files of an earlier run are removed first.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::align::align;
use super::classify::Classifier;
use super::date;
pub use super::folder::{FAILURE, clear_classification, clear_results};
use super::folder::{FOLDERS, PhaseFiles, REPORT, RESULT};
use super::labels::LabelMap;
use super::lesion_results::findings;
use super::lesions::LesionChoice;
use super::masked_scan::{Segmenting, masked_scan};
pub use super::phase_input::PhaseInput;
use super::result::program;
pub use super::result::{Diagnosis, Models, PhaseResult, SCHEMA_VERSION, Seconds, read_result};
pub use super::run_options::{ModelRun, RunOptions, SegmentationRun, run_options};
use super::segmentation::continue_or_cancel;
use super::{Ensemble, Postprocessing, ScanSlice, SegmentOptions, Segmenter, Stage, Study, report};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::{images, nifti, write_atomic};
use crate::phase::{Phase, PhaseSet, Subtype};
use crate::registration::{RegistrationOptions, transform};
use crate::volume::{Diameter, KIDNEY, LabelVolume, Orientation, TUMOUR};

/// The trained networks of the pipeline on a device.
pub struct System {
    /// The segmentation model, or several; not needed where every phase has a given mask.
    pub segmenter: Option<Ensemble>,
    /// The classification model; not needed for patients with one or two phases.
    pub classifier: Option<Classifier>,
    /// Notes that every result of these models must contain, such as that they are untrained or for phantoms only.
    pub notes: Vec<String>,
}

/// Options of [`diagnose`].
///
/// Construct it with `..Default::default()`, so that fields added in a later version break no caller.
#[derive(Debug, Clone, Default)]
pub struct DiagnoseOptions {
    /// Options of the segmentation of each phase.
    pub segment: SegmentOptions,
    /// What is done to the masks of the segmentation.
    pub postprocessing: Option<Postprocessing>,
    /// Options of the registration of each phase to the reference.
    pub registration: RegistrationOptions,
    /// Which lesions are classified. None: what the classifier was trained on ([`ClassifierConfig::lesion`]).
    ///
    /// [`ClassifierConfig::lesion`]: super::classify::ClassifierConfig::lesion
    pub lesion: Option<LesionChoice>,
}

/// The stage that has begun, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub enum DiagnoseStage {
    /// Segmentation of a phase, and how far it is.
    Segment(Phase, Stage),
    /// Registration of all phases.
    Align,
    /// Lesions and their classification.
    Classify,
    /// Pictures and report.
    Write,
}

/// Runs every stage and writes the result folder, which is created if needed; docs/result.md describes its files. One phase is
/// segmented and measured, two and more are also aligned. Classification needs three and a classifier; without, the result contains
/// the reason why nothing was classified.
/// `progress` is called before each stage and after each tile of the segmentation; [`ControlFlow::Break`] ends the run.
///
/// # Errors
/// No phase, or one that is given twice; a model that is needed and missing; an error of a stage, which names the
/// phase; a file that cannot be written; [`Error::Cancelled`]. A patient without a tumour is not an error.
pub fn diagnose(
    inputs: &[PhaseInput],
    system: &System,
    options: &DiagnoseOptions,
    device: &Device,
    folder: &Path,
    progress: &mut dyn FnMut(DiagnoseStage) -> ControlFlow<()>,
) -> Result<Diagnosis> {
    let started = Instant::now();
    let phases = PhaseSet::new(inputs.iter().map(|i| i.phase))?;
    phases.reference()?;
    ensure_different(inputs)?;
    if system.segmenter.is_none()
        && let Some(input) = inputs.iter().find(|i| i.given.is_none())
    {
        let phase = input.phase;
        return Err(Error::Data(format!("{phase} phase: expected a mask or a segmentation model, found neither")));
    }
    let labels = system.segmenter.as_ref().map(|s| LabelMap::new(s.labels())).transpose()?;
    for name in FOLDERS {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, "the folder cannot be created", e))?;
    }
    let read: Vec<PathBuf> =
        inputs.iter().flat_map(|input| input.files.iter().map(|source| source.file.clone())).collect();
    clear_results(folder, &phases, &read)?;
    let mut seconds = Seconds::default();
    let mut warnings = Vec::new();
    let found = system.segmenter.iter().flat_map(Ensemble::members).flat_map(Segmenter::postprocessing);
    for found in found.filter(|_| options.postprocessing.is_none()) {
        warnings.push(format!("{} was found and not applied", found.path.display()));
    }

    let (mut scans, mut results) = (Vec::new(), Vec::new());
    for input in inputs {
        let segmenting = system.segmenter.as_ref().zip(labels.as_ref()).map(|(model, labels)| {
            let postprocessing = options.postprocessing.as_ref();
            Segmenting { model, labels, options: &options.segment, postprocessing }
        });
        let clock = Instant::now();
        let mut tell = |stage| progress(DiagnoseStage::Segment(input.phase, stage));
        let (scan, told) = masked_scan(input, segmenting, &mut tell)?;
        if input.given.is_none() {
            seconds.segment += clock.elapsed().as_secs_f64();
        }
        let noted = input.image.warnings.iter().chain(&told);
        warnings.extend(noted.map(|w| format!("{} phase: {w}", input.phase)));
        let files = PhaseFiles::of(input.phase);
        let clock = Instant::now();
        nifti::write(folder.join(&files.mask), &input.image.with_volume(scan.mask().clone()))?;
        seconds.write += clock.elapsed().as_secs_f64();
        let turned = scan.reorient(Orientation::LPS)?;
        results.push(PhaseResult {
            phase: input.phase,
            input: input.path.clone(),
            files: input.files.clone(),
            mask: files.mask,
            kidney_ml: scan.mask().volume_ml(&[KIDNEY]),
            tumour_ml: scan.mask().volume_ml(&[TUMOUR]),
            tumour_diameter: largest_diameter(turned.mask()),
            aligned: files.aligned,
            aligned_mask: files.aligned_mask,
            registration: None,
            transform: None,
            pictures: vec![],
            picture_slices: vec![],
        });
        scans.push(turned);
    }

    continue_or_cancel(progress(DiagnoseStage::Align))?;
    let clock = Instant::now();
    let alignment = align(&Study::new(scans)?, &options.registration, device)?;
    seconds.align = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    for (((result, input), scan), found) in
        results.iter_mut().zip(inputs).zip(alignment.scans.scans()).zip(&alignment.registrations)
    {
        let reference = inputs.iter().find(|i| i.phase == alignment.reference).unwrap_or(&inputs[0]);
        let own = reference.image.volume.orientation();
        let mask = scan.mask().to_volume();
        for (path, volume) in [(&result.aligned, scan.image()), (&result.aligned_mask, &mask)] {
            nifti::write(folder.join(path), &input.image.moved_to(&reference.image, volume.reorient(own)?))?;
        }
        if let Some(found) = found {
            warnings.extend(found.warnings.iter().map(|w| format!("{} phase: {w}", scan.phase())));
            let path = PhaseFiles::of(scan.phase()).transform;
            transform::write_itk_as(folder.join(&path), &found.transform, found.transformation)?;
            result.transform = Some(path);
        }
        result.registration.clone_from(found);
    }
    seconds.write += clock.elapsed().as_secs_f64();

    continue_or_cancel(progress(DiagnoseStage::Classify))?;
    let clock = Instant::now();
    let mut findings = findings(&alignment.scans, system.classifier.as_ref(), options.lesion)?;
    seconds.classify = clock.elapsed().as_secs_f64();
    warnings.append(&mut findings.warnings);
    continue_or_cancel(progress(DiagnoseStage::Write))?;
    let clock = Instant::now();
    // A point of the reference's scan lies elsewhere in the scan of another phase.
    let slice = |phase: Phase, point: [f64; 3]| {
        let input = inputs.iter().find(|input| input.phase == phase);
        let input = input.ok_or_else(|| Error::Data(format!("expected a {phase} phase, found none")))?;
        let found = results.iter().find(|result| result.phase == phase).and_then(|r| r.registration.as_ref());
        ScanSlice::at(&input.image.volume.grid(), found.map_or(point, |found| found.transform.apply(point)))
    };
    findings.locate(&alignment.scans, &slice)?;
    findings.write_pictures(&alignment.scans, folder)?;
    let mut pictures = Vec::new();
    for scan in alignment.scans.scans() {
        let written = report::write_overlays(scan, &alignment, folder)?;
        let slices = written.iter().map(|(_, point)| slice(scan.phase(), *point)).collect::<Result<Vec<_>>>()?;
        pictures.push((written.into_iter().map(|(path, _)| path).collect(), slices));
    }
    for (result, (pictures, slices)) in results.iter_mut().zip(pictures) {
        (result.pictures, result.picture_slices) = (pictures, slices);
    }
    seconds.write += clock.elapsed().as_secs_f64();
    seconds.total = started.elapsed().as_secs_f64();
    let diagnosis = Diagnosis {
        schema_version: SCHEMA_VERSION,
        program: program(),
        device: device.name(),
        date: Some(date::now()),
        models: Models {
            segmentation: system.segmenter.as_ref().map(Ensemble::files).unwrap_or_default(),
            classification: system.classifier.as_ref().map(|c| c.files().to_vec()).unwrap_or_default(),
            segmentation_card: system.segmenter.as_ref().and_then(|s| s.members()[0].card().cloned()),
        },
        options: Some(run_options(system, options, inputs.iter().any(|input| input.given.is_some()))),
        notes: system.notes.clone(),
        warnings,
        reference: alignment.reference,
        slices: alignment.slices,
        phases: results,
        classes: Subtype::ALL,
        findings,
        seconds,
    };
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    // Its pictures are part of it, so that the page can be passed on alone.
    let picture = |path: &str| std::fs::read(folder.join(path)).ok();
    let page = report::page(&diagnosis, &name).html(&picture);
    write_atomic(folder.join(REPORT), |file| file.write_all(page.as_bytes()))?;
    let text = serde_json::to_string_pretty(&diagnosis).map_err(|e| Error::other("result.json", e))?;
    write_atomic(folder.join(RESULT), |file| writeln!(file, "{text}"))?;
    Ok(diagnosis)
}

/// Refuses one scan given as two phases, under whatever names.
fn ensure_different(inputs: &[PhaseInput]) -> Result<()> {
    for (i, input) in inputs.iter().enumerate() {
        // Headers of different scans may be the same: what counts is the file of the voxels, behind that of a header.
        let voxels = |input: &PhaseInput| images::files(&input.path).len().checked_sub(1);
        let hash = |input: &PhaseInput| input.files.get(voxels(input)?).map(|source| source.sha256.clone());
        if let Some(other) = inputs[..i].iter().find(|other| hash(other).is_some() && hash(other) == hash(input)) {
            let [a, b] = [other, input].map(|i| format!("{} ({} phase)", i.path.display(), i.phase));
            return Err(Error::Inputs(format!("{a} and {b} are the same image, expected a scan of each phase")));
        }
    }
    Ok(())
}

/// The diameter of the largest tumour component of a mask in LPS orientation; 0 without a tumour.
fn largest_diameter(mask: &LabelVolume) -> Diameter {
    let largest = mask.components(TUMOUR).into_iter().next();
    largest.map(|c| c.diameter(&mask.affine())).unwrap_or_default()
}
