//! Reading and writing files: NIfTI, npy, safetensors, and PyTorch's checkpoints (read only). Every error names the file and says what is wrong with it; every
//! file is written under a temporary name and renamed, so a killed run leaves no half file.

mod hash;
pub mod nifti;
pub mod npy;
pub mod numbers;
pub mod weights;

pub use hash::lossy;
pub use hash::{SourceFile, hash_files};

use std::fs::{File, Metadata};
use std::io::{BufWriter, Write};
use std::path::Path;

use nephron_compute::error::{Error, Result};

/// Calls `write` on a temporary file in the folder of `path` and renames it to `path` when all went well. A file that was
/// there before stays whole until then, and stays when `write` fails.
///
/// # Errors
/// [`Error::File`]: `path` is a folder, its folder is missing or not writable, the disk is full, or what `write` returned.
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
    // Temporary files are private to their owner by default; a result gets what the user's umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Opens a regular file for reading, saying plainly why not: missing, a folder, a device, no permission.
pub(crate) fn open(path: &Path) -> Result<(File, Metadata)> {
    // Asked before opening: opening a pipe without a writer would wait for ever.
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
