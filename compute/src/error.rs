//! The error type of all library crates. Every message says what was expected and what was found.
//!
//! A message is one complete line that includes the messages of its sources. [`source`](std::error::Error::source) gives those as
//! values, down to the `std::io::Error` of a missing file; an application should print the message or the chain, not both.

use std::io;
use std::path::{Path, PathBuf};

use crate::shown::shown_message;

/// The error of another library, or of the standard library.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// An error of a library crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A shape, length or rank that does not fit.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The operation and the tensor, e.g. `conv3d: weight`.
        what: String,
        /// The shape that was expected.
        expected: String,
        /// The shape that was found.
        found: String,
    },
    /// A value outside its range.
    #[error("{what}: expected {expected}, found {found}")]
    Argument {
        /// The operation and the argument, e.g. `conv3d: groups`.
        what: String,
        /// The values that were expected.
        expected: String,
        /// The value that was found.
        found: String,
    },
    /// Inputs that are valid alone but not together, such as a phase that is given twice, or too few phases.
    #[error("{0}")]
    Inputs(String),
    /// A text that is not the name of a device.
    #[error("unknown device '{text}': {expected}")]
    UnknownDevice {
        /// The text.
        text: String,
        /// The texts that were expected.
        expected: &'static str,
    },
    /// A device that cannot be used on this machine, or not for this purpose.
    #[error("device {device}: {reason}")]
    Device {
        /// The device as the user names it: `cuda:0`, `vulkan`.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A buffer that exceeds the device's limit.
    #[error("device {device} allows buffers of {limit} bytes at most, {needed} bytes are needed")]
    BufferTooLarge {
        /// The device.
        device: String,
        /// Number of bytes that were requested.
        needed: u64,
        /// Number of bytes that the device allows in one buffer.
        limit: u64,
    },
    /// A kernel that failed to compile, launch or finish.
    #[error("a kernel failed on {device}: {message}")]
    Kernel {
        /// The device.
        device: String,
        /// The message of the backend, on one line.
        message: String,
    },
    /// A file that cannot be read, written or understood.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, including the message of the source.
        reason: String,
        /// The error that caused this one, where there is one.
        #[source]
        source: Option<Cause>,
    },
    /// The caller's progress callback ended the work.
    #[error("cancelled")]
    Cancelled,
    /// Data that cannot be processed, such as an empty mask.
    #[error("{0}")]
    Data(String),
    /// An error with the work in which it happened, such as a phase or a pair of masks. [`Error::cause`] returns the error itself.
    #[error("{what}: {source}")]
    Context {
        /// The work that failed, e.g. `portal phase`.
        what: String,
        /// The error that ended the work.
        #[source]
        source: Box<Error>,
    },
    /// An error of another library, such as one for drawing or serialisation.
    #[error("{what}: {source}")]
    Other {
        /// The work that failed, e.g. `result.json`.
        what: String,
        /// The error of the library.
        #[source]
        source: Cause,
    },
}

/// A result with an [`Error`].
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

    /// [`Error::File`] with a reason and without a source.
    pub fn file(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), reason: reason.to_string(), source: None }
    }

    /// [`Error::File`] with a source whose message is appended: `PATH: cannot be read: there is no such file or folder`. The
    /// message may quote the file, so it is appended as [`shown_message`] has it; an error of the system is put in words.
    pub fn io(path: impl AsRef<Path>, what: impl std::fmt::Display, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        let reason = format!("{what}: {}", in_words(&cause));
        Self::File { path: path.as_ref().to_path_buf(), reason, source: Some(cause) }
    }

    /// [`Error::File`] whose reason is the message of its source.
    pub fn in_file(path: impl AsRef<Path>, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        Self::File { path: path.as_ref().to_path_buf(), reason: in_words(&cause), source: Some(cause) }
    }

    /// [`Error::Other`] from the work that failed and the error of the other library.
    pub fn other(what: impl ToString, cause: impl Into<Cause>) -> Self {
        Self::Other { what: what.to_string(), source: cause.into() }
    }

    /// [`Error::Context`]: the same error with `what` before its message. [`Error::Cancelled`] stays as it is.
    #[must_use]
    pub fn context(self, what: impl ToString) -> Self {
        if matches!(self, Self::Cancelled) {
            return self;
        }
        Self::Context { what: what.to_string(), source: Box::new(self) }
    }

    /// The error without its context: never [`Error::Context`].
    pub fn cause(&self) -> &Self {
        let mut error = self;
        while let Self::Context { source, .. } = error {
            error = source;
        }
        error
    }

    /// The first `std::io::Error` in the chain of sources, such as that of a missing file.
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

/// The message of an error; that of the operating system without its number.
fn in_words(cause: &Cause) -> String {
    let number = cause.downcast_ref::<io::Error>().and_then(|error| Some((error.kind(), error.raw_os_error()?)));
    let Some((kind, number)) = number else { return shown_message(cause) };
    match kind {
        io::ErrorKind::NotFound => "there is no such file or folder".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::StorageFull => "no space is left on the disk".into(),
        _ => {
            let text = cause.to_string();
            text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_lowercase()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn the_chain_leads_down_to_the_operating_system() {
        let missing = std::fs::read("/nowhere/at all").expect_err("a missing file");
        let kind = missing.kind();
        let error = Error::io("scan.nii", "cannot be read", missing).context("portal phase").context("patient 7");
        assert!(error.to_string().starts_with("patient 7: portal phase: scan.nii: cannot be read: "), "{error}");
        assert!(matches!(error.cause(), Error::File { path, .. } if path == Path::new("scan.nii")));
        assert_eq!(error.io_error().expect("an error of the system").kind(), kind);
        let mut depth = 0;
        let mut at: &dyn std::error::Error = &error;
        while let Some(below) = at.source() {
            // Each message holds the one below it, but that of the system is in words.
            assert!(below.is::<io::Error>() || at.to_string().ends_with(&below.to_string()), "{at} / {below}");
            (at, depth) = (below, depth + 1);
        }
        assert_eq!(depth, 3);
        assert!(at.is::<io::Error>());
        assert!(error.to_string().ends_with("scan.nii: cannot be read: there is no such file or folder"), "{error}");
        let folder = Error::io("scans", "cannot be read", std::fs::read("/").expect_err("a folder"));
        assert_eq!(folder.to_string(), "scans: cannot be read: is a directory");
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
