//! Reading and writing files: NIfTI, npy, safetensors; PyTorch's checkpoints and zip archives are only read.
//!
//! Every error names the file and what is wrong with it. Every file is written under a temporary name and then renamed, so that a
//! run that is killed leaves no partial file.

mod archive;
mod hash;
pub mod nifti;
pub mod npy;
pub mod numbers;
pub mod postprocessing;
pub mod weights;

pub use archive::Archive;
pub use hash::lossy;
pub use hash::{SourceFile, hash_files};

use std::fs::{File, Metadata};
use std::io::{BufWriter, Write};
use std::path::Path;

use nephron_compute::error::{Error, Result};

/// Calls `write` on a temporary file in the folder of `path` and renames it to `path` when that succeeded. A file that existed
/// before is replaced only by the rename, and stays as it is when `write` fails.
///
/// # Errors
/// [`Error::File`] where `path` is a folder, its folder does not exist or is not writable, the disk is full, or `write` fails.
pub fn write_atomic(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Err(Error::file(path, "is a folder, it cannot be written as a file"));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::file(path, format!("cannot be written: there is no folder {}", folder.display())));
    }
    let failed = |error: std::io::Error| Error::io(path, "cannot be written", error);
    let mut file = temporary(folder).map_err(failed)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file.as_file_mut());
    write(&mut writer).and_then(|()| writer.flush()).map_err(failed)?;
    drop(writer);
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".nephron-").suffix(".tmp");
    // By default temporary files are readable by their owner only; a result gets the permissions of the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Opens a regular file for reading.
///
/// # Errors
/// [`Error::File`] for a path that does not exist, is a folder or a device, or may not be read.
pub(crate) fn open(path: &Path) -> Result<(File, Metadata)> {
    // The metadata is read before opening, because opening a pipe without a writer would block for ever.
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            let reason = "there is no such file".to_owned();
            Error::File { path: path.to_path_buf(), reason, source: Some(Box::new(e)) }
        }
        _ => Error::io(path, "cannot be read", e),
    })?;
    if metadata.is_dir() {
        return Err(Error::file(path, "is a folder, a file is expected"));
    }
    if !metadata.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let file = File::open(path).map_err(|e| Error::io(path, "cannot be read", e))?;
    Ok((file, metadata))
}
