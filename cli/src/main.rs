//! The `nephron` command.

use std::env;

fn main() -> std::process::ExitCode {
    // To put the adapters into an order, Mesa's device-selection layer asks the Wayland display; without one it prints
    // `error: XDG_RUNTIME_DIR is invalid` each time. This is the layer's own switch.
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { env::set_var("NODEVICE_SELECT", "1") };
    }
    nephron_cli::main()
}
