//! Training of the subtype classifier: from patients' folders to a model that [`Classifier::read`](crate::pipeline::classify::Classifier::read)
//! reads.
//!
//! Source of the recipe: Uhm et al., npj Precision Oncology 5:54 (2021). [`PatientFiles`] are aligned and cropped by the pipeline's own
//! code, once; [`ImageSource`] makes augmented batches of the crops, each a function of the seed and its number alone; and
//! [`ClassifierTraining`] is the loop, which can be interrupted and resumed bit for bit.

mod augment;
mod batch;
mod kept_crops;
mod model;
mod options;
mod patients;
mod record;
mod run;
mod split;
mod validate;

pub use augment::augment;
pub use batch::{ImageBatch, ImageSource};
pub use options::ClassifierOptions;
pub use patients::{Patient, PatientFiles, Preparation, ScanFiles};
pub use record::{ClassifierEpoch, Validation};
pub use run::{ClassifierOutcome, ClassifierProgress, ClassifierStage, ClassifierTraining};
pub use split::stratified_split;
