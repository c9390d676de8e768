//! `nephron evaluate registration`: a table over the result.json of many `register` or `diagnose` runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{finish, print_json, results, write_table};
use crate::error::Result;
use crate::options::{CpuArgs, JsonArgs};
use nephron::error::Error as LibraryError;
use nephron::io::read_small;
use nephron::pipeline::diagnose::Diagnosis;
use nephron::registration::{Dice, Registration};

const EXAMPLES: &str = "\
Examples:
  nephron evaluate registration results
  nephron evaluate registration results --soft --csv registration.csv";

/// Dice of aligned masks, compared with the unaligned masks and with aligned centres of mass.
///
/// Reads every result.json that `register` and `diagnose` have written in and below the folders, and prints mean and standard
/// deviation for each phase and over all phases.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, mut_arg("threads", |arg| arg.hide(true)))]
pub struct Args {
    /// Folders with results of one or more cases
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Dice of masks warped trilinearly, as in the loss, instead of to the nearest label
    #[arg(long)]
    soft: bool,
    /// Write a row for each case to FILE
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cpu: CpuArgs,
}

/// One registration of the cohort. Each Dice is given unaligned, with aligned centres of mass, and aligned.
struct Row {
    case: String,
    phase: String,
    kidney_with_tumour: [f64; 3],
    tumour: Option<[f64; 3]>,
    found: Registration,
}

/// Mean and standard deviation (with n - 1) of Dice.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    mean: f64,
    sd: f64,
}

/// A row of the table.
#[derive(Serialize)]
struct Summary {
    phase: String,
    cases: usize,
    converged: usize,
    /// Dice of kidney and tumour together: unaligned, with aligned centres of mass, aligned.
    kidney_with_tumour: [Spread; 3],
    /// Dice of the tumour over the cases with a tumour in both masks.
    tumour: Option<[Spread; 3]>,
    cases_with_tumour: usize,
}

pub(super) fn run(args: &Args, output: &JsonArgs) -> Result<()> {
    let files = results(&args.folders)?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for file in &files {
        // A result that cannot be read costs itself alone.
        match read(file, args.soft) {
            Ok(found) => rows.extend(found),
            Err(error) => failed.push((file.display().to_string(), error)),
        }
    }
    if rows.is_empty() {
        finish(failed, files.len())?;
        return Err(
            LibraryError::Data(format!("{} results without a registration: nothing to evaluate", files.len())).into()
        );
    }
    let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        groups.entry(&row.phase).or_default().push(row);
    }
    let mut table: Vec<Summary> = groups.iter().map(|(phase, rows)| summary(phase, rows)).collect();
    if groups.len() > 1 {
        table.push(summary("all", &rows.iter().collect::<Vec<_>>()));
    }
    if let Some(path) = &args.csv {
        write_table(path, &HEAD, rows.iter().map(cells))?;
    }
    let written = if output.json { print_json(output, &table, &failed) } else { print(&table) };
    finish(failed, files.len())?;
    written
}

fn read(path: &Path, soft: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let text = read_small(path)?;
    let other = |e| LibraryError::io(path, "expected a result of register or diagnose", e);
    let case = path.parent().unwrap_or(Path::new("")).display().to_string();
    let mut keep = |phase: &str, found: Registration| {
        let steps = [&found.identity, &found.centre_of_mass, &found.aligned];
        let pick = |d: &Dice| if soft { d.soft } else { d.hard };
        let tumours = steps.map(|o| o.tumour.as_ref().map(pick));
        let tumour = if let [Some(a), Some(b), Some(c)] = tumours { Some([a, b, c]) } else { None };
        rows.push(Row {
            case: case.clone(),
            phase: phase.into(),
            kidney_with_tumour: steps.map(|o| pick(&o.kidney)),
            tumour,
            found,
        });
    };
    // The result of `diagnose` has a schema version; that of `register` is one registration.
    let found: serde_json::Value = serde_json::from_slice(&text).map_err(other)?;
    if found.get("schema_version").is_some() {
        for phase in Diagnosis::read(path)?.phases {
            if let Some(found) = phase.registration {
                keep(phase.phase.name(), found);
            }
        }
        return Ok(rows);
    }
    let found = serde_json::from_slice(&text).map_err(other)?;
    keep("moving", found);
    Ok(rows)
}

fn spread(values: &[f64]) -> Spread {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Spread { mean, sd: if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
}

fn summary(phase: &str, rows: &[&Row]) -> Summary {
    let tumours: Vec<[f64; 3]> = rows.iter().filter_map(|r| r.tumour).collect();
    let step = |k: usize| spread(&rows.iter().map(|r| r.kidney_with_tumour[k]).collect::<Vec<_>>());
    let tumour = |k: usize| spread(&tumours.iter().map(|t| t[k]).collect::<Vec<_>>());
    Summary {
        phase: phase.into(),
        cases: rows.len(),
        converged: rows.iter().filter(|r| r.found.converged).count(),
        kidney_with_tumour: [0, 1, 2].map(step),
        tumour: (!tumours.is_empty()).then(|| [0, 1, 2].map(tumour)),
        cases_with_tumour: tumours.len(),
    }
}

/// The columns of `--csv`.
const HEAD: [&str; 11] = [
    "case",
    "phase",
    "kidney_with_tumour_identity",
    "kidney_with_tumour_centre_of_mass",
    "kidney_with_tumour_aligned",
    "tumour_identity",
    "tumour_centre_of_mass",
    "tumour_aligned",
    "converged",
    "iterations",
    "seconds",
];

/// The cells of a row; empty where a case has no tumour.
fn cells(row: &Row) -> Vec<String> {
    let tumour = row.tumour.map_or_else(Default::default, |dice| dice.map(|v| v.to_string()));
    let Registration { converged, iterations, seconds, .. } = &row.found;
    let kidney = row.kidney_with_tumour.map(|v| v.to_string());
    let run = [converged.to_string(), iterations.to_string(), seconds.to_string()];
    [row.case.clone(), row.phase.clone()].into_iter().chain(kidney).chain(tumour).chain(run).collect()
}

fn print(table: &[Summary]) -> Result<()> {
    say!(
        "{:<14} {:>5} {:<18} {:>17} {:>17} {:>17}",
        "phase",
        "cases",
        "Dice",
        "unaligned",
        "centre of mass",
        "aligned"
    )?;
    for line in table {
        let cells = |s: &[Spread; 3]| s.map(|s| format!("{:.4} +- {:.4}", s.mean, s.sd));
        let [a, b, c] = cells(&line.kidney_with_tumour);
        say!("{:<14} {:>5} {:<18} {a:>17} {b:>17} {c:>17}", line.phase, line.cases, "kidney_with_tumour")?;
        if let Some(tumour) = &line.tumour {
            let [a, b, c] = cells(tumour);
            say!("{:<14} {:>5} {:<18} {a:>17} {b:>17} {c:>17}", "", line.cases_with_tumour, "tumour")?;
        }
        if line.converged < line.cases {
            say!("{:<14} {} of {} did not converge", "", line.cases - line.converged, line.cases)?;
        }
    }
    Ok(())
}
