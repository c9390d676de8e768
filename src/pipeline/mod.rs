//! The stages of the kidney-cancer pipeline.

pub mod align;
pub mod classify;
pub mod crop;
pub mod demo;
pub mod diagnose;
mod export;
pub mod labels;
mod pictures;
mod preprocess;
mod segment;
mod sliding_window;
mod view;

pub use preprocess::{resampled_size, separate_axis};
pub use segment::{Output, Precision, SegmentOptions, Segmentation, Segmenter, Stage, Timings, parse_bytes};
pub use sliding_window::{Mirroring, gaussian, positions};
