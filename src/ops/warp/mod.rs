//! Warping by a displacement field or an affine matrix.
