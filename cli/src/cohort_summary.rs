//! What a cohort's results have in common: `summary.csv` and `summary.html` beside the folders of the patients.

use std::path::Path;

use super::Failure;
use super::cohort::Patient;
use crate::error::Result;
use crate::evaluate::write_table;
use nephron::io::write_atomic;
use nephron::pipeline::diagnose::Diagnosis;
use nephron::report::{Page, Section};

/// A patient of the cohort and what became of it.
pub(super) struct Outcome<'a> {
    pub(super) patient: &'a Patient,
    pub(super) result: std::result::Result<Diagnosis, Failure>,
}

const TABLE: &str = "summary.csv";
const PAGE: &str = "summary.html";

/// The columns before those of the classes.
const HEAD: [&str; 10] = [
    "patient",
    "phases",
    "kidney_ml",
    "tumour_ml",
    "maximum_2d_diameter_mm",
    "lesions",
    "lowest_kidney_with_tumour_dice",
    "decision",
    "reason",
    "warnings",
];

/// Removes what an earlier run has written.
pub(super) fn clear(folder: &Path) -> Result<()> {
    [TABLE, PAGE].iter().try_for_each(|name| super::remove_stale(&folder.join(name)))
}

/// Writes both files into `folder`, in which each patient has a folder.
pub(super) fn write(folder: &Path, outcomes: &[Outcome<'_>]) -> Result<()> {
    let classes = nephron::phase::Subtype::ALL.map(|class| class.to_string());
    let head: Vec<&str> = HEAD.into_iter().chain(classes.iter().map(String::as_str)).collect();
    let rows: Vec<Vec<String>> = outcomes.iter().map(|outcome| row(outcome, classes.len())).collect();
    write_table(&folder.join(TABLE), &head, rows.iter().cloned())?;

    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    let links = outcomes.iter().zip(rows).map(|(outcome, row)| {
        let report = outcome.result.is_ok().then(|| format!("{}/report.html", row[0]));
        (report, row)
    });
    let page = Page {
        title: "Kidney tumour cohort".into(),
        summary: vec![],
        notes: vec![
            "Research software: not a medical device, not for diagnosis.".into(),
            format!("{} patients, {failed} of them failed.", outcomes.len()),
        ],
        sections: vec![Section::Links {
            title: "Patients; volumes and the diameter are those of the reference phase".into(),
            head: head.iter().map(|name| name.replace('_', " ")).collect(),
            rows: links.collect(),
        }],
    };
    Ok(write_atomic(folder.join(PAGE), |file| std::io::Write::write_all(file, page.html(&|_| None).as_bytes()))?)
}

fn row(outcome: &Outcome<'_>, classes: usize) -> Vec<String> {
    let name = outcome.patient.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Those of the result, which may be of an earlier run; without one, those of the scans that are there.
    let phases: Vec<String> = match &outcome.result {
        Ok(found) => found.phases.iter().map(|phase| phase.phase.to_string()).collect(),
        Err(_) => outcome.patient.files.iter().map(|(phase, _)| phase.to_string()).collect(),
    };
    let mut row = vec![name, phases.join(" ")];
    let found = match &outcome.result {
        Ok(found) => found,
        Err(failure) => {
            row.extend(vec![String::new(); HEAD.len() - 4]);
            row.extend([format!("failed: {}", failure.error), String::new()]);
            row.extend(vec![String::new(); classes]);
            return row;
        }
    };
    let reference = found.phases.iter().find(|phase| phase.phase == found.reference);
    let figures = reference.map(|p| [p.kidney_ml, p.tumour_ml, p.tumour_diameter.maximum_2d_diameter_mm]);
    row.extend(figures.map_or_else(|| vec![String::new(); 3], |figures| figures.map(|v| format!("{v:.2}")).to_vec()));
    row.push(found.findings.lesions.len().to_string());
    let dice = found.phases.iter().filter_map(|p| p.registration.as_ref()).map(|r| r.aligned.kidney.hard);
    row.push(dice.reduce(f64::min).map(|dice| format!("{dice:.3}")).unwrap_or_default());
    let answer = found.findings.classification.as_ref();
    row.push(answer.map(|c| c.decision.to_string()).unwrap_or_default());
    row.push(found.findings.not_classified.clone().unwrap_or_default());
    row.push(found.warnings.len().to_string());
    row.extend((0..classes).map(|class| {
        let probability = answer.and_then(|c| c.probabilities.get(class));
        probability.map(|p| format!("{p:.4}")).unwrap_or_default()
    }));
    row
}
