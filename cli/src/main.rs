//! The `nephron` command.

use std::env;

fn main() -> std::process::ExitCode {
    // Mesa's device-selection layer connects to the Wayland display to order the adapters; without a display it prints
    // `error: XDG_RUNTIME_DIR is invalid` each time. This variable switches the layer off.
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { env::set_var("NODEVICE_SELECT", "1") };
    }
    nephron_cli::main()
}
