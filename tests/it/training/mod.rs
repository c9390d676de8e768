//! Training of the segmentation network: its data, its gradients and its loop.

mod data;
mod network;
mod patients;
mod run;
