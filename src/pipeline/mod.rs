//! The stages of the kidney-cancer pipeline: segmentation ([`Segmenter`]), alignment of the phases ([`align`]), lesions
//! ([`lesions`]), classification ([`classify`]), and all of them with a report ([`diagnose`]).

pub mod align;
mod classifier_config;
pub mod classify;
pub mod crop;
pub mod demo;
pub mod diagnose;
mod export;
mod folder;
pub mod labels;
pub mod lesion_results;
pub mod lesions;
mod preprocess;
mod report;
mod result;
mod segment;
mod sliding_window;
mod strided_view;
mod study;

pub use preprocess::{resampled_size, separate_axis};
pub use segment::{Output, Precision, SegmentOptions, Segmentation, Segmenter, Stage, Timings, parse_bytes};
pub use sliding_window::{Mirroring, gaussian, positions};
pub use study::{PhaseScan, Study};
