//! `lookoutd run`: the daemon.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, runtime};
use crate::daemon::{self, Ended};
use crate::ops::{log, signals};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd run                                   embedded: sample plant, S3 on loopback
  lookoutd run --config /etc/lookoutd/lookoutd.toml
  lookoutd run --once --config lookoutd.toml     cuts and ships what is due now, then ends

SIGTERM and SIGINT stop it within 2 s and lose nothing; SIGHUP reads the configuration again.")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Cuts what is due now, waits until the store has it, and ends; 75 if the store is not reached in two minutes
    #[arg(long)]
    once: bool,
}

pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    log::start(&loaded.config.log).map_err(anyhow::Error::msg)?;
    let requests = signals::listen()?;
    let runtime = runtime()?;
    let ended = runtime.block_on(daemon::run(&|| args.config.load(), requests, args.once));
    // What is sealed is durable, so a blocking read that is still under way need not hold the process up.
    runtime.shutdown_timeout(Duration::from_millis(300));
    Ok(match ended? {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Waiting => ExitCode::from(75),
        Ended::Failed => ExitCode::FAILURE,
    })
}
