//! A folder of a model, on disk or inside a zip archive.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::{Error, Result};
use crate::io::weights::Weights;
use crate::io::{Archive, read_small};

/// Largest file beside the weights in an archive in bytes, as on disk.
const MAX_TEXT_BYTES: u64 = crate::files::MAX_SMALL;

/// A folder, on disk or inside a zip archive. A clone shares the open archive.
#[derive(Clone)]
pub(in crate::pipeline) struct ModelDir {
    /// Its path on disk; inside an archive that of the archive with the folder behind it, for messages.
    path: PathBuf,
    /// The archive, and the folder in it with a slash at its end; empty for the outermost.
    inside: Option<(Rc<Archive>, String)>,
}

impl ModelDir {
    /// The folder `path`, or the outermost folder of the zip archive `path`.
    ///
    /// # Errors
    /// Neither: nothing there, another file, a damaged archive.
    pub(in crate::pipeline) fn open(path: &Path) -> Result<Self> {
        let directory = Self { path: path.to_path_buf(), inside: None };
        if path.is_dir() {
            return Ok(directory);
        }
        if !path.exists() {
            return Err(Error::file(path, "there is no such folder, expected a model folder with plans.json"));
        }
        let zip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip"));
        if !zip {
            return Err(Error::file(path, "is a file, expected a model folder or a .zip of nnUNetv2_export_model"));
        }
        Ok(Self { inside: Some((Rc::new(Archive::open(path)?), String::new())), ..directory })
    }

    /// Its path, for messages.
    pub(in crate::pipeline) fn path(&self) -> &Path {
        &self.path
    }

    /// The last part of its path.
    pub(in crate::pipeline) fn name(&self) -> String {
        self.named_path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Its path; on disk the whole one where it has no name of its own, such as `.`.
    fn named_path(&self) -> PathBuf {
        match (&self.inside, self.path.file_name()) {
            (None, None) => self.path.canonicalize().unwrap_or_else(|_| self.path.clone()),
            _ => self.path.clone(),
        }
    }

    /// A folder in it, which need not be there.
    pub(in crate::pipeline) fn join(&self, name: &str) -> Self {
        let inside = self.inside.as_ref().map(|(archive, prefix)| (archive.clone(), format!("{prefix}{name}/")));
        Self { path: self.path.join(name), inside }
    }

    /// The folder that it lies in; None for the outermost of an archive and of the disk.
    pub(in crate::pipeline) fn parent(&self) -> Option<Self> {
        match &self.inside {
            None => {
                let path = self.named_path();
                let above = path.parent()?;
                let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
                Some(Self { path: above.to_path_buf(), inside: None })
            }
            Some((archive, prefix)) => {
                let above = prefix.strip_suffix('/')?.rfind('/').map_or("", |at| &prefix[..=at]);
                Some(Self {
                    path: self.path.parent()?.to_path_buf(),
                    inside: Some((archive.clone(), above.to_owned())),
                })
            }
        }
    }

    /// Whether `name`, which may hold slashes, is a file in it.
    pub(in crate::pipeline) fn is_file(&self, name: &str) -> bool {
        match &self.inside {
            None => self.path.join(name).is_file(),
            Some((archive, prefix)) => archive.contains(&format!("{prefix}{name}")),
        }
    }

    /// The names of the files and folders that lie in it, sorted.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(in crate::pipeline) fn entries(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = match &self.inside {
            None => {
                let unreadable = |e| Error::io(&self.path, "cannot be read", e);
                let entries = std::fs::read_dir(&self.path).map_err(unreadable)?;
                entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect()
            }
            Some((archive, prefix)) => {
                let own = archive.names().filter_map(|name| name.strip_prefix(prefix.as_str())?.split('/').next());
                own.map(str::to_owned).collect()
            }
        };
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The bytes of a file in it that is no weights: plans, labels and the like.
    ///
    /// # Errors
    /// A file that is not there, cannot be read or is larger than any of its kind.
    pub(in crate::pipeline) fn read(&self, name: &str) -> Result<Vec<u8>> {
        if let Some((archive, prefix)) = &self.inside {
            return archive.read(&format!("{prefix}{name}"), MAX_TEXT_BYTES);
        }
        read_small(self.path.join(name))
    }

    /// The weights in a file in it.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub(in crate::pipeline) fn weights(&self, name: &str) -> Result<Weights> {
        let path = self.path.join(name);
        match &self.inside {
            None => Weights::read(path),
            Some((archive, prefix)) => Weights::from_bytes(path, archive.read(&format!("{prefix}{name}"), u64::MAX)?),
        }
    }
}
