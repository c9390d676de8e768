//! Lines on the terminal, and what subcommands do with the files that they write.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::terminal;
use nephron::error::Error as LibraryError;
use nephron::io::nifti;

/// Prints a line to standard output, without what a terminal would obey: it may contain text of files.
///
/// # Errors
/// [`Error::Output`] where it cannot be written. A subcommand with work left finishes it and then returns the error; all others
/// return at once.
pub(crate) fn write_line(text: fmt::Arguments<'_>) -> Result<()> {
    writeln!(io::stdout().lock(), "{}", terminal::plain(&text.to_string())).map_err(Error::Output)
}

/// Prints a line to standard error, as [`terminal::message`] has it. A failure to write it is ignored, because there is nowhere to
/// report it.
pub(crate) fn warn_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", terminal::message(&text.to_string()));
}

/// An input of several that could not be processed, as the JSON of all subcommands lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The image, patient or case.
    pub(crate) input: String,
    pub(crate) error: String,
}

/// The warning of a label map that is interpolated.
pub(crate) const LABELS_INTERPOLATED: &str =
    "looks like a label map: this interpolation makes fractions of its labels; --interp nearest keeps them";

/// Refuses an output that is one of the inputs, by whatever name.
///
/// # Errors
/// [`Error::Usage`] that names it.
pub(crate) fn ensure_no_input<'a>(output: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let target = output.canonicalize().ok();
    if target.is_some() && inputs.into_iter().any(|input| input.canonicalize().ok() == target) {
        return Err(Error::Usage(format!("{} is an input, choose another name", output.display())));
    }
    Ok(())
}

/// Where images go that are resampled: their own names in a folder; what is not .nii or .nii.gz becomes .nii.gz.
///
/// # Errors
/// [`Error::Usage`] for two images of one name, and for an output that is one of the images or of the `others` that are read.
pub(crate) fn moved_outputs(images: &[&PathBuf], others: &[&PathBuf], folder: &Path) -> Result<Vec<PathBuf>> {
    let mut outputs: Vec<PathBuf> = Vec::new();
    for image in images {
        let Some(name) = image.file_name() else {
            return Err(Error::Usage(format!("{}: expected the name of a file", image.display())));
        };
        let mut output = folder.join(name);
        if nifti::ensure_name(&output).is_err() {
            output.set_extension("nii.gz");
        }
        if let Some(other) = outputs.iter().position(|o| *o == output) {
            let [a, b] = [images[other], image].map(|path| path.display());
            return Err(Error::Usage(format!("{a} and {b} would both be written to {}", output.display())));
        }
        let target = output.canonicalize().ok();
        if target.is_some() && images.iter().chain(others).any(|input| input.canonicalize().ok() == target) {
            return Err(Error::Usage(format!("{} is an input, choose another folder", output.display())));
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Removes what an earlier run wrote to `path`, if anything.
///
/// # Errors
/// A file that cannot be removed.
pub(crate) fn remove_stale(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(LibraryError::io(path, "cannot be replaced", e).into())
        }
        _ => Ok(()),
    }
}
