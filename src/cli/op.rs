//! `nephron op`.

use super::Context;
use crate::error::Result;

/// Run one operation on .npy arrays.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
