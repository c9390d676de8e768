//! Training of the networks: its data, its gradients and its loop.

mod data;
mod network;
mod patients;
mod resnet;
mod run;
