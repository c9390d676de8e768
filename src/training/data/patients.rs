//! A data set of patients' folders: `PATIENT/PHASE.nii.gz` with the labels `PATIENT/PHASE_mask.nii.gz`, as `diagnose --cohort` takes
//! them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::dataset::Case;
use crate::error::{Error, Result};
use crate::io::images;
use crate::phase::Phase;
use crate::volume::{KIDNEY, TUMOUR};

/// What dataset.json would say: one channel of CT, kidney and tumour, images in any orientation.
pub(super) fn description() -> Value {
    json!({
        "channel_names": { "0": "CT" },
        "labels": { "background": 0, "kidney": KIDNEY, "tumour": TUMOUR },
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
    })
}

/// The cases, one for each phase of each patient, by name: PATIENT_PHASE. Folders without a scan are passed over, with a warning.
///
/// # Errors
/// A folder that cannot be listed, or whose name is not UTF-8; no patient; two files of one phase; a phase without a mask.
pub(super) fn list(folder: &Path) -> Result<(Vec<Case>, Vec<String>)> {
    let (mut cases, mut warnings) = (Vec::new(), Vec::new());
    for patient in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let Some(name) = patient.file_name().and_then(|name| name.to_str()) else {
            return Err(Error::file(&patient, "has a name that is not UTF-8, expected the name of a patient"));
        };
        // What a file manager hides is no patient.
        if name.starts_with('.') {
            continue;
        }
        let found = phases(&patient, name)?;
        if found.is_empty() {
            let names = Phase::ALL.map(|phase| phase.to_string()).join(", ");
            warnings.push(format!("{}: no patient: expected images named {names}, found none", patient.display()));
        }
        cases.extend(found);
    }
    cases.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if cases.is_empty() {
        let expected = "expected dataset.json of nnU-Net's layout, or a folder with scans and masks for each patient";
        return Err(Error::file(folder, format!("{expected}, found neither")));
    }
    Ok((cases, warnings))
}

fn phases(folder: &Path, patient: &str) -> Result<Vec<Case>> {
    let files = images::in_folder(folder)?;
    let one = |stem: &str| -> Result<Option<PathBuf>> {
        let found: Vec<&PathBuf> = files.iter().filter(|(own, _)| own == stem).map(|(_, path)| path).collect();
        if let [first, second, ..] = found.as_slice() {
            return Err(Error::file(first, format!("and {} are one image, expected one file", second.display())));
        }
        Ok(found.first().map(|path| (*path).clone()))
    };
    let mut cases = Vec::new();
    for phase in Phase::ALL {
        let Some(image) = one(&phase.to_string())? else { continue };
        let mask = format!("{phase}_mask");
        let Some(labels) = one(&mask)? else {
            return Err(Error::file(&image, format!("has no labels beside it, expected {mask}.nii.gz")));
        };
        cases.push(Case {
            name: format!("{patient}_{phase}"),
            patient: patient.to_owned(),
            images: vec![image],
            labels,
        });
    }
    Ok(cases)
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(folder, "cannot be listed", e);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}
