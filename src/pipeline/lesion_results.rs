//! A patient's lesions with their classifications.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::classify::{Classification, Classifier};
use super::lesions::{self, Lesion, LesionChoice, SmallComponents};
use super::report;
use super::{ModelCard, ScanSlice, Study};
use crate::error::Result;
use crate::phase::Phase;

/// A lesion and its classification.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LesionResult {
    /// The lesion.
    #[serde(flatten)]
    pub lesion: Lesion,
    /// The classification; None where the lesion was not classified.
    pub classification: Option<Classification>,
    /// The reason why the lesion was not classified; None where it was.
    pub not_classified: Option<String>,
}

/// Every lesion of a patient, and the classification of the one that was chosen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Findings {
    /// The lesions, the largest first.
    pub lesions: Vec<LesionResult>,
    /// The tumour components that are too small to be lesions.
    #[serde(rename = "specks")]
    pub small_components: SmallComponents,
    /// Whether all tumour voxels are taken as one lesion ([`LesionChoice::Together`]).
    pub together: bool,
    /// The number of the lesion whose classification is the patient's; None where there is no such lesion.
    pub lesion: Option<usize>,
    /// The classification of that lesion; None where there is none.
    pub classification: Option<Classification>,
    /// The reason why there is no classification; None where there is one.
    pub not_classified: Option<String>,
    /// Warnings for the reader: phases that show almost nothing of a lesion, and larger lesions that were not classified.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl Findings {
    /// The name of a lesion in reports.
    pub fn name(&self, number: usize) -> String {
        if self.together { "All tumour voxels together".into() } else { format!("Lesion {number}") }
    }

    /// Writes pictures of the networks' inputs and of the crops to `pictures` in the result folder, and stores their paths.
    /// `study` holds the scans that were classified.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write_pictures(&mut self, study: &Study, folder: &Path) -> Result<()> {
        for found in &mut self.lesions {
            if let Some(classification) = &mut found.classification {
                report::write_lesion_pictures(classification, found.lesion.number, study, folder)?;
            }
        }
        self.repeat_classification();
        Ok(())
    }

    /// Stores in which slice of its scan each crop lies. `slice` tells it for a phase and a point of the study's grids, in RAS+
    /// millimetres.
    ///
    /// # Errors
    /// Those of `slice`.
    pub fn locate(&mut self, study: &Study, slice: &dyn Fn(Phase, [f64; 3]) -> Result<ScanSlice>) -> Result<()> {
        for classification in self.lesions.iter_mut().filter_map(|found| found.classification.as_mut()) {
            for crop in &mut classification.crops {
                let Some(scan) = study.scan(crop.phase) else { continue };
                let middle = |[first, last]: [usize; 2]| (first + last) as f64 / 2.0;
                let at = [middle(crop.at.columns), middle(crop.at.rows), crop.at.slice as f64];
                crop.scan_slice = Some(slice(crop.phase, scan.image().affine().apply(at))?);
            }
        }
        self.repeat_classification();
        Ok(())
    }

    /// The patient's classification is that of the lesion that was asked for.
    fn repeat_classification(&mut self) {
        let asked = self.lesion.and_then(|number| self.lesions.iter().find(|l| l.lesion.number == number));
        self.classification = asked.and_then(|l| l.classification.clone());
    }
}

/// Why nothing is classified where there is no model for it.
const NO_CLASSIFIER: &str = "no classification model was loaded";

/// The lesions that are classified: those asked for, else what the classifier was trained on.
pub(super) fn lesion_choice(asked: Option<LesionChoice>, classifier: Option<&Classifier>) -> LesionChoice {
    asked.unwrap_or_else(|| classifier.map_or(LesionChoice::default(), |classifier| classifier.config().lesion))
}

