//! Options of `classify` and `diagnose`: which lesions are classified, and how the subtype is decided.

use crate::error::{Error, Result};
use nephron::error::Error as LibraryError;
use nephron::pipeline::classify::{Classifier, ensure_thresholds};
use nephron::pipeline::crop::Margin;
use nephron::pipeline::lesions::LesionChoice;

/// The options that both subcommands share.
#[derive(Debug, clap::Args)]
pub struct ClassifyArgs {
    /// Which tumours to classify: largest (of those in every phase), all, the number of one (1 is the largest), or together: all
    /// tumour voxels as one lesion (default: what the model was trained on, see config.json; largest where it does not say)
    #[arg(long, value_name = "largest|all|N|together", value_parser = parse::<LesionChoice>)]
    lesion: Option<LesionChoice>,
    /// Margin on each side of the tumour's rectangle, in voxels or in millimetres such as 5mm (default: the model's own)
    #[arg(long, value_parser = parse::<Margin>)]
    margin: Option<Margin>,
    /// Decide by the highest score among those above their class's threshold, else by the highest score; five numbers in class
    /// order: oncocytoma, AML, chRCC, pRCC, ccRCC (default: the model's own rule)
    #[arg(long, value_name = "T,T,T,T,T", value_delimiter = ',')]
    thresholds: Option<Vec<f64>>,
}

fn parse<T: std::str::FromStr<Err = LibraryError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: LibraryError| e.to_string())
}

impl ClassifyArgs {
    /// Checks the thresholds, before any file is read.
    ///
    /// # Errors
    /// [`Error::Usage`] for thresholds that are not one number from 0 to 1 for each class.
    pub(super) fn ensure_valid(&self) -> Result<()> {
        let checked = self.thresholds.as_deref().map_or(Ok(()), ensure_thresholds);
        checked.map_err(|e| Error::Usage(format!("--{e}")))
    }

    pub(super) fn lesion(&self) -> Option<LesionChoice> {
        self.lesion
    }

    /// The names of the options that were given.
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
