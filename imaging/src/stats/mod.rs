//! Statistics of a classifier over a cohort (curves, areas, confidence intervals, confusion matrices, permutation tests), and
//! surface distances of masks.
//!
//! All functions take plain slices. Random numbers come from ChaCha8 with a seed and one stream for each round, so that results do
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
