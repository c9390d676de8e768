//! `nephron segment`.

use super::Context;
use crate::error::Result;

/// Segment kidneys and tumours.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
