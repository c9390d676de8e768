//! `nephron evaluate`: figures over a cohort from the results of single cases.

mod classification;
mod registration;

use super::Context;
use crate::error::Result;

/// What is evaluated.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// ROC and precision-recall curves, areas with intervals, confusion, and readers beside the model.
    Classification(classification::Args),
    /// Dice of aligned masks, beside the scans as they lie and their centres of mass on one another.
    Registration(registration::Args),
}

/// Runs the verb.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    match &args.what {
        What::Classification(args) => classification::run(args, context),
        What::Registration(args) => registration::run(args, context),
    }
}
