//! The layout of a result folder, and removing the files of an earlier run.
//!
//! `masks/` contains the mask of each phase on the grid of its scan, `aligned/` scans and masks on the reference's grid with their
//! transforms, `pictures/` overlays of each phase and of each lesion. `report.html` is the report and `result.json`, which is
//! written last, the result.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::phase::{Phase, PhaseSet};

/// The file of the result.
pub(super) const RESULT: &str = "result.json";
/// The file of the report.
pub(super) const REPORT: &str = "report.html";
/// The file in which an application may leave why a patient failed; [`clear_results`] removes it with the rest.
pub const FAILURE: &str = "failure.txt";
/// The subfolders.
pub(super) const FOLDERS: [&str; 3] = ["masks", "aligned", "pictures"];

/// The files of one phase, relative to the result folder.
pub(super) struct PhaseFiles {
    /// The mask on the scan's own grid.
    pub(super) mask: PathBuf,
    /// The scan on the reference's grid.
    pub(super) aligned: PathBuf,
    /// The mask on the reference's grid.
    pub(super) aligned_mask: PathBuf,
    /// The transform as ITK text.
    pub(super) transform: PathBuf,
    /// The overlays of the slices with the reference's largest tumour area and largest kidney area.
    pub(super) pictures: [PathBuf; 2],
}

impl PhaseFiles {
    pub(super) fn of(phase: Phase) -> Self {
        Self {
            mask: format!("masks/{phase}_mask.nii.gz").into(),
            aligned: format!("aligned/{phase}.nii.gz").into(),
            aligned_mask: format!("aligned/{phase}_mask.nii.gz").into(),
            transform: format!("aligned/{phase}.tfm").into(),
            pictures: ["tumour", "kidney"].map(|name| format!("pictures/{phase}_{name}.png").into()),
        }
    }
}

/// Removes all files that an earlier `diagnose` has written to a folder, so that a run with fewer phases, or one that fails or is
/// interrupted, does not leave them beside its own. Files of other names stay, and so do the inputs of this run.
///
/// # Errors
/// [`Error::Inputs`] for an input that this run, of these phases, would write over; a file that cannot be removed.
pub fn clear_results(folder: &Path, phases: &PhaseSet, inputs: &[PathBuf]) -> Result<()> {
    let inputs: Vec<PathBuf> = inputs.iter().filter_map(|input| input.canonicalize().ok()).collect();
    let is_input = |file: &PathBuf| file.canonicalize().is_ok_and(|file| inputs.contains(&file));
    let mut old: Vec<PathBuf> = [RESULT, REPORT, FAILURE].map(|name| folder.join(name)).to_vec();
    for phase in Phase::ALL {
        let PhaseFiles { mask, aligned, aligned_mask, transform, pictures } = PhaseFiles::of(phase);
        let files = [mask, aligned, aligned_mask, transform].into_iter().chain(pictures).map(|file| folder.join(file));
        let files: Vec<PathBuf> = files.collect();
        if phases.contains(phase)
            && let Some(file) = files.iter().find(|file| is_input(file))
        {
            let name = file.display();
            return Err(Error::Inputs(format!("{name} is an input and would be written over, choose another folder")));
        }
        old.extend(files);
    }
    old.iter().filter(|file| !is_input(file)).try_for_each(|file| remove(file))?;
    clear_lesions(folder)
}

/// Removes the files that an earlier `classify` has written to a folder: its result and the pictures of its lesions.
///
/// # Errors
/// A file that cannot be removed.
pub fn clear_classification(folder: &Path) -> Result<()> {
    remove(&folder.join(RESULT))?;
    clear_lesions(folder)
}

fn clear_lesions(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder.join("pictures")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("lesion") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path, "cannot be removed", e)),
        _ => Ok(()),
    }
}
