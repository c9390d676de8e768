//! The options of the device, from the command line and the environment. The library itself reads neither.

use std::path::PathBuf;

use crate::error::{Error, Result};
use nephron::device::{Autotune, Device, DeviceOptions};

use crate::Cli;

/// The value of an environment variable that is set and not empty.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The parsed value of an environment variable, where it is set.
#[cfg(feature = "gpu")]
fn parsed<T: std::str::FromStr<Err = nephron::error::Error>>(name: &str) -> Result<Option<T>> {
    let Some(value) = variable(name) else { return Ok(None) };
    value.to_string_lossy().parse().map(Some).map_err(|error| match error {
        nephron::Error::Argument { expected, found, .. } => {
            Error::Usage(format!("{name}: expected {expected}, found {found}"))
        }
        other => other.into(),
    })
}

/// The options of the device: `--tf32`, `--tune`, `--trace`, `--dump`, and from the environment
/// NEPHRON_CONV, NEPHRON_CONV_TRANSPOSE and NEPHRON_CACHE.
///
/// # Errors
/// A variable with a value that is not the name of an algorithm.
pub(super) fn of(cli: &Cli) -> Result<DeviceOptions> {
    let options = DeviceOptions::default().with_synchronous_spans(cli.trace.is_some());
    #[cfg(feature = "gpu")]
    let options = {
        let autotune = match (cli.tune, cache_folder()) {
            (false, _) => Autotune::Off,
            (true, Some(folder)) => Autotune::Cached(folder.join("conv3d.json")),
            (true, None) => Autotune::InMemory,
        };
        options
            .with_tf32(cli.tf32)
            .with_autotune(autotune)
            .with_kernel_dump(cli.dump.clone())
            .with_conv3d(parsed("NEPHRON_CONV")?)
            .with_conv_transpose3d(parsed("NEPHRON_CONV_TRANSPOSE")?)
    };
    Ok(options)
}

/// The cache folder: NEPHRON_CACHE, or `nephron` in the user's cache folder.
#[cfg(feature = "gpu")]
fn cache_folder() -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    path("NEPHRON_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").or_else(|| path("LOCALAPPDATA")).map(|f| f.join("nephron")))
        .or_else(|| path("HOME").map(|f| f.join(".cache").join("nephron")))
}

/// Writes the files of `--dump`, and warns where no kernel was compiled.
///
/// # Errors
/// A file that cannot be written.
#[cfg(feature = "gpu")]
pub(super) fn finish_dump(cli: &Cli, device: Option<&Device>) -> Result<()> {
    let Some(folder) = &cli.dump else { return Ok(()) };
    let count = device.map_or(Ok(0), Device::finish_kernel_dump)?;
    if count == 0 {
        crate::warn_line(format_args!(
            "warning: no kernel was compiled, nothing is in {}: the run was on the CPU",
            folder.display()
        ));
    }
    Ok(())
}

#[cfg(not(feature = "gpu"))]
pub(super) fn finish_dump(_: &Cli, _: Option<&Device>) -> Result<()> {
    Ok(())
}
