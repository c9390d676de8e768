//! The command as a user calls it.

#[path = "../../../imaging/tests/it/kidneys.rs"]
mod kidneys;
mod support;
#[path = "../../../tests/it/tiny_models.rs"]
mod tiny_models;

mod bad_input;
mod bench;
mod cli;
mod cohort;
mod diagnose;
mod diagnose_folder;
mod diagnose_models;
mod evaluate;
mod golden;
mod images;
mod inputs;
mod model_card;
mod models;
mod mutated_files;
mod outputs;
mod phantom;
mod pictures;
mod profiling;
mod register;
mod segment;
mod segment_folder;
mod segment_overlapped;
mod several_models;
mod train;
mod train_classification;
