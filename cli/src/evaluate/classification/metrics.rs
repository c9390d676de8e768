//! The statistics of the evaluation, as metrics.json contains them.

use serde::Serialize;

use super::tables::{Cohort, Reader};
use crate::error::Result;
use nephron::stats::{self, Confusion, Interval, RankedScores};

/// The version of metrics.json.
const SCHEMA_VERSION: u32 = 1;
/// The level of the confidence intervals.
const LEVEL: f64 = 0.95;

/// The settings of the evaluation.
pub(super) struct Settings<'a> {
    pub thresholds: Option<&'a [f64]>,
    pub rounds: usize,
    pub permutations: usize,
    pub seed: u64,
}

/// The content of metrics.json.
#[derive(Serialize)]
pub(super) struct Metrics {
    schema_version: u32,
    pub cases: usize,
    pub classes: Vec<Class>,
    /// The mean area under the ROC curve over the classes that have cases.
    pub macro_auc: Interval,
    pub accuracy: Interval,
    /// The fraction of cases whose true class is among the two highest scores.
    pub top_2_accuracy: f64,
    pub class_names: Vec<String>,
    pub confusion: Confusion,
    pub readers: Vec<ReaderMetrics>,
    /// The mean over the readers of their top-1 accuracy.
    pub readers_top_1: Option<f64>,
    pub readers_top_2: Option<f64>,
    bootstrap_rounds: usize,
    permutations: usize,
    seed: u64,
    pub warnings: Vec<String>,
}

/// One class against the rest. The statistics are None where no case has this true class.
#[derive(Serialize)]
pub(super) struct Class {
    pub name: String,
    pub cases: usize,
    pub auc: Option<Interval>,
    pub average_precision: Option<f64>,
    /// The sensitivity of the decisions.
    pub sensitivity: Option<f64>,
    pub specificity: Option<f64>,
    pub optimal: Option<Optimal>,
}

/// The threshold with the largest TPR - FPR.
#[derive(Serialize)]
pub(super) struct Optimal {
    pub threshold: f64,
    pub sensitivity: f64,
    pub specificity: f64,
}

/// A reader, and the model on the cases of that reader.
#[derive(Serialize)]
pub(super) struct ReaderMetrics {
    pub name: String,
    pub cases: usize,
    pub top_1_accuracy: f64,
    pub top_2_accuracy: f64,
    pub model_accuracy: f64,
    /// The two-sided p value of the hypothesis that both are correct equally often.
    pub p_accuracy: f64,
    pub classes: Vec<ReaderClass>,
}

/// A reader's first diagnoses for one class. NaN (null) where no case of the reader has this class.
#[derive(Serialize)]
pub(super) struct ReaderClass {
    pub sensitivity: f64,
    pub specificity: f64,
    pub p_sensitivity: f64,
    pub p_specificity: f64,
}

