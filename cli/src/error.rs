//! Errors of the command, and their exit codes.

use std::io::{self, ErrorKind};

use nephron::error::Error as LibraryError;

/// The result of a subcommand.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that ends a run of the command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A wrong call: an unknown subcommand, an option out of range, files that do not belong together.
    #[error("{0}")]
    Usage(String),
    /// The work itself failed.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl Error {
    /// The exit code: 2 for a wrong call, 1 for a failure. A closed standard output (`| head -1`) is no failure and gives 0, because
    /// only text is lost.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Library(error) => match error.cause() {
                // In the library's errors about phases and devices these are arguments of the call.
                LibraryError::Inputs(_) | LibraryError::UnknownDevice { .. } => 2,
                _ => 1,
            },
            Self::Output(_) if self.is_closed_pipe() => 0,
            Self::Output(_) => 1,
        }
    }

    /// Whether standard output was closed by its reader.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }

    /// A usage error where the library found an argument out of range, otherwise the library's error.
    pub(crate) fn wrong_argument(error: LibraryError) -> Self {
        match error {
            LibraryError::Argument { .. } => Self::Usage(error.to_string()),
            other => Self::Library(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_look_through_the_context() {
        let code = |error: LibraryError| Error::from(error).exit_code();
        assert_eq!(Error::Usage("--seconds".into()).exit_code(), 2);
        assert_eq!(code(LibraryError::Inputs("a phase twice".into()).context("patient 7")), 2);
        let device: std::result::Result<nephron::device::DeviceSpec, _> = "tpu".parse();
        assert_eq!(code(device.expect_err("no such device")), 2);
        assert_eq!(code(LibraryError::argument("dice: smooth", "0 or more", -1)), 1);
        assert_eq!(code(LibraryError::file("a.nii", "is empty").context("portal phase")), 1);
        assert_eq!(Error::Output(ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(Error::Output(ErrorKind::StorageFull.into()).exit_code(), 1);
    }
}
