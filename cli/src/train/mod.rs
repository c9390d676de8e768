//! `nephron train`: trains models.

mod options;
mod segmentation;
mod told;

use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  nephron train segmentation Dataset001_Kidney -o model --fold 0
  nephron train segmentation Dataset001_Kidney -o model --fold 0 --resume --time-limit 3h";

/// The arguments of `train`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A U-Net by nnU-Net's recipe, from a data set in nnU-Net's layout to a model for `nephron segment`.
    Segmentation(Box<segmentation::Args>),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Segmentation(args) => args.device.run(|context| segmentation::run(args, context)),
    }
}
