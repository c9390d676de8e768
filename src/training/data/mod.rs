//! Data for training: a data set in nnU-Net's layout, its fingerprint, and the plan that nnU-Net derives from it.

mod dataset;
mod fingerprint;
mod plan_files;
mod planner;
mod split;
mod store;
mod topology;

pub use dataset::{Case, RawDataset, ReadCase};
pub use fingerprint::{Fingerprint, IntensityProperties};
pub use plan_files::PlanFiles;
pub use planner::{Configuration, Plan, PlannerOptions};
pub use split::{FOLDS, Split, read_split, split};
pub use store::{NO_LABEL, Sample, masked_channels, prepare_cases};
