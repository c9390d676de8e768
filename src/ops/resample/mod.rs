//! Resampling between two grids of different spacing.
