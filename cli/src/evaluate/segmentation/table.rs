//! The rows of the evaluation and their means.

use serde::Serialize;

use crate::error::Result;
use nephron::stats::SurfaceDistances;

/// One label of one case.
pub(super) struct Row {
    pub(super) case: String,
    pub(super) phase: String,
    pub(super) label: String,
    /// None where neither mask has the label.
    pub(super) dice: Option<f64>,
    /// The volumes in millilitres: of the mask and of the true mask.
    pub(super) volumes: [f64; 2],
    /// None where one of the masks does not have the label.
    pub(super) distances: Option<SurfaceDistances>,
}

impl Row {
    fn is_missed(&self) -> bool {
        self.volumes[0] == 0.0 && self.volumes[1] > 0.0
    }

    fn is_false_alarm(&self) -> bool {
        self.volumes[0] > 0.0 && self.volumes[1] == 0.0
    }
}

/// A mean with the standard deviation of the cases.
#[derive(Serialize)]
pub(super) struct Spread {
    mean: f64,
    sd: f64,
}

/// A line of the table: a label over the cases of a phase.
#[derive(Serialize)]
pub(super) struct Summary {
    phase: String,
    label: String,
    cases: usize,
    /// Over the cases in which one of the masks has the label (nnU-Net's mean); null where there is none.
    dice: Option<Spread>,
    /// Over all cases, a case in which neither mask has the label counting as 1.
    dice_empty_as_1: Option<Spread>,
    /// The relative error (volume - true volume) / true volume. Cases with a true volume of 0 are left out.
    volume_error: Option<Spread>,
    /// Over the cases in which both masks have the label: a structure that was missed has no distance.
    hausdorff_95_mm: Option<Spread>,
    /// As above.
    average_distance_mm: Option<Spread>,
    /// Cases in which only the true mask has the label.
    missed: usize,
    /// Cases in which only the evaluated mask has the label.
    false_alarms: usize,
    /// Cases in which neither has.
    both_empty: usize,
    /// The three together: cases without a distance.
    without_distance: usize,
}

fn spread(values: &[f64]) -> Option<Spread> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (!values.is_empty()).then(|| Spread { mean, sd: if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 } })
}

pub(super) fn summary(phase: &str, label: &str, rows: &[&Row]) -> Summary {
    let of = |f: &dyn Fn(&Row) -> Option<f64>| spread(&rows.iter().filter_map(|r| f(r)).collect::<Vec<_>>());
    let error = |r: &Row| (r.volumes[1] > 0.0).then(|| (r.volumes[0] - r.volumes[1]) / r.volumes[1]);
    let count = |f: &dyn Fn(&Row) -> bool| rows.iter().filter(|r| f(r)).count();
    Summary {
        phase: phase.into(),
        label: label.into(),
        cases: rows.len(),
        dice: of(&|r| r.dice),
        dice_empty_as_1: of(&|r| Some(r.dice.unwrap_or(1.0))),
        volume_error: of(&error),
        hausdorff_95_mm: of(&|r| r.distances.map(|d| d.hausdorff_95)),
        average_distance_mm: of(&|r| r.distances.map(|d| d.average)),
        missed: count(&Row::is_missed),
        false_alarms: count(&Row::is_false_alarm),
        both_empty: count(&|r| r.dice.is_none()),
        without_distance: count(&|r| r.distances.is_none()),
    }
}

/// The columns of `--csv`.
pub(super) const HEAD: [&str; 9] = [
    "case",
    "phase",
    "label",
    "dice",
    "volume_ml",
    "true_volume_ml",
    "hausdorff_95_mm",
    "hausdorff_mm",
    "average_distance_mm",
];

/// The cells of a row; empty where there is no Dice or no distance.
pub(super) fn cells(row: &Row) -> Vec<String> {
    let far = row.distances.map(|d| [d.hausdorff_95, d.hausdorff, d.average].map(|mm| mm.to_string()));
    let volumes = row.volumes.map(|v| v.to_string());
    let names = [row.case.clone(), row.phase.clone(), row.label.clone()];
    let dice = row.dice.map_or_else(String::new, |dice| dice.to_string());
    names.into_iter().chain([dice]).chain(volumes).chain(far.unwrap_or_default()).collect()
}

pub(super) fn print(table: &[Summary]) -> Result<()> {
    say!(
        "{:<14} {:<18} {:>5} {:>17} {:>17} {:>15} {:>15} {:>6} {:>6} {:>6}",
        "phase",
        "label",
        "cases",
        "Dice",
        "volume error",
        "HD95 mm",
        "average mm",
        "missed",
        "false",
        "empty"
    )?;
    let cell = |s: &Option<Spread>, digits: usize, scale: f64, unit: &str| {
        let text = |s: &Spread| format!("{:.digits$} +- {:.digits$}{unit}", s.mean * scale, s.sd * scale);
        s.as_ref().map_or("-".into(), text)
    };
    for line in table {
        let (dice, volume) = (cell(&line.dice, 4, 1.0, ""), cell(&line.volume_error, 2, 100.0, " %"));
        let [far, average] = [&line.hausdorff_95_mm, &line.average_distance_mm].map(|s| cell(s, 2, 1.0, ""));
        say!(
            "{:<14} {:<18} {:>5} {dice:>17} {volume:>17} {far:>15} {average:>15} {:>6} {:>6} {:>6}",
            line.phase,
            line.label,
            line.cases,
            line.missed,
            line.false_alarms,
            line.both_empty
        )?;
    }
    if table.iter().any(|line| line.without_distance > 0) {
        say!(
            "missed: only the true mask has the label; false: only the mask has it; empty: neither, left out of the Dice"
        )?;
    }
    Ok(())
}
