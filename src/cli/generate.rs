//! `lookoutd completions` and `lookoutd man`: what packages install beside the binary, made from the command line itself.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd completions bash > /etc/bash_completion.d/lookoutd
  lookoutd completions zsh > ~/.zfunc/_lookoutd
  lookoutd completions fish > ~/.config/fish/completions/lookoutd.fish

The Debian package has them installed already.")]
pub struct CompletionsArgs {
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd man target/man && man target/man/lookoutd-run.1")]
pub struct ManArgs {
    /// Directory for one page a command; created if need be
    directory: PathBuf,
}

pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lookoutd", &mut script);
    say_part!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}

pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.directory))
        .with_context(|| format!("{}: cannot be written", args.directory.display()))?;
    Ok(ExitCode::SUCCESS)
}
