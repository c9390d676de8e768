//! The masks of a cascade's first stage.

use std::path::{Path, PathBuf};

use crate::error::Result;
use nephron::error::Error as LibraryError;
use nephron::io::nifti;
use nephron::pipeline::Ensemble;
use nephron::volume::LabelVolume;

/// The mask of a case, where a model takes one, and the warnings of its file. `prefix` is the name of the case's image without its
/// ending.
pub(crate) fn read(ensemble: &Ensemble, prefix: &str) -> Result<Option<(LabelVolume, Vec<String>)>> {
    let Some((folder, ending)) = ensemble.previous_masks() else { return Ok(None) };
    let found = nifti::read_labels(find(folder, ending, prefix)?)?;
    let warnings = found.warnings.iter().map(|w| format!("mask of the previous stage: {w}")).collect();
    Ok(Some((found.labels, warnings)))
}

/// `<case>.nii.gz` as nnU-Net writes it or `<case>_mask.nii.gz` as this program does, without the number of a channel.
pub(crate) fn find(folder: &Path, ending: &str, prefix: &str) -> Result<PathBuf> {
    let plain = match prefix.rsplit_once('_') {
        Some((name, number)) if number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => prefix,
    };
    let mut names = Vec::new();
    for stem in [prefix, plain] {
        names.extend([format!("{stem}{ending}"), format!("{stem}_mask.nii.gz"), format!("{stem}.nii.gz")]);
    }
    names.sort();
    names.dedup();
    let found: Vec<&String> = names.iter().filter(|name| folder.join(name).is_file()).collect();
    match found.as_slice() {
        [only] => Ok(folder.join(only)),
        [] => {
            let reason =
                format!("has no mask of the previous stage for {prefix}: expected one of {}", names.join(", "));
            Err(LibraryError::file(folder, reason).into())
        }
        [first, second, ..] => {
            let reason = format!("has two masks of the previous stage for {prefix}: {first} and {second}");
            Err(LibraryError::file(folder, reason).into())
        }
    }
}
