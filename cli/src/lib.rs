//! The command line: one file for each verb, with its arguments and a `run` function.

/// A line on standard output, as `println!`, but one that cannot be written is an error: [`error::Error::Output`].
macro_rules! say {
    ($($text:tt)*) => {
        $crate::write_line(format_args!($($text)*))
    };
}

/// A line on standard error, as `eprintln!`, but one that cannot be written is no reason to panic.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::warn_line(format_args!($($text)*))
    };
}

mod bench;
mod classify;
mod demo;
mod device_options;
mod devices;
mod diagnose;
pub mod error;
mod evaluate;
mod info;
mod lesion;
mod logging;
mod op;
mod patients;
mod phantom;
mod register;
mod resample;
mod segment;
mod warp;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::error::{Error, Result};
use nephron::device::{Device, DeviceOptions, DeviceSpec};
use nephron::error::Error as LibraryError;

/// GPU kernels for 3D medical imaging, and a kidney-cancer CT pipeline built from them.
#[derive(Debug, Parser)]
#[command(name = "nephron", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// auto, cpu, cuda[:n] or vulkan[:n]
    #[arg(long, global = true, default_value = "auto", value_parser = parse_device)]
    device: DeviceSpec,
    /// Threads of the CPU backend (all cores if not given)
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Machine-readable result on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Write a timeline of the ops to FILE, in Chrome's trace format; on a GPU each op is then waited for
    #[arg(long, global = true, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write the source of every kernel that is compiled for a GPU to DIR, with what it takes there
    #[cfg(feature = "gpu")]
    #[arg(long, global = true, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Time the likely kernels for each convolution on a GPU and keep the fastest, for later runs too
    #[cfg(feature = "gpu")]
    #[arg(long, global = true)]
    tune: bool,
    /// Let convolutions of f32 round their operands to tf32 where a GPU multiplies those faster
    #[cfg(feature = "gpu")]
    #[arg(long, global = true)]
    tf32: bool,
    /// Say more on standard error
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Backends and adapters, their limits and features, and why one is missing.
    Devices,
    /// Shape, spacing, orientation, dtype and geometry source of an image.
    Info(info::Args),
    /// Resample an image onto a new grid.
    Resample(resample::Args),
    /// Segment kidneys and tumours.
    Segment(segment::Args),
    /// Align a moving mask, and images with it, to a fixed mask.
    Register(Box<register::Args>),
    /// Move images and masks by transforms that were found before.
    Warp(warp::Args),
    /// Subtype probabilities from aligned phases and masks.
    Classify(classify::Args),
    /// The whole pipeline: scans in, masks, aligned phases and probabilities out.
    Diagnose(diagnose::Args),
    /// Figures over a cohort from the results of single cases.
    Evaluate(evaluate::Args),
    /// Make a synthetic multi-phase patient with ground truth.
    Phantom(phantom::Args),
    /// Run the whole pipeline on a synthetic patient.
    Demo(demo::Args),
    /// Run one operation on .npy arrays.
    Op(op::Args),
    /// Time operations and networks, each checked first.
    Bench(bench::Args),
}

/// A line on standard output.
///
/// # Errors
/// [`Error::Output`] where it cannot be written. A verb that has work left goes on with it and returns the error at its
/// end; every other ends.
fn write_line(text: fmt::Arguments<'_>) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").map_err(Error::Output)
}

/// A line on standard error. Where that cannot be written there is nobody to tell.
fn warn_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

/// What every verb gets: the options that all of them share.
pub(crate) struct Context {
    spec: DeviceSpec,
    options: DeviceOptions,
    /// The device that the verb opened.
    opened: OnceLock<Device>,
    pub(crate) json: bool,
    pub(crate) verbose: u8,
}

impl Context {
    /// Opens the device that the user asked for. Verbs call it after they have checked their arguments and files.
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

    /// One JSON object on one line, the last line of standard output.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| LibraryError::other("result", e))?;
        say!("{text}")
    }

    /// A progress bar on standard error, silent where that is no terminal.
    pub(crate) fn progress(&self, length: u64, what: &str) -> ProgressBar {
        let target =
            if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        if let Ok(style) = ProgressStyle::with_template("{msg:24} {bar:40} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// Parses the command line, runs the verb; one line on standard error and exit code 1 or 2 when it fails.
pub fn main() -> ExitCode {
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

/// As [`main`] with arguments from elsewhere, the first being the program's name, and the error returned.
///
/// # Errors
/// Whatever the verb fails with; wrong arguments are [`Error::Usage`], a standard output that cannot be written is
/// [`Error::Output`].
pub fn run_from<T: Into<OsString> + Clone>(args: impl IntoIterator<Item = T>) -> Result<()> {
    match Cli::try_parse_from(args) {
        Ok(cli) => execute(cli),
        // `--help` and `--version` come as errors too.
        Err(help) if !help.use_stderr() => help.print().map_err(Error::Output),
        Err(wrong) => Err(usage(&wrong)),
    }
}

/// A wrong call in one line: what clap says before it goes on to the usage.
fn usage(error: &clap::Error) -> Error {
    let text = error.to_string();
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let said = text[..end.unwrap_or(text.len())].trim_start_matches("error:");
    Error::Usage(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn execute(cli: Cli) -> Result<()> {
    let options = device_options::of(&cli)?;
    let trace = logging::start(cli.verbose > 0, cli.trace.as_deref())?;
    let context = Context { spec: cli.device, options, opened: OnceLock::new(), json: cli.json, verbose: cli.verbose };
    let done = in_pool(cli.threads, || run(&cli.verb, &context));
    // What a run that failed has done is worth reading too; its own error comes first.
    drop(trace);
    done.and(device_options::finish_dump(&cli, context.opened.get()))
}

/// Runs `f` with so many threads for everything that is parallel in it.
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
        Verb::Register(args) => register::run(args, context),
        Verb::Warp(args) => warp::run(args, context),
        Verb::Classify(args) => classify::run(args, context),
        Verb::Diagnose(args) => diagnose::run(args, context),
        Verb::Evaluate(args) => evaluate::run(args, context),
        Verb::Phantom(args) => phantom::run(args, context),
        Verb::Demo(args) => demo::run(args, context),
        Verb::Op(args) => op::run(args, context),
        Verb::Bench(args) => bench::run(args, context),
    }
}
