//! Options of `classify` and `diagnose` that say what is classified and how it is decided.

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::pipeline::classify::{Classifier, check_thresholds};
use nephron::pipeline::crop::Margin;
use nephron::pipeline::lesions::LesionChoice;

/// Shared by both verbs.
#[derive(Debug, clap::Args)]
pub struct LesionArgs {
    /// Which tumours are classified: largest (of those in every phase, the default), all, the number of one (1 is the largest),
    /// or together: all tumour voxels as one, for models that were trained so
    #[arg(long, value_name = "largest|all|N|together", value_parser = parse::<LesionChoice>)]
    lesion: Option<LesionChoice>,
    /// What the tumour's rectangle grows by on each side: voxels, or millimetres such as 5mm (the model's own margin)
    #[arg(long, value_parser = parse::<Margin>)]
    margin: Option<Margin>,
    /// Decide by the highest score above its class's threshold, else the highest; five numbers in class order: oncocytoma,
    /// AML, chRCC, pRCC, ccRCC (the model's own rule)
    #[arg(long, value_name = "T,T,T,T,T", value_delimiter = ',')]
    thresholds: Option<Vec<f64>>,
}

fn parse<T: std::str::FromStr<Err = LibraryError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

impl LesionArgs {
    /// Refuses thresholds that are none, before anything is read.
    pub(super) fn check(&self) -> Result<()> {
        let checked = self.thresholds.as_deref().map_or(Ok(()), check_thresholds);
        checked.map_err(|e| Error::Usage(format!("--{e}")))
    }

    pub(super) fn lesion(&self) -> LesionChoice {
        self.lesion.unwrap_or_default()
    }

    /// The options that were given.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let options = [
            ("--lesion", self.lesion.is_some()),
            ("--margin", self.margin.is_some()),
            ("--thresholds", self.thresholds.is_some()),
        ];
        options.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    /// The classifier with these options in place of its configuration's.
    pub(super) fn apply(&self, classifier: Classifier) -> Result<Classifier> {
        Ok(classifier.adjusted(self.thresholds.clone(), self.margin)?)
    }
}
