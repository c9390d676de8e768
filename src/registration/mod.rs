//! Affine registration driven by masks.
