//! `nephron completions` and `nephron man`: what shells and `man` need, made from the definition of the command line.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::{Error, Result};
use crate::verbs::Cli;
use nephron::io::{try_folder, write_atomic};

const EXAMPLES: &str = "\
Examples:
  nephron completions bash > nephron.bash
  nephron completions zsh > _nephron";

/// Print the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs `completions`.
pub fn run(args: &Args) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "nephron", &mut text);
    std::io::Write::write_all(&mut std::io::stdout().lock(), &text).map_err(Error::Output)
}

const MAN_EXAMPLES: &str = "\
Examples:
  nephron man -o man1";

/// Write the manual pages.
#[derive(Debug, clap::Args)]
#[command(after_help = MAN_EXAMPLES)]
pub struct ManArgs {
    /// Folder for nephron.1, nephron-segment.1 and so on; made if missing
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// Runs `man`.
pub fn man(args: &ManArgs) -> Result<()> {
    try_folder(&args.output)?;
    let mut root = Cli::command();
    root.build();
    let mut written = Ok(());
    let mut left = vec![(root, String::from("nephron"))];
    while let Some((command, name)) = left.pop() {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            left.push((verb.clone(), format!("{name}-{}", verb.get_name())));
        }
        let page = args.output.join(format!("{name}.1"));
        let man = clap_mangen::Man::new(command.name(name));
        write_atomic(&page, |file| man.render(file))?;
        // A closed standard output does not end the run: the other pages are still written.
        written = written.and_then(|()| say!("{}", page.display()));
    }
    written
}
