//! Transposed 3D convolution.
