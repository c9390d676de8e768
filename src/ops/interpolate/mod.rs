//! Resizing on the voxel grid.
