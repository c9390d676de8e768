//! `nephron register`.

use super::Context;
use crate::error::Result;

/// Align a moving mask, and images with it, to a fixed mask.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
