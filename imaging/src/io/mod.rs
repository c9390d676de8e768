//! Reading and writing files: images of any format ([`images`]), pictures ([`pictures`]), NIfTI, npy, safetensors; npz is only written, PyTorch's checkpoints
//! and zip archives are only read.
//!
//! Every error names the file and what is wrong with it. Every file is written under a temporary name and then renamed, so that a
//! run that is killed leaves no partial file.

mod archive;
mod hash;
pub mod images;
pub mod nifti;
pub mod npy;
pub mod npz;
pub mod numbers;
pub mod pictures;
pub mod postprocessing;
mod source;
pub mod weights;

pub use archive::Archive;
pub use hash::{SourceFile, hash_files};
pub use hash::{lossy, lossy_option};

use std::fs::{File, Metadata};
use std::path::Path;

use nephron_compute::error::{Error, Result};
pub use nephron_compute::files::{FolderLock, TemporaryFolder, read_small, try_beside, try_folder, write_atomic};

/// Opens a regular file for reading.
///
/// # Errors
/// [`Error::File`] for a path that does not exist, is a folder or a device, or may not be read.
pub(crate) fn open(path: &Path) -> Result<(File, Metadata)> {
    // The metadata is read before opening, because opening a pipe without a writer would block for ever.
    let metadata = nephron_compute::files::ensure_readable(path)?;
    let file = File::open(path).map_err(|e| Error::io(path, "cannot be read", e))?;
    Ok((file, metadata))
}
