//! What the tests of every crate share, and the program itself.

use std::process::Command;

pub use nephron_testing::*;

/// The program, to be called; NEPHRON_TEST_PROGRAM where it is not where it was built.
pub fn nephron() -> Command {
    let built = || env!("CARGO_BIN_EXE_nephron").into();
    Command::new(std::env::var_os("NEPHRON_TEST_PROGRAM").unwrap_or_else(built))
}

/// The program on the CPU: its exit code, standard output and standard error.
pub fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = nephron().args(arguments).args(["--device", "cpu"]).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
