//! The statistics of metrics.json as CSV tables, for spreadsheets and scripts.

use std::path::Path;

use super::metrics::Metrics;
use crate::error::Result;
use crate::evaluate::write_table;
use nephron::stats::Interval;

const READERS: &str = "reader_accuracy.csv";
const READER_CLASSES: &str = "reader_classes.csv";

/// Writes overall.csv and classes.csv and, with readers, reader_accuracy.csv and reader_classes.csv, whose earlier versions are removed
/// otherwise. A cell is empty where there is no such figure.
pub(super) fn write(folder: &Path, metrics: &Metrics) -> Result<()> {
    let row = |name: &str, Interval { value, low, high }: Interval| {
        std::iter::once(name.to_owned()).chain([value, low, high].map(|v| v.to_string())).collect()
    };
    let top_2 = vec!["top_2_accuracy".to_owned(), metrics.top_2_accuracy.to_string(), String::new(), String::new()];
    let overall = [row("mean_auc", metrics.macro_auc), row("accuracy", metrics.accuracy), top_2];
    write_table(&folder.join("overall.csv"), &["figure", "value", "low", "high"], overall)?;

    let head = [
        "class",
        "cases",
        "auc",
        "auc_low",
        "auc_high",
        "average_precision",
        "sensitivity",
        "specificity",
        "optimal_threshold",
        "optimal_sensitivity",
        "optimal_specificity",
    ];
    let classes = metrics.classes.iter().map(|class| {
        let auc = class.auc.as_ref();
        let optimal = class.optimal.as_ref();
        let figures = [
            auc.map(|a| a.value),
            auc.map(|a| a.low),
            auc.map(|a| a.high),
            class.average_precision,
            class.sensitivity,
            class.specificity,
            optimal.map(|o| o.threshold),
            optimal.map(|o| o.sensitivity),
            optimal.map(|o| o.specificity),
        ];
        [class.name.clone(), class.cases.to_string()].into_iter().chain(figures.map(cell)).collect()
    });
    write_table(&folder.join("classes.csv"), &head, classes)?;

    if metrics.readers.is_empty() {
        return [READERS, READER_CLASSES].iter().try_for_each(|name| crate::remove_stale(&folder.join(name)));
    }
    let head = ["reader", "cases", "top_1_accuracy", "top_2_accuracy", "model_accuracy", "p_accuracy"];
    let readers = metrics.readers.iter().map(|reader| {
        let figures = [reader.top_1_accuracy, reader.top_2_accuracy, reader.model_accuracy, reader.p_accuracy];
        [reader.name.clone(), reader.cases.to_string()].into_iter().chain(figures.map(|v| v.to_string())).collect()
    });
    write_table(&folder.join(READERS), &head, readers)?;
    let head = ["reader", "class", "sensitivity", "specificity", "p_sensitivity", "p_specificity"];
    let rows = metrics.readers.iter().flat_map(|reader| {
        reader.classes.iter().zip(&metrics.class_names).map(|(class, name)| {
            let figures = [class.sensitivity, class.specificity, class.p_sensitivity, class.p_specificity];
            [reader.name.clone(), name.clone()].into_iter().chain(figures.map(|v| cell(Some(v)))).collect()
        })
    });
    write_table(&folder.join(READER_CLASSES), &head, rows)
}

/// A figure; empty where there is none.
fn cell(figure: Option<f64>) -> String {
    figure.filter(|v| v.is_finite()).map_or_else(String::new, |v| v.to_string())
}
