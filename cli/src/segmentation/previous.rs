//! The masks of a cascade's first stage.

use std::path::{Path, PathBuf};

use super::names::numbered;
use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::io::images;
use nephron::pipeline::Ensemble;
use nephron::volume::{LabelVolume, Volume};

/// The file of a case's mask, where a model takes one. `prefix` is the name of the case's image without its ending.
pub(crate) fn file(ensemble: &Ensemble, prefix: &str) -> Result<Option<PathBuf>> {
    ensemble.previous_masks().map(|(folder, ending)| find(folder, ending, prefix)).transpose()
}

/// The mask in a file, which must lie on the image's grid, and the warnings of the file.
pub(crate) fn read(path: &Path, image: &Volume) -> Result<(LabelVolume, Vec<String>)> {
    let found = images::read_labels(path)?;
    let [expected, grid] = [image.grid(), found.labels.grid()];
    if !grid.matches(&expected) {
        let reason =
            format!("expected a mask of the previous stage on the grid of the image, {expected}, found {grid}");
        return Err(LibraryError::file(path, reason).into());
    }
    let warnings = found.warnings.iter().map(|w| format!("mask of the previous stage: {w}")).collect();
    Ok((found.labels, warnings))
}

/// Refuses masks in the folder of the results: they would be replaced.
pub(crate) fn ensure_apart(ensemble: &Ensemble, output: &Path) -> Result<()> {
    let same = |folder: &Path| matches!((folder.canonicalize(), output.canonicalize()), (Ok(a), Ok(b)) if a == b);
    match ensemble.previous_masks().filter(|(folder, _)| same(folder)) {
        Some((folder, _)) => {
            let reason = "holds the masks of the previous stage, choose another folder for the results";
            Err(Error::Usage(format!("--previous-stage: {} {reason}", folder.display())))
        }
        None => Ok(()),
    }
}

/// `<case>.nii.gz` as nnU-Net writes it or `<case>_mask.nii.gz` as this program does, without the number of a channel.
pub(crate) fn find(folder: &Path, ending: &str, prefix: &str) -> Result<PathBuf> {
    let plain = numbered(prefix).map_or(prefix.to_owned(), |(name, _)| name);
    let mut names = Vec::new();
    for stem in [prefix, &plain] {
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
