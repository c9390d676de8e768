//! `nephron resample`.

use super::Context;
use crate::error::Result;

/// Resample an image onto a new grid.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
