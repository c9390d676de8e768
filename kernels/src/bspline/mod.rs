//! Cubic B-spline resizing.
