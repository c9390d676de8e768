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
mod context;
mod demo;
mod devices;
mod diagnose;
pub mod error;
mod evaluate;
mod import;
mod info;
mod label_files;
mod logging;
mod op;
mod options;
mod output;
mod phantom;
mod progress;
mod register;
mod resample;
mod samples;
mod segment;
mod segmentation;
mod signals;
mod terminal;
mod train;
mod verbs;
mod warp;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::{Failure, LABELS_INTERPOLATED, ensure_no_input, remove_stale, warn_line, write_line};
use crate::verbs::Cli;

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
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    match Cli::try_parse_from(&args) {
        Ok(cli) => cli.run(),
        // clap returns `--help` and `--version` as errors too, and the help that a call without a subcommand gets.
        Err(help) if !help.use_stderr() => help.print().map_err(Error::Output),
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            write!(io::stdout(), "{help}").map_err(Error::Output)
        }
        Err(wrong) => {
            let words: Vec<String> = args.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            Err(verbs::usage(&wrong, &words))
        }
    }
}
