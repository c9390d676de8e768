//! Sampling at the points of a grid, and affine grids.
