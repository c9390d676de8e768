//! The whole pipeline: from scans to masks, aligned phases, probabilities, pictures and a report.
//!
//! A result folder with a `result.json` is complete: that file is written last, and the files of an earlier run are removed first.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::align::align;
use super::classify::Classifier;
pub use super::folder::clear_classification;
pub use super::folder::clear_results;
use super::folder::{FOLDERS, PhaseFiles, REPORT, RESULT};
use super::labels::LabelMap;
use super::lesion_results::findings;
use super::lesions::LesionChoice;
use super::result::program;
pub use super::result::{Diagnosis, Models, PhaseResult, RunOptions, SCHEMA_VERSION, Seconds, read_result};
use super::segmentation::continue_or_cancel;
use super::{Mirroring, PhaseScan, SegmentOptions, Segmenter, Stage, Study, report};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::nifti::{self, Image, LabelImage};
use crate::io::{SourceFile, hash_files, images, write_atomic};
use crate::phase::{Phase, PhaseSet, Subtype};
use crate::registration::{RegistrationOptions, transform};
use crate::volume::{Diameter, KIDNEY, LabelVolume, Orientation, TUMOUR};

/// One phase as it was read. The segmentation turns it into a [`PhaseScan`].
pub struct PhaseInput {
    /// The phase.
    pub phase: Phase,
    /// The path of the scan, for the result.
    pub path: PathBuf,
    /// The files of the scan and of a given mask, with their hashes.
    pub files: Vec<SourceFile>,
    /// The CT in Hounsfield units.
    pub image: Image,
    /// The scan with its given mask of kidney and tumour; None where the phase is to be segmented.
    pub given: Option<PhaseScan>,
}

/// The trained networks of the pipeline on a device.
pub struct System {
    /// The segmentation model; not needed where every phase has a given mask.
    pub segmenter: Option<Segmenter>,
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
    /// Options of the registration of each phase to the reference.
    pub registration: RegistrationOptions,
    /// Which lesions are classified.
    pub lesion: LesionChoice,
}

