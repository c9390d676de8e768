//! Training of the segmentation network, by nnU-Net's recipe.
//!
//! [`data`] reads a data set in nnU-Net's layout, plans for it and prepares its cases; [`augment`] draws patches of them.

pub mod augment;
pub mod data;
