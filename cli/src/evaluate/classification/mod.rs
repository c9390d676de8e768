//! `nephron evaluate classification`: from scores, true classes and readers to areas, confidence intervals, tests and curves.

mod figures;
mod metrics;
mod tables;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::write_table;
use crate::error::{Error, Result};
use crate::options::{CpuArgs, JsonArgs};
use metrics::{Metrics, Settings};
use nephron::error::Error as LibraryError;
use nephron::io::{FolderLock, write_atomic};
use nephron::report::plot::{Chart, Series};
use nephron::stats;
use tables::{Cohort, Reader};

const EXAMPLES: &str = "\
Examples:
  nephron evaluate classification --scores scores.csv -o figures
  nephron evaluate classification --results results --truth truth.csv --readers readers.csv -o figures";

/// ROC and precision-recall curves, areas with confidence intervals, confusion matrix, and readers compared with the model.
///
/// Writes metrics.json, its figures as overall.csv, classes.csv and, with --readers, reader_accuracy.csv and reader_classes.csv, roc.csv,
/// precision_recall.csv, confusion.csv and both curves as SVG and PNG.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// CSV with the columns case, one of probabilities for each class and, unless --truth is given, truth
    #[arg(long, value_name = "FILE", required_unless_present = "results", conflicts_with = "results")]
    scores: Option<PathBuf>,
    /// Folders of `diagnose` results, instead of --scores; the name of a case is the folder of its result.json
    #[arg(long, value_name = "DIR", num_args = 1.., requires = "truth")]
    results: Vec<PathBuf>,
    /// CSV with the columns case and truth (a class's name, or its number from 0)
    #[arg(long, value_name = "FILE")]
    truth: Option<PathBuf>,
    /// CSV with the columns case, reader, first and second (the diagnoses; the second may be empty)
    #[arg(long, value_name = "FILE")]
    readers: Option<PathBuf>,
    /// Decide by the highest score among those above their class's threshold, else by the highest score; one threshold for each class
    #[arg(long, value_name = "T,T,..", value_delimiter = ',')]
    thresholds: Option<Vec<f64>>,
    /// Number of bootstrap rounds for the 95 % intervals
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    bootstrap: u32,
    /// Number of rounds of the permutation tests
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    permutations: u32,
    /// Seed of bootstrap and permutation tests
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Folder for the results; created if needed
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    pub(super) cpu: CpuArgs,
}

pub(super) fn run(args: &Args, output: &JsonArgs) -> Result<()> {
    let cohort = match (&args.scores, &args.truth) {
        (Some(scores), truth) => Cohort::read(scores, truth.as_deref())?,
        (None, Some(truth)) => {
            let (table, without) = tables::from_results(&super::results(&args.results)?)?;
            for (case, reason) in without {
                note!("warning: {case}: {reason}; left out");
            }
            Cohort::from_table(&table, Some(truth))?
        }
        (None, None) => return Err(Error::Usage("expected --scores, or --results with --truth".into())),
    };
    let readers = args.readers.as_deref().map_or(Ok(Vec::new()), |path| cohort.readers(path))?;
    if let Some(thresholds) = &args.thresholds {
        if thresholds.len() != cohort.classes.len() {
            let [expected, found] = [cohort.classes.len(), thresholds.len()];
            return Err(Error::Usage(format!("--thresholds: expected {expected}, one for each class, found {found}")));
        }
        if let Some(wrong) = thresholds.iter().find(|t| !(0.0..=1.0).contains(*t)) {
            return Err(Error::Usage(format!("--thresholds: expected numbers between 0 and 1, found {wrong}")));
        }
    }
    let settings = Settings {
        thresholds: args.thresholds.as_deref(),
        rounds: args.bootstrap as usize,
        permutations: args.permutations as usize,
        seed: args.seed,
    };
    let _held = FolderLock::new(&args.output)?;
    let metrics = metrics::metrics(&cohort, &readers, &settings)?;
    for warning in &metrics.warnings {
        note!("warning: {warning}");
    }
    write(&args.output, &cohort, &readers, &metrics)?;
    if output.json {
        return output.print_json(&metrics);
    }
    print(&metrics)?;
    say!("{}", args.output.display())?;
    Ok(())
}

