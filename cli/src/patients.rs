//! Patients and their scans: a cohort's folders, phases guessed from file names, reading.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::phase::{Phase, PhaseSet};
use nephron::pipeline::diagnose::PhaseInput;

/// A patient's scans and where the results go.
pub(super) struct Patient {
    pub(super) files: Vec<(Phase, PathBuf)>,
    pub(super) output: PathBuf,
    /// Were the phases guessed?
    pub(super) guessed: bool,
}

impl Patient {
    /// The phases there are scans of.
    pub(super) fn phases(&self) -> Result<PhaseSet> {
        Ok(PhaseSet::new(self.files.iter().map(|(phase, _)| *phase))?)
    }
}

/// What was given for each phase, in the order of [`Phase::ALL`].
pub(super) fn given<T: Clone>(all: [&Option<T>; 4]) -> Vec<(Phase, T)> {
    Phase::ALL.into_iter().zip(all).filter_map(|(phase, one)| one.clone().map(|one| (phase, one))).collect()
}

/// A folder a patient, with files named after their phases; results go into folders of the same names in `output`.
pub(super) fn cohort(folder: &Path, output: &Path) -> Result<Vec<Patient>> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let patients: Vec<Patient> = folders
        .map(|folder| {
            let files = Phase::ALL.into_iter().map(|phase| (phase, folder.join(format!("{phase}.nii.gz"))));
            let output = output.join(folder.file_name().unwrap_or_default());
            Patient { files: files.filter(|(_, path)| path.exists()).collect(), output, guessed: false }
        })
        .collect();
    if patients.is_empty() {
        return Err(LibraryError::file(folder, "expected a folder for each patient, found none").into());
    }
    Ok(patients)
}

/// The scans of one patient by [`Phase::guess`]. Masks (NAME_mask) and files without any phase in their names are passed over.
///
/// # Errors
/// A name that speaks of two phases; two files of one phase.
pub(super) fn guessed(folder: &Path, output: &Path) -> Result<Patient> {
    let mut files: Vec<(Phase, PathBuf)> = Vec::new();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii")) else { continue };
        if stem.ends_with("_mask") {
            continue;
        }
        let Some(phase) = Phase::guess(stem).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))? else {
            note!("warning: {}: its name tells no phase, left out", path.display());
            continue;
        };
        if let Some((_, other)) = files.iter().find(|(p, _)| *p == phase) {
            let (other, path) = (other.display(), path.display());
            return Err(Error::Usage(format!(
                "expected one {phase} phase, found two by their names: {other} and {path}"
            )));
        }
        note!("{}: guessed to be the {phase} phase", path.display());
        files.push((phase, path));
    }
    files.sort();
    Ok(Patient { files, output: output.to_path_buf(), guessed: true })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| LibraryError::io(folder, "cannot be read", e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Reads a patient's scans and, if wanted, the masks beside them.
pub(super) fn read(patient: &Patient, masks: bool) -> Result<Vec<PhaseInput>> {
    patient
        .files
        .iter()
        .map(|(phase, path)| {
            let mut input = PhaseInput::read(*phase, path, masks.then(|| mask_beside(path)).as_deref())?;
            if patient.guessed {
                input.image.warnings.push(format!("guessed from the name of {}", path.display()));
            }
            Ok(input)
        })
        .collect()
}

/// NAME.nii.gz to NAME_mask.nii.gz.
fn mask_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let (stem, _) = stem.rsplit_once('.').unwrap_or((stem, ""));
    path.with_file_name(format!("{stem}_mask{}", &name[stem.len()..]))
}
