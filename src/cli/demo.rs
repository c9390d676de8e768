//! `nephron demo`.

use super::Context;
use crate::error::Result;

/// Run the whole pipeline on a synthetic patient.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
pub fn run(_args: &Args, _context: &Context) -> Result<()> {
    Ok(())
}
