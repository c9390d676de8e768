//! Temporary files and folders `.nephron-<process>-<number>.tmp`, which a process locks while it writes them. One whose lock is
//! free belongs to a process that was killed. The process id alone would not tell: it is reused, and it means nothing on another
//! machine or in another container that shares the folder.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

const PREFIX: &str = ".nephron-";
const SUFFIX: &str = ".tmp";
/// A file is locked immediately after it was made; one that is younger than this is left alone.
const YOUNG: Duration = Duration::from_secs(1);
/// Largest number of names that are tried for a file.
const MAX_NAMES: u32 = 1000;
/// How often and at what distance the table is asked for by [`remove_unfinished`].
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(10);

/// The temporary files and folders of this process.
struct Unfinished {
    files: BTreeSet<PathBuf>,
    /// The folders from which files of dead processes were removed.
    swept: BTreeSet<PathBuf>,
    /// Number of files made so far.
    made: u64,
}

static UNFINISHED: Mutex<Unfinished> =
    Mutex::new(Unfinished { files: BTreeSet::new(), swept: BTreeSet::new(), made: 0 });

/// The table. A poisoned lock is ignored: every change of the table is a single insertion or removal.
fn unfinished() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the temporary files of this process, which is about to end on a signal. Writes that begin or end afterwards wait for
/// ever, so that none is left; the caller must end the process.
///
/// Where another thread holds the table for half a second (a file system that does not answer), nothing is removed.
pub fn remove_unfinished() {
    for _ in 0..TRIES {
        let all = match UNFINISHED.try_lock() {
            Ok(all) => all,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        all.files.iter().for_each(|path| remove(path));
        // The table stays locked for the rest of the process.
        std::mem::forget(all);
        return;
    }
}

/// What was made under a temporary name, which is removed when this value is dropped before [`Entry::rename`].
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    /// Open and locked; None for a folder where the system opens none.
    held: Option<File>,
}

impl Entry {
    fn rename(self, path: &Path) -> io::Result<()> {
        // Renamed under the table's lock: a signal finds either what is temporary or what is whole.
        let mut all = unfinished();
        let done = fs::rename(&self.path, path);
        if done.is_ok() {
            all.files.remove(&self.path);
        }
        drop(all);
        done
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if unfinished().files.remove(&self.path) {
            remove(&self.path);
        }
    }
}

/// A temporary file, which is removed when this value is dropped before [`Temporary::rename`].
pub(super) struct Temporary {
    entry: Entry,
    file: File,
}

impl Temporary {
    /// Makes a file in `folder`.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let make = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path).map(Some);
        let mut entry = registered(folder, make)?;
        let Some(file) = entry.held.take() else { return Err(ErrorKind::NotFound.into()) };
        Ok(Self { entry, file })
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Hands the bytes to the disk and gives the file its name.
    pub(super) fn rename(self, path: &Path) -> io::Result<()> {
        match self.file.sync_all() {
            // Some file systems, such as those of virtual machines' shared folders, cannot do it.
            Err(error) if !matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => {
                return Err(error);
            }
            _ => {}
        }
        self.entry.rename(path)
    }
}

/// A temporary folder, which is removed with all that is in it when this value is dropped before [`TemporaryFolder::rename`].
#[derive(Debug)]
pub struct TemporaryFolder(Entry);

impl TemporaryFolder {
    /// Makes a folder in `parent`.
    ///
    /// # Errors
    /// As the system.
    pub fn new(parent: impl AsRef<Path>) -> io::Result<Self> {
        registered(parent.as_ref(), |path| fs::create_dir(path).map(|()| File::open(path).ok())).map(Self)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// As the system; the folder is then removed.
    pub fn rename(self, path: impl AsRef<Path>) -> io::Result<()> {
        self.0.rename(path.as_ref())
    }
}

/// Makes a file or folder under a new name in `folder`, locks it and enters it into the table.
fn registered(folder: &Path, make: impl Fn(&Path) -> io::Result<Option<File>>) -> io::Result<Entry> {
    let mut all = unfinished();
    if !all.swept.contains(folder) {
        all.swept.insert(folder.to_path_buf());
        sweep(folder);
    }
    for _ in 0..MAX_NAMES {
        all.made += 1;
        let path = folder.join(format!("{PREFIX}{}-{}{SUFFIX}", std::process::id(), all.made));
        match make(&path) {
            Ok(held) => {
                // A file system without locks is not swept either.
                let _ = held.as_ref().map(File::try_lock);
                all.files.insert(path.clone());
                return Ok(Entry { path, held });
            }
            // Of a dead process with the same id, and too young to be removed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Removes a temporary file or folder. There is nobody to tell of a failure.
fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// Removes temporary files of dead processes from a folder. What cannot be read or removed stays: it is not this run's.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) && is_abandoned(&entry.path()) {
            remove(&entry.path());
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else { return false };
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    (metadata.is_file() || metadata.is_dir())
        && age.is_some_and(|age| age > YOUNG)
        && File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}
