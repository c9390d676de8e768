//! `nephron diagnose`.

use super::Context;
use crate::error::Result;

/// The whole pipeline: scans in, masks, aligned phases and probabilities out.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