fn write(folder: &Path, cohort: &Cohort, readers: &[Reader], metrics: &Metrics) -> Result<()> {
    let save = |name: &str, bytes: &[u8]| write_atomic(folder.join(name), |file| file.write_all(bytes));
    let mut roc = Chart {
        title: "Receiver operating characteristic".into(),
        x: "false positive rate (1 - specificity)".into(),
        y: "true positive rate (sensitivity)".into(),
        diagonal: true,
        ..Chart::default()
    };
    let mut precision =
        Chart { title: "Precision over recall".into(), x: "recall".into(), y: "precision".into(), ..Chart::default() };
    let (mut roc_rows, mut precision_rows) = (Vec::new(), Vec::new());
    for (class, figures) in metrics.classes.iter().enumerate() {
        let (Some(auc), Some(average)) = (figures.auc, figures.average_precision) else { continue };
        let (scores, positive) = (cohort.column(class), cohort.positive(class));
        for (chart, rows, curve, label) in [
            (
                &mut roc,
                &mut roc_rows,
                stats::roc_curve(&scores, &positive),
                format!("{}: AUC {:.3} ({:.3}-{:.3})", figures.name, auc.value, auc.low, auc.high),
            ),
            (
                &mut precision,
                &mut precision_rows,
                stats::precision_recall_curve(&scores, &positive),
                format!("{}: average precision {average:.3}", figures.name),
            ),
        ] {
            let points: Vec<(f64, f64)> = curve.x.iter().copied().zip(curve.y.iter().copied()).collect();
            for (i, (x, y)) in points.iter().enumerate() {
                let threshold = curve.thresholds.get(i).map_or(String::new(), f64::to_string);
                rows.push(vec![figures.name.clone(), threshold, x.to_string(), y.to_string()]);
            }
            chart.series.push(Series { label, points, marks: false, colour: class });
        }
        let points: Vec<(f64, f64)> = metrics
            .readers
            .iter()
            .map(|r| (1.0 - r.classes[class].specificity, r.classes[class].sensitivity))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        if !points.is_empty() {
            let label = format!("{}: {} readers", figures.name, readers.len());
            roc.series.push(Series { label, points, marks: true, colour: class });
        }
    }
    for (name, chart, axes, rows) in [
        ("roc", roc, ["fpr", "tpr"], roc_rows),
        ("precision_recall", precision, ["recall", "precision"], precision_rows),
    ] {
        let head = ["class", "threshold", axes[0], axes[1]];
        write_table(&folder.join(format!("{name}.csv")), &head, rows)?;
        save(&format!("{name}.svg"), chart.svg()?.as_bytes())?;
        save(&format!("{name}.png"), &chart.png()?)?;
    }
    let names = &metrics.class_names;
    let head: Vec<&str> = std::iter::once("truth \\ answer").chain(names.iter().map(String::as_str)).collect();
    let rows = names.iter().zip(&metrics.confusion.0);
    let rows = rows.map(|(name, row)| std::iter::once(name.clone()).chain(row.iter().map(usize::to_string)).collect());
    write_table(&folder.join("confusion.csv"), &head, rows)?;
    figures::write(folder, metrics)?;
    let text = serde_json::to_string_pretty(metrics).map_err(|e| LibraryError::other("metrics.json", e))?;
    Ok(save("metrics.json", (text + "\n").as_bytes())?)
}

fn print(metrics: &Metrics) -> Result<()> {
    let figure = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.3}"));
    say!(
        "{:<16} {:>5} {:>21} {:>7} {:>12} {:>12} {:>9}",
        "class",
        "cases",
        "AUC (95 %)",
        "AP",
        "sensitivity",
        "specificity",
        "optimal t"
    )?;
    for class in &metrics.classes {
        let auc = class.auc.map_or("-".into(), |a| format!("{:.3} ({:.3}-{:.3})", a.value, a.low, a.high));
        let [ap, sensitivity, specificity] =
            [class.average_precision, class.sensitivity, class.specificity].map(figure);
        let optimal = figure(class.optimal.as_ref().map(|o| o.threshold));
        say!(
            "{:<16} {:>5} {auc:>21} {ap:>7} {sensitivity:>12} {specificity:>12} {optimal:>9}",
            class.name,
            class.cases
        )?;
    }
    let (auc, accuracy) = (metrics.macro_auc, metrics.accuracy);
    say!("mean AUC {:.3} ({:.3}-{:.3})", auc.value, auc.low, auc.high)?;
    say!(
        "accuracy {:.3} ({:.3}-{:.3}), truth among the two highest {:.3}, {} cases",
        accuracy.value,
        accuracy.low,
        accuracy.high,
        metrics.top_2_accuracy,
        metrics.cases
    )?;
    if metrics.readers.is_empty() {
        return Ok(());
    }
    say!("{:<16} {:>5} {:>8} {:>8} {:>8} {:>9}", "reader", "cases", "top 1", "top 2", "model", "p")?;
    for r in &metrics.readers {
        say!(
            "{:<16} {:>5} {:>8.3} {:>8.3} {:>8.3} {:>9.4}",
            r.name,
            r.cases,
            r.top_1_accuracy,
            r.top_2_accuracy,
            r.model_accuracy,
            r.p_accuracy
        )?;
    }
    if let (Some(first), Some(second)) = (metrics.readers_top_1, metrics.readers_top_2) {
        say!("{:<16} {:>5} {first:>8.3} {second:>8.3}", "mean", "")?;
    }
    Ok(())
}
