//! The stages of the kidney-cancer pipeline: segmentation ([`Segmenter`]), alignment of the phases ([`align`]), lesions
//! ([`lesions`]), classification ([`classify`]), and all of them with a report ([`diagnose`]).

pub mod align;
mod classifier_config;
pub mod classify;
pub mod crop;
pub mod demo;
pub mod diagnose;
mod ensemble;
mod export;
mod folder;
mod import;
pub mod labels;
pub mod lesion_results;
pub mod lesions;
mod model_card;
mod model_folder;
mod normalize;
mod postprocess;
mod preprocess;
mod previous_stage;
mod report;
mod resample_channel;
mod resample_labels;
mod resample_slabs;
mod result;
mod segment;
mod segmentation;
mod sliding_window;
mod strided_view;
mod study;
mod working_set;

pub use ensemble::Ensemble;
pub use import::import_nnunet;
pub use model_card::ModelCard;
pub use model_folder::ModelOptions;
pub use postprocess::{Postprocessing, PostprocessingFile};
pub use resample_channel::{resampled_size, separate_axis};
pub use result::program;
pub use segment::Segmenter;
pub use segmentation::{Measurement, Output, Precision, Scan, SegmentOptions, Segmentation, Stage, Timings};
pub use sliding_window::{Mirroring, gaussian, positions};
pub use study::{PhaseScan, Study};
pub use working_set::parse_bytes;
