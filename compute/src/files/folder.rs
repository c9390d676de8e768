//! Output folders: made, tried and locked before the work.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::folder_of;
use super::temporary::Temporary;
use crate::error::{Error, Result};

/// Makes a folder where it is missing and tries to write to it, so that a run whose results cannot be stored ends before its work.
///
/// # Errors
/// [`Error::File`] for a folder that cannot be made or written to.
pub fn try_folder(folder: impl AsRef<Path>) -> Result<()> {
    let folder = folder.as_ref();
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, "the folder cannot be created", e))?;
    Temporary::new(folder).map(drop).map_err(|e| Error::io(folder, "the folder cannot be written to", e))
}

/// Tries to write to the folder of a file, which is not made.
///
/// # Errors
/// [`Error::File`] with the name of the file, as [`write_atomic`](super::write_atomic) would give it.
pub fn try_beside(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Err(Error::file(path, "is a folder, it cannot be written as a file"));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(Error::file(path, format!("cannot be written: there is no folder {}", folder.display())));
    }
    Temporary::new(folder).map(drop).map_err(|e| Error::io(path, "cannot be written", e))
}

/// The right of one process to write its results to a folder, until it is dropped or the process ends.
///
/// The lock is the system's on the folder itself, so that no file of it is left. Where the system or the file system does not lock
/// folders (Windows, some network file systems) every process gets the right. A folder that was made for it and is still empty
/// when it is dropped, as after a call that was refused, is removed.
#[derive(Debug)]
pub struct FolderLock {
    /// The folders that were made, the outermost last.
    made: Vec<PathBuf>,
    held: Option<File>,
}

impl FolderLock {
    /// Makes, tries and locks a folder.
    ///
    /// # Errors
    /// As [`try_folder`], and [`Error::File`] where another run holds the folder.
    pub fn new(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let made = folder.ancestors().take_while(missing).map(Path::to_path_buf).collect();
        let mut lock = Self { made, held: None };
        try_folder(folder)?;
        let Ok(file) = File::open(folder) else { return Ok(lock) };
        match file.try_lock() {
            Ok(()) => lock.held = Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(
                    folder,
                    "another run is writing its results to this folder, choose another one",
                ));
            }
            Err(TryLockError::Error(_)) => {}
        }
        Ok(lock)
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        for folder in &self.made {
            // One with files in it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}