/// The stage that has begun, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub enum DiagnoseStage {
    /// Segmentation of a phase, and how far it is.
    Segment(Phase, Stage),
    /// Registration of all phases.
    Align,
    /// Classification, pictures and report.
    Classify,
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
    let labels = system.segmenter.as_ref().map(|s| LabelMap::new(&s.plan().labels)).transpose()?;
    for name in FOLDERS {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, "the folder cannot be created", e))?;
    }
    let read: Vec<PathBuf> =
        inputs.iter().flat_map(|input| input.files.iter().map(|source| source.file.clone())).collect();
    clear_results(folder, &phases, &read)?;
    let mut seconds = Seconds::default();
    let mut warnings = Vec::new();
    for found in system.segmenter.iter().flat_map(|s| s.postprocessing()) {
        warnings.push(format!("{} was found and not applied", found.path.display()));
    }

    let (mut scans, mut results) = (Vec::new(), Vec::new());
    for input in inputs {
        let named = |e: Error| e.context(format!("{} ({} phase)", input.path.display(), input.phase));
        let mut noted = input.image.warnings.clone();
        let scan = match (&input.given, &system.segmenter, &labels) {
            (None, Some(segmenter), Some(labels)) => {
                let mut tell = |stage| progress(DiagnoseStage::Segment(input.phase, stage));
                let (channels, spacing) = (std::slice::from_ref(&input.image.volume), input.image.header_spacing());
                let found =
                    segmenter.segment_channels(channels, Some(spacing), &options.segment, &mut tell).map_err(named)?;
                noted.extend(found.warnings);
                seconds.segment += found.seconds.preprocess + found.seconds.network + found.seconds.export;
                PhaseScan::new(input.phase, input.image.volume.clone(), labels.apply(&found.mask)?)?
            }
            // A phase without a mask and without a segmentation model was refused above.
            (given, ..) => {
                given.clone().ok_or_else(|| Error::Data("neither a mask nor a segmentation model".into()))?
            }
        };
        warnings.extend(noted.iter().map(|w| format!("{} phase: {w}", input.phase)));
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
    let clock = Instant::now();
    findings.write_pictures(&alignment.scans, folder)?;
    for (result, scan) in results.iter_mut().zip(alignment.scans.scans()) {
        result.pictures = report::write_overlays(scan, &alignment, folder)?;
    }
    seconds.write += clock.elapsed().as_secs_f64();
    seconds.total = started.elapsed().as_secs_f64();
    let diagnosis = Diagnosis {
        schema_version: SCHEMA_VERSION,
        program: program(),
        device: device.name(),
        models: Models {
            segmentation: system.segmenter.as_ref().map(|s| s.files().to_vec()).unwrap_or_default(),
            classification: system.classifier.as_ref().map(|c| c.files().to_vec()).unwrap_or_default(),
            segmentation_card: system.segmenter.as_ref().and_then(|s| s.card().cloned()),
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
    let page = report::page(&diagnosis).html();
    write_atomic(folder.join(REPORT), |file| file.write_all(page.as_bytes()))?;
    let text = serde_json::to_string_pretty(&diagnosis).map_err(|e| Error::other("result.json", e))?;
    write_atomic(folder.join(RESULT), |file| writeln!(file, "{text}"))?;
    Ok(diagnosis)
}

/// What a run is asked for, as its result holds it; `given_masks` says whether masks are given instead of segmented.
pub fn run_options(system: &System, options: &DiagnoseOptions, given_masks: bool) -> RunOptions {
    let config = system.classifier.as_ref().map(Classifier::config);
    RunOptions {
        given_masks,
        mirroring: !given_masks && options.segment.mirroring == Mirroring::AllAxes,
        lesion: options.lesion.to_string(),
        margin: config.map(|config| config.margin.to_string()),
        thresholds: config.and_then(|config| config.thresholds.clone()),
    }
}

/// Refuses one scan given as two phases, under whatever names.
fn ensure_different(inputs: &[PhaseInput]) -> Result<()> {
    for (i, input) in inputs.iter().enumerate() {
        let hash = |input: &PhaseInput| input.files.first().map(|source| source.sha256.clone());
        if let Some(other) = inputs[..i].iter().find(|other| hash(other).is_some() && hash(other) == hash(input)) {
            let [a, b] = [other, input].map(|i| format!("{} ({} phase)", i.path.display(), i.phase));
            return Err(Error::Inputs(format!("{a} and {b} are the same image, expected a scan of each phase")));
        }
    }
    Ok(())
}

impl PhaseInput {
    /// Reads a scan and, where one is given, its mask.
    ///
    /// # Errors
    /// As [`images::read_ct`] and [`images::read_labels`]; a mask on another grid than the scan.
    pub fn read(phase: Phase, path: &Path, mask: Option<&Path>) -> Result<Self> {
        let mut image = images::read_ct(path)?;
        let labels = mask.map(images::read_labels).transpose()?;
        image.warnings.extend(labels.iter().flat_map(|mask| &mask.warnings).map(|w| format!("mask: {w}")));
        for (label, voxels) in labels.iter().flat_map(|mask| mask.labels.counts()).enumerate() {
            if voxels > 0 && label > usize::from(TUMOUR) {
                let reason = format!(
                    "mask: label {label} ({voxels} voxels) is neither kidney (1) nor tumour (2): it counts as background"
                );
                image.warnings.push(reason);
            }
        }
        let files: Vec<PathBuf> =
            images::files(path).into_iter().chain(mask.into_iter().flat_map(images::files)).collect();
        let scan = |mask: LabelImage| PhaseScan::new(phase, image.volume.clone(), mask.labels);
        let given = labels.map(scan).transpose()?;
        Ok(Self { phase, path: path.to_path_buf(), files: hash_files(&files)?, image, given })
    }
}

/// The diameter of the largest tumour component of a mask in LPS orientation; 0 without a tumour.
fn largest_diameter(mask: &LabelVolume) -> Diameter {
    let largest = mask.components(TUMOUR).into_iter().next();
    largest.map(|c| c.diameter(&mask.affine())).unwrap_or_default()
}
