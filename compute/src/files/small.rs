//! Reading small files: tables, settings, transforms.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// Largest number of bytes of a small file: tables of hundreds of thousands of cases are smaller.
pub const MAX_SMALL: u64 = 32 << 20;

/// Reads a whole file of at most [`MAX_SMALL`] bytes. A pipe that the shell has opened, such as that of `<(command)` or
/// `/dev/stdin`, is read to its end; a named pipe is refused, because opening one without a writer would block for ever.
///
/// # Errors
/// [`Error::File`] for a file that does not exist, is a folder, a named pipe or a device, is larger, or cannot be read.
pub fn read_small(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |e: std::io::Error| Error::io(path, "cannot be read", e);
    let large = || Error::file(path, format!("is larger than {} MiB, expected a small file", MAX_SMALL >> 20));
    // The metadata is read before opening, for the same reason.
    let size = if is_opened(path) { 0 } else { ensure_readable(path)?.len() };
    if size > MAX_SMALL {
        return Err(large());
    }
    let mut bytes = Vec::with_capacity(size as usize);
    File::open(path).and_then(|file| file.take(MAX_SMALL + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_SMALL { Err(large()) } else { Ok(bytes) }
}

/// Whether a path is one of this process's own open files.
fn is_opened(path: &Path) -> bool {
    ["/dev/fd", "/proc/self/fd", "/dev/stdin"].iter().any(|folder| path.starts_with(folder))
}

/// The metadata of a regular file, which is not opened.
///
/// # Errors
/// [`Error::File`] for a path that does not exist, is a folder, a pipe or a device, or may not be read.
pub fn ensure_readable(path: impl AsRef<Path>) -> Result<Metadata> {
    let path = path.as_ref();
    let metadata = fs::metadata(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
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
    Ok(metadata)
}
