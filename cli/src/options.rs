//! Options that subcommands share. A subcommand takes those that act on it, and refuses the others.

use crate::context::{Context, in_pool};
use crate::error::Result;
use crate::logging;
use crate::progress::Progress;
use crate::terminal;
use nephron::device::DeviceSpec;
use nephron::error::Error as LibraryError;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// The heading of the options of the device in the help.
const DEVICE: &str = "Device and profiling";
/// The heading of the options of what is printed.
const OUTPUT: &str = "Output";

/// The option of every subcommand with a result that programs read.
#[derive(Debug, clap::Args)]
pub struct JsonArgs {
    /// Machine-readable result on standard output
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
}

/// The option of subcommands that show their progress.
#[derive(Debug, clap::Args)]
pub struct ProgressArgs {
    /// Show no progress
    #[arg(short, long, help_heading = OUTPUT, conflicts_with = "verbose")]
    quiet: bool,
}

/// The options of a subcommand that computes on the CPU and opens no device.
#[derive(Debug, clap::Args)]
pub struct CpuArgs {
    #[command(flatten)]
    json: JsonArgs,
    /// Threads (all cores if not given)
    #[arg(long, help_heading = OUTPUT, value_parser = threads())]
    threads: Option<u32>,
    /// The device, which only can be the CPU. Scripts that give every call the same `--device cpu` need not know what opens one.
    #[arg(long, hide = true, value_parser = parse_cpu)]
    device: Option<DeviceSpec>,
}

/// The options of a subcommand that opens a device.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    /// auto, cpu, cuda[:n] or vulkan[:n]
    #[arg(long, help_heading = DEVICE, default_value = "auto", value_parser = parse_device)]
    pub(crate) device: DeviceSpec,
    /// Threads of the CPU backend (all cores if not given)
    #[arg(long, help_heading = DEVICE, value_parser = threads())]
    pub(crate) threads: Option<u32>,
    /// Write a timeline of the ops to FILE, in Chrome's trace format; a GPU then finishes each op before the next
    #[arg(long, help_heading = DEVICE, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Write the source of every kernel that is compiled for a GPU to DIR, with its registers, memory and occupancy on CUDA
    #[cfg(feature = "gpu")]
    #[arg(long, help_heading = DEVICE, value_name = "DIR")]
    pub(crate) dump: Option<PathBuf>,
    /// Time the most promising kernels for each convolution on a GPU and keep the fastest, also for later runs
    #[cfg(feature = "gpu")]
    #[arg(long, help_heading = DEVICE)]
    pub(crate) tune: bool,
    /// Let convolutions of f32 tensors round their operands to tf32 where a GPU multiplies those faster
    #[cfg(feature = "gpu")]
    #[arg(long, help_heading = DEVICE)]
    pub(crate) tf32: bool,
    /// Print the device, the chosen kernels and the use of memory to standard error
    #[arg(short, long, help_heading = DEVICE, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The numbers of threads that are accepted.
fn threads() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=1024)
}

/// `N` numbers with commas between them; `expected` is what a message calls them.
pub(crate) fn list<T: std::str::FromStr, const N: usize>(text: &str, expected: &str) -> Result<[T; N], String> {
    let parts: Option<Vec<T>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    parts.and_then(|parts| parts.try_into().ok()).ok_or_else(|| format!("expected {expected}"))
}

fn parse_device(text: &str) -> Result<DeviceSpec, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

fn parse_cpu(text: &str) -> Result<DeviceSpec, String> {
    match parse_device(text)? {
        spec @ (DeviceSpec::Auto | DeviceSpec::Cpu) => Ok(spec),
        _ => Err("this subcommand computes on the CPU: expected cpu, or no --device".into()),
    }
}

impl JsonArgs {
    /// Runs a subcommand without any other of these options.
    pub(crate) fn run(&self, verb: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        logging::start(false, None)?;
        verb(self)
    }

    /// Prints a value as JSON on one line, which is the last line of standard output.
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| LibraryError::other("result", e))?;
        writeln!(io::stdout().lock(), "{}", terminal::plain_json(&text)).map_err(crate::error::Error::Output)
    }
}

impl ProgressArgs {
    /// What shows the progress of a run.
    pub(crate) fn start(&self) -> Progress {
        Progress::new(self.quiet)
    }
}

impl CpuArgs {
    /// Runs a subcommand with these threads.
    pub(crate) fn run(&self, verb: impl FnOnce(&JsonArgs) -> Result<()> + Send) -> Result<()> {
        self.json.run(|json| in_pool(self.threads, || verb(json)))
    }
}

impl DeviceArgs {
    /// Runs a subcommand with the device of these options, and completes trace and dump.
    pub(crate) fn run(&self, verb: impl FnOnce(&Context) -> Result<()> + Send) -> Result<()> {
        let trace = logging::start(self.verbose > 0, self.trace.as_deref())?;
        let context = Context::new(self)?;
        let done = in_pool(self.threads, || verb(&context));
        // Trace and dump are completed after a failure too; the error of the run has precedence.
        drop(trace);
        done.and(context.finish_dump())
    }
}