/// Finds the lesions of a patient and classifies those that `choice` selects, or where it is None those that the classifier was trained
/// on ([`ClassifierConfig::lesion`](super::classify::ClassifierConfig::lesion)). A lesion that cannot be classified is a result and
/// not an error, with the reason: no tumour, fewer than three phases, no classifier, a lesion that is missing in a phase, a number that no lesion
/// has. [`LesionChoice::Largest`] is the largest of the lesions that are present in every phase, or the largest of all where there
/// is no such lesion.
///
/// # Errors
/// As [`lesions::find`] and [`Classifier::classify`].
pub fn findings(
    study: &Study,
    classifier: Option<&Classifier>,
    choice: impl Into<Option<LesionChoice>>,
) -> Result<Findings> {
    let choice = lesion_choice(choice.into(), classifier);
    let together = choice == LesionChoice::Together;
    let (found, small_components) = if together {
        (lesions::together(study)?.into_iter().collect(), SmallComponents::default())
    } else {
        lesions::find(study)?
    };
    let mut warnings = warnings(&found);
    let asked = match choice {
        LesionChoice::Number(number) => number,
        LesionChoice::Largest => found.iter().find(|l| l.missing().is_empty()).map_or(1, |l| l.number),
        LesionChoice::All | LesionChoice::Together => 1,
    };
    if choice == LesionChoice::Largest {
        for lesion in found.iter().filter(|l| l.number < asked) {
            let missing = not_found(lesion).unwrap_or_default();
            let volume = lesion.volume_ml;
            warnings
                .push(format!("{missing}: lesion {asked} is classified, though that one is larger ({volume:.1} ml)"));
        }
    }
    let no_model = || classifier.is_none().then(|| NO_CLASSIFIER.to_owned());
    let nothing = study.phases().ensure_classifiable().err().map(|e| e.to_string()).or_else(no_model);
    let mut lesions = Vec::new();
    for lesion in found {
        let chosen = choice == LesionChoice::All || lesion.number == asked;
        let reason = if nothing.is_some() {
            nothing.clone()
        } else if let Some(missing) = not_found(&lesion) {
            Some(missing)
        } else if !chosen {
            Some("it was not chosen".into())
        } else {
            None
        };
        let classification = match (&reason, classifier) {
            (None, Some(classifier)) => Some(classifier.classify(study, &lesion)?),
            (Some(_), _) | (None, None) => None,
        };
        lesions.push(LesionResult { lesion, classification, not_classified: reason });
    }
    if lesions.iter().any(|lesion| lesion.classification.is_some()) {
        let notes = classifier.and_then(Classifier::card).and_then(ModelCard::warning);
        warnings.extend(notes.map(|notes| format!("classification: {notes}")));
    }
    let answer = lesions.iter().find(|l| l.lesion.number == asked);
    let classification = answer.and_then(|l| l.classification.clone());
    let not_classified = match answer {
        Some(lesion) => lesion.not_classified.clone(),
        None if lesions.is_empty() => Some("no tumour was found in any phase: there is nothing to classify".into()),
        None => Some(format!("there is no lesion {asked}: {} found", lesions.len())),
    };
    let lesion = answer.map(|l| l.lesion.number);
    Ok(Findings { lesion, lesions, small_components, together, classification, not_classified, warnings })
}

/// A message that names the phases in which a lesion was not found; None where it was found in all.
fn not_found(lesion: &Lesion) -> Option<String> {
    let names: Vec<_> = lesion.missing().iter().map(Phase::to_string).collect();
    let plural = if names.len() == 1 { "phase" } else { "phases" };
    (!names.is_empty()).then(|| format!("lesion {} was not found in the {} {plural}", lesion.number, names.join(", ")))
}

fn warnings(found: &[Lesion]) -> Vec<String> {
    let mut warnings = Vec::new();
    for lesion in found {
        for (phase, ml) in lesion.faint() {
            let (number, mean) = (lesion.number, lesion.volume_ml);
            warnings.push(format!(
                "{phase} phase: lesion {number} has {ml:.2} ml there, less than a tenth of its mean of {mean:.2} ml: it may be missed"
            ));
        }
    }
    warnings
}
