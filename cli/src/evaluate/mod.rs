//! `nephron evaluate`: statistics of a cohort from the results of single cases.

mod classification;
mod registration;
mod segmentation;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Failure;
use crate::error::{Error, Result};
use crate::options::JsonArgs;
use nephron::error::Error as LibraryError;
use nephron::io::write_atomic;

const EXAMPLES: &str = "\
Examples:
  nephron evaluate segmentation --masks predictions --truth labelsTr
  nephron evaluate registration results
  nephron evaluate classification --scores scores.csv -o figures";

/// The arguments of `evaluate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// ROC and precision-recall curves, areas with confidence intervals, confusion matrix, and readers compared with the model.
    Classification(classification::Args),
    /// Dice of aligned masks, compared with the unaligned masks and with aligned centres of mass.
    Registration(registration::Args),
    /// Dice, volumes and surface distances of masks against true masks of the same names.
    Segmentation(segmentation::Args),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Classification(args) => args.cpu.run(|output| classification::run(args, output)),
        What::Registration(args) => args.cpu.run(|output| registration::run(args, output)),
        What::Segmentation(args) => args.cpu.run(|output| segmentation::run(args, output)),
    }
}

/// Writes a CSV table. Cells with a comma, a quote or a line break are quoted.
///
/// # Errors
/// As [`write_atomic`]; a row with another number of cells than the head.
pub(super) fn write_table(path: &Path, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<()> {
    write_atomic(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(head)?;
        for row in rows {
            table.write_record(&row)?;
        }
        table.flush()
    })?;
    Ok(())
}

/// Prints the summaries and the cases that failed.
fn print_json(output: &JsonArgs, summary: &impl Serialize, failed: &[(String, Error)]) -> Result<()> {
    let failure = |(input, error): &(String, Error)| Failure { input: input.clone(), error: error.to_string() };
    let failed: Vec<Failure> = failed.iter().map(failure).collect();
    output.print_json(&serde_json::json!({"summary": summary, "failed": failed}))
}

/// One failure is the verb's own; several are listed and counted.
fn finish(mut failed: Vec<(String, Error)>, cases: usize) -> Result<()> {
    match (failed.pop(), failed.len()) {
        (None, _) => Ok(()),
        (Some((_, only)), 0) => Err(only),
        (Some(last), others) => {
            for (_, error) in failed.iter().chain([&last]) {
                note!("error: {error}");
            }
            Err(LibraryError::Data(format!("{} of {cases} cases failed", others + 1)).into())
        }
    }
}

/// Largest depth below a given folder at which results are searched.
const MAX_DEPTH: usize = 6;

/// Every result.json in and below the folders, sorted.
///
/// # Errors
/// A folder without a result.json.
fn results(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in folders {
        let before = files.len();
        find(folder, MAX_DEPTH, &mut files)?;
        if files.len() == before {
            return Err(
                LibraryError::file(folder, "expected a result.json of register or diagnose in it, found none").into()
            );
        }
    }
    files.sort();
    files.dedup();
    Ok(files)
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e: std::io::Error| LibraryError::io(folder, "cannot be read", e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            if depth > 0 {
                find(&path, depth - 1, files)?;
            }
        } else if path.file_name().is_some_and(|name| name == "result.json") {
            files.push(path);
        }
    }
    Ok(())
}
