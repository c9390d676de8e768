//! `nephron devices`: the backends and adapters of this machine, and why one is not available.

use super::Context;
use crate::error::Result;
use nephron::device;

/// Runs the verb.
pub fn run(context: &Context) -> Result<()> {
    let report = device::backends();
    if context.json {
        return context.print_json(&report);
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
