//! `nephron train`: trains models.

mod classification;
mod options;
mod segmentation;
mod subtypes;
mod told;

use std::path::Path;

use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  nephron train segmentation Dataset001_Kidney -o model --fold 0
  nephron train segmentation Dataset001_Kidney -o model --fold 0 --resume --time-limit 3h
  nephron train classification patients -o model --weights resnet101.pth";

/// The arguments of `train`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A U-Net by nnU-Net's recipe, from a data set in nnU-Net's layout or patients' folders to a model for `nephron segment`.
    Segmentation(Box<segmentation::Args>),
    /// The subtype classifier, from patients' folders to a model for `nephron diagnose`.
    Classification(Box<classification::Args>),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Segmentation(args) => args.device.run(|context| segmentation::run(args, context)),
        What::Classification(args) => args.device.run(|context| classification::run(args, context)),
    }
}

/// The last line of a training: its weights, or that it can be resumed.
fn say_end(weights: Option<&Path>, steps: u64) -> Result<()> {
    match weights {
        Some(weights) => say!("{}", weights.display()),
        None => say!("interrupted after {steps} steps: --resume goes on"),
    }
}
