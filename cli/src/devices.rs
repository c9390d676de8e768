//! `nephron devices`: the backends and adapters of this machine, and why one is not available.

use crate::error::Result;
use crate::options::JsonArgs;
use nephron::device;

const EXAMPLES: &str = "\
Examples:
  nephron devices
  nephron devices --json";

/// List backends and adapters.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Runs the verb.
pub fn run(output: &JsonArgs) -> Result<()> {
    let report = device::backends();
    if output.json {
        return output.print_json(&report);
    }
    for backend in &report {
        if let Some(reason) = &backend.missing {
            say!("{}: not available: {reason}", backend.backend)?;
        }
        for adapter in &backend.adapters {
            say!("{}: {} ({}, {})", adapter.device, adapter.name, adapter.kind, adapter.driver)?;
            for detail in &adapter.details {
                say!("    {detail}")?;
            }
        }
    }
    say!("auto chooses: {}", device::Device::auto().name())?;
    Ok(())
}
