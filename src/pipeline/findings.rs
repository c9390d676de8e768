//! A patient's lesions, and the answer for the one that was asked for.

use std::path::Path;

use serde::Serialize;

use super::classify::{Classification, Classifier, LEAST_PHASES, PhaseImage, too_few};
use super::lesions::{self, Lesion, LesionChoice, Specks};
use super::pictures;
use crate::error::{Error, Result};
use crate::phase::Phase;

/// A lesion and what was found out about it.
#[derive(Debug, Clone, Serialize)]
pub struct LesionResult {
    /// The lesion.
    #[serde(flatten)]
    pub lesion: Lesion,
    /// None where it was not classified,
    pub classification: Option<Classification>,
    /// and then why not.
    pub not_classified: Option<String>,
}

/// Every lesion of a patient, and the answer for the one that was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// The largest first.
    pub lesions: Vec<LesionResult>,
    /// What is too small to be one.
    pub specks: Specks,
    /// Which of them the patient's answer is; None when there is no such lesion.
    pub lesion: Option<usize>,
    /// Its answer; None when there is none,
    pub classification: Option<Classification>,
    /// and then why not.
    pub not_classified: Option<String>,
}

impl Findings {
    /// Writes what the networks saw, and where it was cropped, into `pictures` of the result folder, and notes the paths. The
    /// phases are those that were classified.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write_pictures(&mut self, phases: &[PhaseImage], folder: &Path) -> Result<()> {
        for found in &mut self.lesions {
            if let Some(classification) = &mut found.classification {
                pictures::of_lesion(classification, found.lesion.number, phases, folder)?;
            }
        }
        let asked = self.lesion.and_then(|number| self.lesions.iter().find(|l| l.lesion.number == number));
        self.classification = asked.and_then(|l| l.classification.clone());
        Ok(())
    }
}

/// Finds the lesions of a patient and classifies those that were chosen. What cannot be classified is a finding too: no tumour,
/// fewer than three phases, a lesion that was not found in some phase, a number that no lesion has.
///
/// # Errors
/// A phase twice; as [`lesions::find`] and [`Classifier::classify`]; three phases or more without a classifier.
pub fn findings(phases: &[PhaseImage], classifier: Option<&Classifier>, choice: LesionChoice) -> Result<Findings> {
    let mut lesions = Vec::new();
    let (found, specks) = lesions::find(phases)?;
    for lesion in found {
        let chosen = match choice {
            LesionChoice::Largest => lesion.number == 1,
            LesionChoice::All => true,
            LesionChoice::Number(number) => lesion.number == number,
        };
        let missing = lesion.missing();
        let reason = if phases.len() < LEAST_PHASES {
            Some(too_few(phases.len()))
        } else if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(Phase::to_string).collect();
            let plural = if names.len() == 1 { "phase" } else { "phases" };
            Some(format!("lesion {} was not found in the {} {plural}", lesion.number, names.join(", ")))
        } else if !chosen {
            Some("it was not asked for".into())
        } else {
            None
        };
        let classification = match (&reason, classifier) {
            (Some(_), _) => None,
            (None, Some(classifier)) => Some(classifier.classify(phases, &lesion)?),
            (None, None) => return Err(Error::Usage("expected a classification model, found none".into())),
        };
        lesions.push(LesionResult { lesion, classification, not_classified: reason });
    }
    let number = if let LesionChoice::Number(number) = choice { number } else { 1 };
    let asked = number.checked_sub(1).and_then(|i| lesions.get(i));
    let classification = asked.and_then(|l| l.classification.clone());
    let not_classified = match asked {
        Some(lesion) => lesion.not_classified.clone(),
        None if lesions.is_empty() => Some("no tumour was found in any phase: there is nothing to classify".into()),
        None => Some(format!("there is no lesion {number}: {} found", lesions.len())),
    };
    Ok(Findings { lesion: asked.map(|l| l.lesion.number), lesions, specks, classification, not_classified })
}
