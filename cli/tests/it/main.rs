//! The command as a user calls it.

#[path = "../../../imaging/tests/it/kidneys.rs"]
mod kidneys;
mod support;

mod bad_input;
mod bench;
mod cli;
mod cohort;
mod diagnose;
mod diagnose_folder;
mod evaluate;
mod golden;
mod images;
mod models;
mod phantom;
mod profiling;
mod register;
mod segment;
