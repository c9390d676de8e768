//! The `nephron` command.

fn main() -> std::process::ExitCode {
    nephron::cli::main()
}
