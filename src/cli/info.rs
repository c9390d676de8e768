//! `nephron info`.

use super::Context;
use crate::error::Result;

/// Shape, spacing, orientation, dtype and geometry source of an image.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
