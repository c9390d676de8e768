//! What a training of a classifier reports of its epochs: numbers, a table and a chart.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::report::plot::{Chart, Series};
use crate::training::checkpoint::StoredRecord;

/// An epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassifierEpoch {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The mean loss of its steps.
    pub loss: f64,
    /// The validation; None where there was none.
    pub validation: Option<Validation>,
    /// Seconds of its steps, as far as they were run at one go.
    pub seconds: f64,
    /// The share of these seconds that the device waited for batches.
    pub idle: f64,
}

/// How the network does on the validation patients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Validation {
    /// The mean of -log of the probability of the true subtype.
    pub loss: f64,
    /// The share of patients whose subtype has the highest probability.
    pub accuracy: f64,
    /// The area under the ROC curve of each subtype against the others, averaged over the subtypes that some and not all patients
    /// have; None where there is none.
    pub auc: Option<f64>,
}

impl From<&ClassifierEpoch> for StoredRecord {
    fn from(record: &ClassifierEpoch) -> Self {
        let ClassifierEpoch { epoch, learning_rate, loss, validation, seconds, idle } = *record;
        let scores = validation.map(|Validation { loss, accuracy, auc }| [loss, accuracy, auc.unwrap_or(f64::NAN)]);
        Self::new(epoch, [learning_rate, loss, seconds, idle], scores.as_ref().map(|scores| &scores[..]))
    }
}

impl From<&StoredRecord> for ClassifierEpoch {
    fn from(stored: &StoredRecord) -> Self {
        let [learning_rate, loss, seconds, idle] = stored.numbers();
        let validation = stored.scores().and_then(|scores| match *scores.as_slice() {
            [loss, accuracy, auc] => Some(Validation { loss, accuracy, auc: Some(auc).filter(|auc| !auc.is_nan()) }),
            _ => None,
        });
        Self { epoch: stored.epoch, learning_rate, loss, validation, seconds, idle }
    }
}

/// Writes the epochs as a table to `log.csv` and as a chart to `log.svg` of a folder.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(folder: &Path, records: &[ClassifierEpoch], epochs: u64) -> Result<()> {
    let mut table = "epoch,learning_rate,loss,validation_loss,accuracy,auc,seconds,idle_share\n".to_owned();
    for record in records {
        let cell = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
        let found = record.validation;
        let scores = [found.map(|v| v.loss), found.map(|v| v.accuracy), found.and_then(|v| v.auc)].map(cell).join(",");
        let ClassifierEpoch { epoch, learning_rate, loss, seconds, idle, .. } = record;
        table += &format!("{epoch},{learning_rate:.4e},{loss:.5},{scores},{seconds:.2},{idle:.3}\n");
    }
    write_atomic(folder.join("log.csv"), |file| file.write_all(table.as_bytes()))?;
    let svg = chart(records, epochs)?;
    write_atomic(folder.join("log.svg"), |file| file.write_all(svg.as_bytes()))
}

fn chart(records: &[ClassifierEpoch], epochs: u64) -> Result<String> {
    let of = |value: &dyn Fn(&ClassifierEpoch) -> Option<f64>| -> Vec<(f64, f64)> {
        records.iter().filter_map(|record| Some((record.epoch as f64, value(record)?))).collect()
    };
    let lines = [
        ("loss", of(&|record| Some(record.loss)), 6),
        ("validation loss", of(&|record| Some(record.validation?.loss)), 0),
        ("accuracy", of(&|record| Some(record.validation?.accuracy)), 1),
        ("mean AUC", of(&|record| record.validation?.auc), 2),
    ];
    let highest = lines.iter().flat_map(|(_, points, _)| points).map(|(_, y)| *y).fold(1.0, f64::max);
    if !(highest.is_finite() && records.iter().all(|record| record.loss.is_finite())) {
        return Err(Error::Data("training: a loss that is not finite has no chart".into()));
    }
    let series = lines.into_iter().filter(|(_, points, _)| !points.is_empty()).map(|(label, points, colour)| {
        let marks = points.len() == 1;
        Series { label: label.into(), points, marks, colour }
    });
    let chart = Chart {
        title: "Training".into(),
        x: "epoch".into(),
        y: "loss, accuracy and AUC".into(),
        series: series.collect(),
        range: Some([[0.0, epochs.max(1) as f64], [0.0, highest.ceil()]]),
        ..Chart::default()
    };
    chart.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_a_chart_and_the_same_record_again() {
        let record = |epoch, validation| ClassifierEpoch {
            epoch,
            learning_rate: 1e-4,
            loss: 1.5,
            validation,
            seconds: 2.0,
            idle: 0.25,
        };
        let validation = |auc| Some(Validation { loss: 0.75, accuracy: 0.5, auc });
        let records = [record(1, None), record(2, validation(Some(0.875))), record(3, validation(None))];
        for record in &records {
            assert_eq!(&ClassifierEpoch::from(&StoredRecord::from(record)), record);
        }
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &records, 10).expect("written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
        let want = "epoch,learning_rate,loss,validation_loss,accuracy,auc,seconds,idle_share\n\
                    1,1.0000e-4,1.50000,,,,2.00,0.250\n\
                    2,1.0000e-4,1.50000,0.7500,0.5000,0.8750,2.00,0.250\n\
                    3,1.0000e-4,1.50000,0.7500,0.5000,,2.00,0.250\n";
        assert_eq!(read("log.csv"), want);
        let svg = read("log.svg");
        assert!(svg.contains("validation loss") && svg.contains("mean AUC") && svg.contains("<polyline"), "{svg}");
        assert!(write(folder.path(), &[ClassifierEpoch { loss: f64::NAN, ..record(1, None) }], 10).is_err());
    }
}
