//! The command `nephron`, for CT of kidney tumours: segmentation, registration, classification, evaluation, benchmarks.
//!
//! `cargo install nephron-cli` installs it; `nephron --help` lists the subcommands, and the
//! [README](https://github.com/nephron-rs/nephron) describes them. The library behind it is
//! [`nephron`](https://docs.rs/nephron). Another program can call [`run_from`] with arguments of its own.
//!
//! Features, all on by default: `cuda` and `vulkan` add those backends; `gpu` is part of both.
//!
//! There is one module for each subcommand, with its arguments and a `run` function.

// A stream that cannot be written makes these macros panic.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

/// Prints a line to standard output, as `println!`; a line that cannot be written is an error, [`error::Error::Output`].
macro_rules! say {
    ($($text:tt)*) => {
        $crate::write_line(format_args!($($text)*))
    };
}

/// Prints a line to standard error, as `eprintln!`, but does not panic where it cannot be written.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::warn_line(format_args!($($text)*))
    };
}

mod bench;
mod classify;
mod classify_args;
mod cohort;
mod cohort_summary;
mod completions;
mod demo;
mod device_options;
mod devices;
mod diagnose;
pub mod error;
mod evaluate;
mod import;
mod info;
mod logging;
mod op;
mod phantom;
mod progress;
mod register;
mod resample;
mod segment;
mod signals;
mod terminal;
mod warp;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::progress::Progress;
use nephron::device::{Device, DeviceOptions, DeviceSpec};
use nephron::error::Error as LibraryError;

/// The heading of the options that every subcommand takes.
const DEVICE: &str = "Device, output and profiling";

/// GPU kernels for 3D medical imaging, and a kidney-cancer CT pipeline built from them.
#[derive(Debug, Parser)]
#[command(name = "nephron", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// auto, cpu, cuda[:n] or vulkan[:n]
    #[arg(long, global = true, help_heading = DEVICE, default_value = "auto", value_parser = parse_device)]
    device: DeviceSpec,
    /// Threads of the CPU backend (all cores if not given)
    #[arg(long, global = true, help_heading = DEVICE, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Machine-readable result on standard output
    #[arg(long, global = true, help_heading = DEVICE)]
    json: bool,
    /// Write a timeline of the ops to FILE, in Chrome's trace format; a GPU then finishes each op before the next
    #[arg(long, global = true, help_heading = DEVICE, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write the source of every kernel that is compiled for a GPU to DIR, with its registers, memory and occupancy on CUDA
    #[cfg(feature = "gpu")]
    #[arg(long, global = true, help_heading = DEVICE, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Time the most promising kernels for each convolution on a GPU and keep the fastest, also for later runs
    #[cfg(feature = "gpu")]
    #[arg(long, global = true, help_heading = DEVICE)]
    tune: bool,
    /// Let convolutions of f32 tensors round their operands to tf32 where a GPU multiplies those faster
    #[cfg(feature = "gpu")]
    #[arg(long, global = true, help_heading = DEVICE)]
    tf32: bool,
    /// Print the device, the chosen kernels and the use of memory to standard error
    #[arg(short, long, global = true, help_heading = DEVICE, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Show no progress
    #[arg(short, long, global = true, help_heading = DEVICE, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List backends and adapters, their limits and features, and why one is not available.
    Devices,
    /// Print shape, spacing, orientation, dtype and geometry source of an image.
    Info(info::Args),
    /// Resample an image onto a new grid.
    Resample(resample::Args),
    /// Segment kidneys and tumours.
    Segment(segment::Args),
    /// Convert a model of another program, such as nnU-Net, to safetensors and JSON.
    Import(import::Args),
    /// Align a moving mask, and images with it, to a fixed mask.
    Register(Box<register::Args>),
    /// Resample images and masks through given transforms.
    Warp(warp::Args),
    /// Classify the tumours of aligned phases with masks.
    Classify(classify::Args),
    /// Run the whole pipeline: from scans to masks, aligned phases, probabilities and a report.
    Diagnose(diagnose::Args),
    /// Evaluate a cohort from the results of single cases.
    Evaluate(evaluate::Args),
    /// Make a synthetic multi-phase patient with ground truth.
    Phantom(phantom::Args),
    /// Run the whole pipeline on a synthetic patient.
    Demo(demo::Args),
    /// Run one operation on .npy arrays.
    Op(op::Args),
    /// Time operations and networks after checking each.
    Bench(bench::Args),
    /// Print the completions of a shell, such as for `source <(nephron completions bash)`.
    Completions(completions::Args),
    /// Write the manual pages.
    Man(completions::ManArgs),
}

/// Prints a line to standard output, without what a terminal would obey: it may contain text of files.
///
/// # Errors
/// [`Error::Output`] where it cannot be written. A subcommand with work left finishes it and then returns the error; all others
/// return at once.
fn write_line(text: fmt::Arguments<'_>) -> Result<()> {
    writeln!(io::stdout().lock(), "{}", terminal::plain(&text.to_string())).map_err(Error::Output)
}

/// Prints a line to standard error, as [`terminal::message`] has it. A failure to write it is ignored, because there is nowhere to
/// report it.
fn warn_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", terminal::message(&text.to_string()));
}

fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

