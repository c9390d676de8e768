//! One error type for the whole crate: every message names what was expected and what was found.

use std::path::{Path, PathBuf};

/// What went wrong. `Usage` is a mistake in how nephron was called (the CLI exits 2); everything else is a failure (1).
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
    /// A wrong call: an unknown verb, device or option.
    #[error("{0}")]
    Usage(String),
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
        /// What is wrong with it.
        reason: String,
    },
    /// The caller asked for the end of the work through its progress callback.
    #[error("cancelled")]
    Cancelled,
    /// Data that cannot be worked with, such as an empty mask.
    #[error("{0}")]
    Data(String),
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

    /// [`Error::File`] with a reason.
    pub fn file(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Self::File { path: path.as_ref().to_path_buf(), reason: reason.to_string() }
    }

    /// The CLI's exit code: 2 for a wrong call, 1 for a failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
