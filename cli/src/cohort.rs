//! Finding the scans of patients: the folders of a cohort, and phases guessed from file names.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::segmentation::previous;
use nephron::error::Error as LibraryError;
use nephron::io::images;
use nephron::phase::{Phase, PhaseSet};
use nephron::pipeline::diagnose::PhaseInput;

/// The scans of a patient and the folder of the results.
pub(super) struct Patient {
    pub(super) files: Vec<(Phase, PathBuf)>,
    /// How messages call the patient: the folder of the scans.
    pub(super) folder: PathBuf,
    pub(super) output: PathBuf,
    /// Whether the phases were guessed from file names.
    guessed: bool,
    /// Whether it is a patient of a cohort, whose files have the names of those of the others.
    is_of_cohort: bool,
    /// Why the patient cannot be processed; that costs this patient alone.
    problem: Option<String>,
}

impl Patient {
    /// A patient with these scans, whose folder messages call as that of the results.
    pub(super) fn alone(files: Vec<(Phase, PathBuf)>, output: &Path) -> Self {
        let [folder, output] = [output, output].map(Path::to_path_buf);
        Self { files, folder, output, guessed: false, is_of_cohort: false, problem: None }
    }

    /// The mask of a cascade's first stage for a scan, in a folder of masks whose names have this ending: that of the scan's name, in
    /// a cohort behind the patient's and an underscore.
    ///
    /// # Errors
    /// No such mask, or two.
    pub(super) fn previous_mask(&self, scan: &Path, (folder, ending): (&Path, &str)) -> Result<PathBuf> {
        let name = || scan.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = images::stem(scan).unwrap_or_else(name);
        let patient = self.folder.file_name().unwrap_or_default().to_string_lossy();
        let case = if self.is_of_cohort { format!("{patient}_{stem}") } else { stem };
        previous::find(folder, ending, &case)
    }

    /// Refuses a patient whose scans are not clear.
    ///
    /// # Errors
    /// Two images of one phase.
    pub(super) fn ensure_usable(&self) -> Result<()> {
        match &self.problem {
            Some(problem) => Err(LibraryError::Inputs(problem.clone()).into()),
            None => Ok(()),
        }
    }

    /// The phases of the scans.
    pub(super) fn phases(&self) -> Result<PhaseSet> {
        Ok(PhaseSet::new(self.files.iter().map(|(phase, _)| *phase))?)
    }
}

/// The values that were given, each with its phase; `all` is in the order of [`Phase::ALL`].
pub(super) fn given<T: Clone>(all: [&Option<T>; 4]) -> Vec<(Phase, T)> {
    Phase::ALL.into_iter().zip(all).filter_map(|(phase, one)| one.clone().map(|one| (phase, one))).collect()
}

/// The patients of a cohort: one folder for each, with files named after their phases. Results are written to folders of the same
/// names in `output`.
pub(super) fn cohort(folder: &Path, output: &Path) -> Result<Vec<Patient>> {
    let folders = entries(folder)?.into_iter().filter(|path| path.is_dir());
    let mut patients = Vec::new();
    for folder in folders {
        let images = images::in_folder(&folder)?;
        let of_phase = |phase: Phase| images.iter().filter(move |(stem, _)| *stem == phase.to_string());
        let mut files = Vec::new();
        let mut problem = None;
        for phase in Phase::ALL {
            let found: Vec<&PathBuf> = of_phase(phase).map(|(_, path)| path).collect();
            if let [first, second, ..] = found.as_slice() {
                let [first, second] = [first, second].map(|path| path.display());
                problem.get_or_insert(format!("expected one {phase} phase, found {first} and {second}"));
            }
            files.extend(found.first().map(|path| (phase, (*path).clone())));
        }
        if files.is_empty() {
            let names = Phase::ALL.map(|phase| phase.to_string()).join(", ");
            note!(
                "warning: {}: no patient: expected images named {names}, such as portal.nii.gz, found none",
                folder.display()
            );
            continue;
        }
        let output = output.join(folder.file_name().unwrap_or_default());
        patients.push(Patient { files, folder: folder.clone(), output, guessed: false, is_of_cohort: true, problem });
    }
    if patients.is_empty() {
        return Err(LibraryError::file(folder, "expected a folder with scans for each patient, found none").into());
    }
    Ok(patients)
}

/// The scans of one patient, with phases by [`Phase::guess`]. Masks (NAME_mask) and files whose names indicate no phase are skipped.
///
/// # Errors
/// [`Error::Usage`] for a name that indicates two phases, and for two files of one phase.
pub(super) fn guessed(folder: &Path, output: &Path) -> Result<Patient> {
    let mut files: Vec<(Phase, PathBuf)> = Vec::new();
    for (stem, path) in images::in_folder(folder)? {
        if stem.ends_with("_mask") {
            continue;
        }
        let Some(phase) = Phase::guess(&stem).map_err(|e| Error::Usage(format!("{}: {e}", path.display())))? else {
            note!("warning: {}: its name indicates no phase; the file is skipped", path.display());
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
    Ok(Patient { folder: folder.to_path_buf(), guessed: true, ..Patient::alone(files, output) })
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

/// Reads a patient's scans and, with `masks`, the masks next to them; with `previous` the masks of a cascade's first stage, from
/// a folder of masks whose names have that ending.
pub(super) fn read(patient: &Patient, masks: bool, previous: Option<(&Path, &str)>) -> Result<Vec<PhaseInput>> {
    patient.ensure_usable()?;
    patient
        .files
        .iter()
        .map(|(phase, path)| {
            let mut input = PhaseInput::read(*phase, path, masks.then(|| mask_beside(path)).as_deref())?;
            if let Some(masks) = previous {
                input = input.with_previous(&patient.previous_mask(path, masks)?)?;
            }
            if patient.guessed {
                input.image.warnings.push(format!("guessed from the name of {}", path.display()));
            }
            Ok(input)
        })
        .collect()
}

/// The path of a scan's mask: NAME_mask.nii.gz for NAME.nii.gz. For a format that masks are not written in, NAME_mask.nii.gz too.
pub(super) fn mask_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let (stem, _) = stem.rsplit_once('.').unwrap_or((stem, ""));
    let [own, written] =
        [&name[stem.len()..], ".nii.gz"].map(|ending| path.with_file_name(format!("{stem}_mask{ending}")));
    if own.exists() || !written.exists() { own } else { written }
}