/// The options that all subcommands share.
pub(crate) struct Context {
    spec: DeviceSpec,
    options: DeviceOptions,
    /// The device, once it was opened.
    opened: OnceLock<Device>,
    pub(crate) json: bool,
    pub(crate) verbose: u8,
    quiet: bool,
}

impl Context {
    /// Opens the device of `--device`. Subcommands call it after they have checked their arguments and files.
    pub(crate) fn device(&self) -> Result<Device> {
        if let Some(device) = self.opened.get() {
            return Ok(device.clone());
        }
        let device = Device::open_with(self.spec, self.options.clone())?;
        if self.verbose > 0 {
            warn_line(format_args!("device: {}", device.name()));
        }
        Ok(self.opened.get_or_init(|| device).clone())
    }

    /// Prints a value as JSON on one line, which is the last line of standard output.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| LibraryError::other("result", e))?;
        writeln!(io::stdout().lock(), "{}", terminal::plain_json(&text)).map_err(Error::Output)
    }

    /// What shows the progress of a run.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.quiet)
    }
}

/// An input of several that could not be processed, as the JSON of all subcommands lists it.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
struct Failure {
    /// The image, patient or case.
    input: String,
    error: String,
}

/// The warning of a label map that is interpolated.
const LABELS_INTERPOLATED: &str =
    "looks like a label map: this interpolation makes fractions of its labels; --interp nearest keeps them";

/// Refuses an output that is one of the inputs, by whatever name.
///
/// # Errors
/// [`Error::Usage`](error::Error::Usage) that names it.
fn ensure_no_input<'a>(
    output: &std::path::Path,
    inputs: impl IntoIterator<Item = &'a std::path::PathBuf>,
) -> Result<()> {
    let target = output.canonicalize().ok();
    if target.is_some() && inputs.into_iter().any(|input| input.canonicalize().ok() == target) {
        return Err(error::Error::Usage(format!("{} is an input, choose another name", output.display())));
    }
    Ok(())
}

/// Removes what an earlier run wrote to `path`, if anything.
///
/// # Errors
/// A file that cannot be removed.
fn remove_stale(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(LibraryError::io(path, "cannot be replaced", e).into())
        }
        _ => Ok(()),
    }
}

/// Parses the command line and runs the subcommand. An error is printed as one line on standard error, with exit code 1 or 2. A
/// signal that ends the program removes the files that were being written.
pub fn main() -> ExitCode {
    signals::remove_files_at_the_end();
    match run_from(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_closed_pipe() {
                note!("error: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

/// As [`main`], with arguments of the caller, of which the first is the program's name, and returning the error.
///
/// # Errors
/// An error of the subcommand; [`Error::Usage`] for wrong arguments, [`Error::Output`] where standard output cannot be written.
pub fn run_from<T: Into<OsString> + Clone>(args: impl IntoIterator<Item = T>) -> Result<()> {
    match Cli::try_parse_from(args) {
        Ok(cli) => execute(cli),
        // clap returns `--help` and `--version` as errors too, and the help that a call without a subcommand gets.
        Err(help) if !help.use_stderr() => help.print().map_err(Error::Output),
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            write!(io::stdout(), "{help}").map_err(Error::Output)
        }
        Err(wrong) => Err(usage(&wrong)),
    }
}

/// A usage error with clap's message on one line, without the usage text that follows it.
fn usage(error: &clap::Error) -> Error {
    let text = error.to_string();
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let message = text[..end.unwrap_or(text.len())].trim_start_matches("error:");
    let parts = message.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    Error::Usage(parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; "))
}

fn execute(cli: Cli) -> Result<()> {
    let options = device_options::of(&cli)?;
    let trace = logging::start(cli.verbose > 0, cli.trace.as_deref())?;
    let context = Context {
        spec: cli.device,
        options,
        opened: OnceLock::new(),
        json: cli.json,
        verbose: cli.verbose,
        quiet: cli.quiet,
    };
    let done = in_pool(cli.threads, || run(&cli.verb, &context));
    // Trace and dump are completed after a failure too; the error of the run has precedence.
    drop(trace);
    done.and(device_options::finish_dump(&cli, context.opened.get()))
}

/// Runs `f` in a thread pool of `threads` threads, or in the default pool.
fn in_pool(threads: Option<u32>, f: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let Some(threads) = threads else { return f() };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads as usize)
        .build()
        .map_err(|e| LibraryError::other("threads", e))?;
    pool.install(f)
}

fn run(verb: &Verb, context: &Context) -> Result<()> {
    match verb {
        Verb::Devices => devices::run(context),
        Verb::Info(args) => info::run(args, context),
        Verb::Resample(args) => resample::run(args, context),
        Verb::Segment(args) => segment::run(args, context),
        Verb::Import(args) => import::run(args, context),
        Verb::Register(args) => register::run(args, context),
        Verb::Warp(args) => warp::run(args, context),
        Verb::Classify(args) => classify::run(args, context),
        Verb::Diagnose(args) => diagnose::run(args, context),
        Verb::Evaluate(args) => evaluate::run(args, context),
        Verb::Phantom(args) => phantom::run(args, context),
        Verb::Demo(args) => demo::run(args, context),
        Verb::Op(args) => op::run(args, context),
        Verb::Bench(args) => bench::run(args, context),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => completions::man(args),
    }
}
