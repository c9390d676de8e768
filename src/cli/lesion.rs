//! Options of `classify` and `diagnose` that say what is classified and how it is decided.

use crate::error::{Error, Result};
use crate::phase::Subtype;
use crate::pipeline::classify::Classifier;
use crate::pipeline::crop::Margin;
use crate::pipeline::lesions::LesionChoice;

/// Shared by both verbs.
#[derive(Debug, clap::Args)]
pub struct LesionArgs {
    /// Which tumours are classified: largest, all, or the number of one (1 is the largest)
    #[arg(long, default_value = "largest", value_name = "largest|all|N", value_parser = parse::<LesionChoice>)]
    pub(super) lesion: LesionChoice,
    /// What the tumour's rectangle grows by on each side: voxels, or millimetres such as 5mm (the model's own margin)
    #[arg(long, value_parser = parse::<Margin>)]
    margin: Option<Margin>,
    /// Decide by the highest score above its class's threshold, else the highest; five numbers in class order: oncocytoma,
    /// AML, chRCC, pRCC, ccRCC (the model's own rule)
    #[arg(long, value_name = "T,T,T,T,T", value_delimiter = ',')]
    thresholds: Option<Vec<f64>>,
}

fn parse<T: std::str::FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: Error| e.to_string())
}

impl LesionArgs {
    /// Refuses thresholds that are none, before anything is read.
    pub(super) fn check(&self) -> Result<()> {
        let Some(thresholds) = &self.thresholds else { return Ok(()) };
        let classes = Subtype::ALL.len();
        if thresholds.len() != classes || !thresholds.iter().all(|t| (0.0..=1.0).contains(t)) {
            let found = thresholds.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
            return Err(Error::Usage(format!("--thresholds: expected {classes} numbers from 0 to 1, found {found}")));
        }
        Ok(())
    }

    /// The classifier with these options in place of its configuration's.
    pub(super) fn apply(&self, classifier: Classifier) -> Result<Classifier> {
        classifier.adjusted(self.thresholds.clone(), self.margin)
    }
}