pub(super) fn metrics(cohort: &Cohort, readers: &[Reader], settings: &Settings<'_>) -> Result<Metrics> {
    let (cases, count) = (cohort.cases.len(), cohort.classes.len());
    let Settings { rounds, seed, .. } = *settings;
    let answers: Vec<usize> = cohort.scores.iter().map(|row| stats::decide(row, settings.thresholds)).collect();
    let confusion = Confusion::new(count, &cohort.truth, &answers);
    let (mut classes, mut ranked, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for (class, name) in cohort.classes.iter().enumerate() {
        let (scores, positive) = (cohort.column(class), cohort.positive(class));
        let positives = positive.iter().filter(|p| **p).count();
        if positives == 0 {
            warnings.push(format!("{name}: no case in the truth, left out of curves and means"));
            let (auc, average_precision, sensitivity, specificity, optimal) = (None, None, None, None, None);
            classes.push(Class {
                name: name.clone(),
                cases: 0,
                auc,
                average_precision,
                sensitivity,
                specificity,
                optimal,
            });
            continue;
        }
        let ranks = RankedScores::new(&scores, &positive);
        let auc = stats::bootstrap(cases, rounds, seed, LEVEL, |counts| ranks.auc(|i| counts[i]))?;
        ranked.push(ranks);
        classes.push(Class {
            name: name.clone(),
            cases: positives,
            auc: Some(auc),
            average_precision: Some(stats::average_precision(&scores, &positive)),
            sensitivity: Some(confusion.sensitivity(class)),
            specificity: Some(confusion.specificity(class)),
            optimal: stats::optimal_threshold(&scores, &positive).map(|(threshold, tpr, fpr)| Optimal {
                threshold,
                sensitivity: tpr,
                specificity: 1.0 - fpr,
            }),
        });
    }
    // The mean exists only where every class was drawn.
    let mean = |counts: &[u32]| {
        let areas = ranked.iter().map(|r| r.auc(|i| counts[i])).collect::<Option<Vec<f64>>>()?;
        Some(areas.iter().sum::<f64>() / areas.len() as f64)
    };
    // Classes of one or two cases are hardly ever all drawn at once.
    let mean_of_drawn = |counts: &[u32]| {
        let areas: Vec<f64> = ranked.iter().filter_map(|r| r.auc(|i| counts[i])).collect();
        (!areas.is_empty()).then(|| areas.iter().sum::<f64>() / areas.len() as f64)
    };
    let macro_auc = match stats::bootstrap(cases, rounds, seed, LEVEL, mean) {
        Ok(interval) => interval,
        Err(_) => {
            let reason =
                "some classes are too rare to be drawn together: the interval of the mean AUC is over those drawn";
            warnings.push(reason.into());
            stats::bootstrap(cases, rounds, seed, LEVEL, mean_of_drawn)?
        }
    };
    let right: Vec<bool> = answers.iter().zip(&cohort.truth).map(|(a, t)| a == t).collect();
    let share = |counts: &[u32]| {
        let hits: u32 = counts.iter().zip(&right).filter(|(_, r)| **r).map(|(c, _)| c).sum();
        Some(f64::from(hits) / cases as f64)
    };
    // Of equal scores the first counts as the highest, as in the decisions.
    let within_two = |(row, truth): (&Vec<f64>, &usize)| {
        let above = |(class, score): &(usize, &f64)| **score > row[*truth] || (**score == row[*truth] && class < truth);
        row.iter().enumerate().filter(above).count() < 2
    };
    let readers: Vec<ReaderMetrics> = readers.iter().map(|r| reader_metrics(r, cohort, &answers, settings)).collect();
    let over = |f: fn(&ReaderMetrics) -> f64| {
        (!readers.is_empty()).then(|| readers.iter().map(f).sum::<f64>() / readers.len() as f64)
    };
    Ok(Metrics {
        schema_version: SCHEMA_VERSION,
        cases,
        classes,
        macro_auc,
        accuracy: stats::bootstrap(cases, rounds, seed, LEVEL, share)?,
        top_2_accuracy: cohort.scores.iter().zip(&cohort.truth).filter(|c| within_two(*c)).count() as f64
            / cases as f64,
        class_names: cohort.classes.clone(),
        confusion,
        readers_top_1: over(|r| r.top_1_accuracy),
        readers_top_2: over(|r| r.top_2_accuracy),
        readers,
        bootstrap_rounds: rounds,
        permutations: settings.permutations,
        seed,
        warnings,
    })
}

fn reader_metrics(reader: &Reader, cohort: &Cohort, model: &[usize], settings: &Settings<'_>) -> ReaderMetrics {
    let truth: Vec<usize> = reader.answers.iter().map(|(case, ..)| cohort.truth[*case]).collect();
    let first: Vec<usize> = reader.answers.iter().map(|(_, first, _)| *first).collect();
    let model: Vec<usize> = reader.answers.iter().map(|(case, ..)| model[*case]).collect();
    let share = |hits: usize| hits as f64 / truth.len() as f64;
    let hits = |answers: &[usize]| answers.iter().zip(&truth).filter(|(a, t)| a == t).count();
    let in_two = reader.answers.iter().zip(&truth).filter(|((_, a, b), t)| a == *t || *b == Some(**t)).count();
    let p = |among: &dyn Fn(usize) -> bool, right: &dyn Fn(usize, usize) -> bool| {
        let kept: Vec<usize> = (0..truth.len()).filter(|&i| among(truth[i])).collect();
        let of = |answers: &[usize]| kept.iter().map(|&i| right(answers[i], truth[i])).collect::<Vec<bool>>();
        stats::permutation_test(&of(&model), &of(&first), settings.permutations, settings.seed)
    };
    let confusion = Confusion::new(cohort.classes.len(), &truth, &first);
    ReaderMetrics {
        name: reader.name.clone(),
        cases: truth.len(),
        top_1_accuracy: share(hits(&first)),
        top_2_accuracy: share(in_two),
        model_accuracy: share(hits(&model)),
        p_accuracy: p(&|_| true, &|answer, truth| answer == truth),
        classes: (0..cohort.classes.len())
            .map(|class| ReaderClass {
                sensitivity: confusion.sensitivity(class),
                specificity: confusion.specificity(class),
                p_sensitivity: p(&|truth| truth == class, &|answer, _| answer == class),
                p_specificity: p(&|truth| truth != class, &|answer, _| answer != class),
            })
            .collect(),
    }
}
