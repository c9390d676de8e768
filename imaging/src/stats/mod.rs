//! Figures of a classifier over a cohort: curves, areas, intervals, confusion, tests; and of masks: surface distances.
//!
//! Everything takes plain slices. What is drawn at random is drawn by ChaCha8 from a seed and a stream a round, so results do
//! not depend on the number of threads.

mod bootstrap;
mod confusion;
mod curves;
mod permutation;
mod surface;

pub use bootstrap::{Interval, bootstrap, quantile};
pub use confusion::{Confusion, decide};
pub use curves::{Curve, RankedScores, auc, average_precision, optimal_threshold, precision_recall_curve, roc_curve};
pub use permutation::permutation_test;
pub use surface::{SurfaceDistances, surface_distances};
