//! One error type for all the library crates: every message names what was expected and what was found.
//!
//! A message is one line and whole: it holds the messages of the errors below it. [`source`](std::error::Error::source)
//! leads to those as values, down to the `std::io::Error` of a file that is not there; do not print both.

use std::io;
use std::path::{Path, PathBuf};

/// The error of another library, or of the standard library.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, length or rank that does not fit.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The operation and the tensor, e.g. `conv3d: weight`.
        what: String,
        /// What would have been right.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A value outside its range.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// The operation and the argument, e.g. `conv3d: groups`.
        what: String,
        /// What would have been right.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Inputs that are sound alone and cannot be worked with together: a phase given twice, too few of them.
    #[error("{0}")]
    Inputs(String),
    /// A text that names no device.
    #[error("unknown device '{text}': {expected}")]
    UnknownDevice {
        /// The text.
        text: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A device that cannot be used here, and why.
    #[error("device {device}: {reason}")]
    Device {
        /// As the user names it: `cuda:0`, `vulkan`.
        device: String,
        /// Why not.
        reason: String,
    },
    /// A buffer over the device's limit.
    #[error("device {device} allows buffers of {limit} bytes at most, {needed} bytes are needed")]
    BufferTooLarge {
        /// The device.
        device: String,
        /// Bytes asked for.
        needed: u64,
        /// Bytes the device allows in one buffer.
        limit: u64,
    },
    /// A kernel that failed to compile, launch or finish.
    #[error("a kernel failed on {device}: {message}")]
    Kernel {
        /// The device.
        device: String,
        /// The backend's own words, one line.
        message: String,
    },
    /// A file that cannot be read, written or understood.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, the cause's own message included.
        reason: String,
        /// The error behind it, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// The caller asked for the end of the work through its progress callback.
    #[error("cancelled")]
    Cancelled,
    /// Data that cannot be worked with, such as an empty mask.
    #[error("{0}")]
    Data(String),
    /// What an error happened to: a phase, a pair of masks. [`Error::cause`] looks through it.
    #[error("{what}: {source}")]
    Context {
        /// The work that failed, e.g. `portal phase`.
        what: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// An error of another library, such as one that draws or serialises.
    #[error("{what}: {source}")]
    Other {
        /// The work that failed, e.g. `result.json`.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// [`Error::Shape`] from anything printable.
    pub fn shape(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Shape { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    /// [`Error::Argument`] from anything printable.
    pub fn argument(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Argument { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    /// [`Error::File`] with a reason and nothing behind it.
    pub fn file(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), reason: reason.to_string(), source: None }
    }

    /// [`Error::File`] for work on a file that another error ended: `PATH: cannot be read: No such file or directory`.
    pub fn io(path: impl AsRef<Path>, what: impl std::fmt::Display, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        let reason = format!("{what}: {cause}");
        Self::File { path: path.as_ref().to_path_buf(), reason, source: Some(cause) }
    }

    /// [`Error::File`] that says no more than the error behind it does.
    pub fn in_file(path: impl AsRef<Path>, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        Self::File { path: path.as_ref().to_path_buf(), reason: cause.to_string(), source: Some(cause) }
    }

    /// [`Error::Other`]: what was under way, and the other library's error.
    pub fn other(what: impl ToString, cause: impl Into<Cause>) -> Self {
        Self::Other { what: what.to_string(), source: cause.into() }
    }

    /// [`Error::Context`]: the same error, with what it happened to before its message. [`Error::Cancelled`] happened to
    /// nothing in particular and stays as it is.
    #[must_use]
    pub fn context(self, what: impl ToString) -> Self {
        if matches!(self, Self::Cancelled) {
            return self;
        }
        Self::Context { what: what.to_string(), source: Box::new(self) }
    }

    /// The error itself, without what it happened to: never [`Error::Context`].
    pub fn cause(&self) -> &Self {
        let mut error = self;
        while let Self::Context { source, .. } = error {
            error = source;
        }
        error
    }

    /// The operating system's error behind this one, such as that of a file that is not there.
    pub fn io_error(&self) -> Option<&io::Error> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(one) = error {
            if let Some(found) = one.downcast_ref() {
                return Some(found);
            }
            error = one.source();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn the_chain_leads_down_to_the_operating_system() {
        let missing = std::fs::read("/nowhere/at all").expect_err("a file that is not there");
        let kind = missing.kind();
        let error = Error::io("scan.nii", "cannot be read", missing).context("portal phase").context("patient 7");
        assert!(error.to_string().starts_with("patient 7: portal phase: scan.nii: cannot be read: "), "{error}");
        assert!(matches!(error.cause(), Error::File { path, .. } if path == Path::new("scan.nii")));
        assert_eq!(error.io_error().expect("an error of the system").kind(), kind);
        let mut depth = 0;
        let mut at: &dyn std::error::Error = &error;
        while let Some(below) = at.source() {
            // Each message holds the one below it.
            assert!(at.to_string().ends_with(&below.to_string()), "{at} / {below}");
            (at, depth) = (below, depth + 1);
        }
        assert_eq!(depth, 3);
        assert!(at.is::<io::Error>());
    }

    #[test]
    fn an_error_without_a_cause_ends_the_chain() {
        let error = Error::file("a.nii", "is empty");
        assert!(error.source().is_none() && error.io_error().is_none());
        let error = Error::argument("dice: smooth", "0 or more", -1).context("portal phase");
        assert_eq!(error.to_string(), "portal phase: dice: smooth: expected 0 or more, found -1");
        assert!(matches!(error.cause(), Error::Argument { .. }));
    }
}
