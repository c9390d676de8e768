//! Data for training: a data set, its fingerprint, and the plan that nnU-Net derives from it.

mod dataset;
mod fingerprint;
mod patients;
mod plan_files;
mod planner;
mod prepared;
mod sample;
mod split;
mod store;
mod topology;

pub use dataset::{Case, RawDataset, ReadCase};
pub use fingerprint::{Fingerprint, IntensityProperties};
pub use plan_files::PlanFiles;
pub use planner::{Configuration, Plan, PlannerOptions};
pub use sample::{NO_LABEL, Sample, Window};
pub use split::{FOLDS, Split, read_split, split, split_patients};
pub(in crate::training) use store::hash_text;
pub use store::{Preparation, masked_channels};
