//! The device of a run, with its options from the command line and the environment. The library itself reads neither.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::options::DeviceArgs;
use nephron::device::{Autotune, Device, DeviceOptions};
use nephron::error::Error as LibraryError;

/// The options of a run and its device.
pub(crate) struct Context<'a> {
    args: &'a DeviceArgs,
    options: DeviceOptions,
    /// The device, once it was opened.
    opened: OnceLock<Device>,
    /// Whether the result is printed as JSON.
    pub(crate) json: bool,
    pub(crate) verbose: u8,
}

impl<'a> Context<'a> {
    /// The options of a run; no device is opened.
    ///
    /// # Errors
    /// A variable of the environment with a value that is not the name of an algorithm.
    pub(crate) fn new(args: &'a DeviceArgs) -> Result<Self> {
        let options = options(args)?;
        Ok(Self { args, options, opened: OnceLock::new(), json: args.json.json, verbose: args.verbose })
    }

    /// Opens the device of `--device`. Subcommands call it after they have checked their arguments and files.
    pub(crate) fn device(&self) -> Result<Device> {
        if let Some(device) = self.opened.get() {
            return Ok(device.clone());
        }
        let device = Device::open_with(self.args.device, self.options.clone())?;
        if self.verbose > 0 {
            crate::warn_line(format_args!("device: {}", device.name()));
        }
        Ok(self.opened.get_or_init(|| device).clone())
    }

    /// Prints a value as JSON on one line, which is the last line of standard output.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<()> {
        self.args.json.print_json(value)
    }

    /// Writes the files of `--dump`, and warns where no kernel was compiled.
    ///
    /// # Errors
    /// A file that cannot be written.
    #[cfg(feature = "gpu")]
    pub(crate) fn finish_dump(&self) -> Result<()> {
        let Some(folder) = &self.args.dump else { return Ok(()) };
        let count = self.opened.get().map_or(Ok(0), Device::finish_kernel_dump)?;
        if count == 0 {
            crate::warn_line(format_args!(
                "warning: no kernel was compiled, nothing is in {}: the run was on the CPU",
                folder.display()
            ));
        }
        Ok(())
    }

    #[cfg(not(feature = "gpu"))]
    pub(crate) fn finish_dump(&self) -> Result<()> {
        Ok(())
    }
}

/// Runs `f` in a thread pool of `threads` threads, or in the default pool.
pub(crate) fn in_pool(threads: Option<u32>, f: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let Some(threads) = threads else { return f() };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads as usize)
        .build()
        .map_err(|e| LibraryError::other("threads", e))?;
    pool.install(f)
}

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
fn options(args: &DeviceArgs) -> Result<DeviceOptions> {
    let options = DeviceOptions::default().with_synchronous_spans(args.trace.is_some());
    #[cfg(feature = "gpu")]
    let options = {
        let autotune = match (args.tune, cache_folder()) {
            (false, _) => Autotune::Off,
            (true, Some(folder)) => Autotune::Cached(folder.join("conv3d.json")),
            (true, None) => Autotune::InMemory,
        };
        options
            .with_tf32(args.tf32)
            .with_autotune(autotune)
            .with_kernel_dump(args.dump.clone())
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
