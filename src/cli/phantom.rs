//! `nephron phantom`.

use super::Context;
use crate::error::Result;

/// Make a synthetic multi-phase patient with ground truth.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
