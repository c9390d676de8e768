//! `nephron classify`.

use super::Context;
use crate::error::Result;

/// Subtype probabilities from aligned phases and masks.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
