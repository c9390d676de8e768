//! `nephron devices`: what is here, and why a backend is missing.

use super::Context;
use crate::device;
use crate::error::Result;

/// Runs the verb.
pub fn run(context: &Context) -> Result<()> {
    let report = device::report();
    if context.json {
        return context.print_json(&report);
    }
    for backend in &report {
        if let Some(reason) = &backend.missing {
            println!("{}: not available: {reason}", backend.backend);
        }
        for adapter in &backend.adapters {
            println!("{}: {} ({}, {})", adapter.device, adapter.name, adapter.kind, adapter.driver);
            for detail in &adapter.details {
                println!("    {detail}");
            }
        }
    }
    println!("auto chooses: {}", device::Device::auto().name());
    Ok(())
}
