//! `lookoutd source`: looks at what the inputs of a configuration bring, beside a daemon or without one.

mod browse;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd source test --config lookoutd.toml                  every tag for 30 s: value, age, quality, how often
  lookoutd source browse --url mqtt://127.0.0.1:1883 > tags.csv    what there is, as a tag list to edit

Both look through a session of their own: what is queued for the daemon stays queued.")]
pub struct SourceArgs {
    #[command(subcommand)]
    command: SourceCommand,
}

#[derive(Debug, Subcommand)]
enum SourceCommand {
    /// Every tag live: value, age, quality, samples a minute, and what never came
    Test(test::TestArgs),
    /// What a source has, as a tag list to edit
    Browse(browse::BrowseArgs),
}

pub fn run(args: SourceArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        SourceCommand::Test(args) => test::run(args),
        SourceCommand::Browse(args) => browse::run(args),
    }
}
