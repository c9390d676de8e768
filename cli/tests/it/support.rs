//! Functions that the tests of all crates share, and calling the program.

use std::process::Command;

pub use nephron_testing::*;

/// A command for the program; NEPHRON_TEST_PROGRAM is its path where it was moved after the build.
pub fn nephron() -> Command {
    let built = || env!("CARGO_BIN_EXE_nephron").into();
    Command::new(std::env::var_os("NEPHRON_TEST_PROGRAM").unwrap_or_else(built))
}

/// The options with which a subcommand computes on the CPU, in one thread; none for one that computes nothing.
pub fn on_cpu(call: &[&str]) -> &'static [&'static str] {
    let computes = !["devices", "import", "completions", "man"].contains(&call[0]);
    if computes { &["--device", "cpu", "--threads", "1"] } else { &[] }
}

/// Runs the program on the CPU and returns its exit code, standard output and standard error.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let device = on_cpu(arguments).get(..2).unwrap_or_default();
    let output = nephron().args(arguments).args(device).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
