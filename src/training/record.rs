//! What a training reports of its epochs: numbers, a table and a chart.

use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::report::plot::{Chart, Series};

/// An epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: u64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The mean loss of its steps.
    pub loss: f64,
    /// The Dice of each label, the background left out, averaged over the validation cases; None where it was not validated.
    pub dice: Option<Vec<f64>>,
    /// Seconds of its steps, as far as they were run at one go.
    pub seconds: f64,
    /// The share of these seconds that the device waited for batches.
    pub idle: f64,
}

/// Writes the epochs as a table to `log.csv` and as a chart to `log.svg` of a folder.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(folder: &Path, records: &[EpochRecord], labels: &[String], epochs: u64) -> Result<()> {
    let names: Vec<String> = labels.iter().map(|label| format!("dice_{}", quoted(label))).collect();
    let mut table = format!("epoch,learning_rate,loss,{},seconds,idle_share\n", names.join(","));
    for record in records {
        let dice: Vec<String> = match &record.dice {
            Some(dice) => dice.iter().map(|d| format!("{d:.4}")).collect(),
            None => vec![String::new(); labels.len()],
        };
        let EpochRecord { epoch, learning_rate, loss, seconds, idle, .. } = record;
        table += &format!("{epoch},{learning_rate:.6},{loss:.5},{},{seconds:.2},{idle:.3}\n", dice.join(","));
    }
    write_atomic(folder.join("log.csv"), |file| file.write_all(table.as_bytes()))?;
    let svg = chart(records, labels, epochs)?;
    write_atomic(folder.join("log.svg"), |file| file.write_all(svg.as_bytes()))
}

/// A name without what separates the columns of a table.
fn quoted(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

fn chart(records: &[EpochRecord], labels: &[String], epochs: u64) -> Result<String> {
    let x = |record: &EpochRecord| record.epoch as f64;
    let highest = records.iter().map(|record| record.loss).fold(1.0, f64::max);
    let loss = records.iter().map(|record| (x(record), record.loss)).collect();
    let mut series = vec![Series { label: "loss".into(), points: loss, marks: false, colour: 6 }];
    for (i, label) in labels.iter().enumerate() {
        let value = |record: &EpochRecord| Some((x(record), *record.dice.as_ref()?.get(i)?));
        let points: Vec<(f64, f64)> = records.iter().filter_map(value).collect();
        let marks = points.len() == 1;
        series.push(Series { label: format!("Dice of {label}"), points, marks, colour: i });
    }
    let lowest = records.iter().map(|record| record.loss).fold(0.0, f64::min).floor();
    if !(highest.is_finite() && lowest.is_finite()) {
        return Err(Error::Data("training: a loss that is not finite has no chart".into()));
    }
    let chart = Chart {
        title: "Training".into(),
        x: "epoch".into(),
        y: "loss and Dice".into(),
        series,
        range: Some([[0.0, epochs.max(1) as f64], [lowest, highest.ceil()]]),
        ..Chart::default()
    };
    chart.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_and_a_chart() {
        let record =
            |epoch, loss, dice| EpochRecord { epoch, learning_rate: 0.01, loss, dice, seconds: 2.0, idle: 0.25 };
        let records = [record(1, 1.5, None), record(2, -0.5, Some(vec![0.5, 0.25]))];
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), &records, &["kidney".into(), "a, b".into()], 10).expect("written");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
        let want = "epoch,learning_rate,loss,dice_kidney,dice_a__b,seconds,idle_share\n\
                    1,0.010000,1.50000,,,2.00,0.250\n2,0.010000,-0.50000,0.5000,0.2500,2.00,0.250\n";
        assert_eq!(read("log.csv"), want);
        let svg = read("log.svg");
        assert!(svg.contains("Dice of kidney") && svg.contains("<polyline"), "{svg}");
    }
}
