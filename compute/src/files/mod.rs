//! Files as the whole program treats them: outputs that are whole or absent ([`write_atomic`]), output folders that are tried and
//! held before the work ([`try_folder`], [`FolderLock`]), and small inputs of bounded size ([`read_small`]).

mod folder;
mod small;
mod temporary;

pub use folder::{FolderLock, try_beside, try_folder};
pub use small::{MAX_SMALL, ensure_readable, read_small};
pub use temporary::{TemporaryFolder, remove_unfinished};

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::ensure_room;
use crate::error::{Error, Result};
use temporary::Temporary;

/// Number of bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// Calls `write` on a temporary file in the folder of `path` and renames it to `path` when that succeeded. A file that existed
/// before is replaced only by the rename, and stays as it is when `write` fails. The bytes are handed to the disk before the
/// rename, so that a loss of power leaves the old file or the new one.
///
/// Temporary files of processes that were killed are removed from the folder at the first write to it.
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
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(Error::file(path, format!("cannot be written: there is no folder {}", folder.display())));
    }
    // The errors of the system name no file: the message has the final name alone.
    let failed = |error: std::io::Error| Error::io(path, "cannot be written", error);
    let mut temporary = Temporary::new(folder).map_err(failed)?;
    ensure_room::<u8>("writing", BUFFER).map_err(|e| Error::in_file(path, e))?;
    let mut writer = BufWriter::with_capacity(BUFFER, temporary.file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(failed)?;
    // Its destructor would flush again.
    drop(writer);
    temporary.rename(path).map_err(failed)
}

/// The folder of a file; the working folder for a bare name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
