//! `lookoutd backup` and `lookoutd restore`: a data directory as one consistent copy, and back.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::ConfigArgs;
use super::output::{self, Output};
use crate::backup::{self, Manifest};
use crate::clock::Clock;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd backup /mnt/disk/lookoutd-monday
  lookoutd backup DIR --data-dir /var/lib/lookoutd

It works beside a running daemon or service, which goes on meanwhile. The configuration is not in it: it lies in /etc.
The key pair is: keep the directory as you keep the data directory.

Exit codes: 0 written and verified, 74 written, but something was damaged already and is named.")]
pub struct BackupArgs {
    /// A directory that is empty or absent, best on another disk
    directory: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd restore /mnt/disk/lookoutd-monday --data-dir /var/lib/lookoutd

Every file is compared with the backup's list before any has its place. Start lookoutd afterwards.

Exit codes: 0 all is back, 75 a daemon uses the data directory.")]
pub struct RestoreArgs {
    /// What lookoutd backup wrote
    directory: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Told<'a> {
    directory: String,
    at: String,
    files: usize,
    bytes: u64,
    objects: u64,
    damaged: &'a [String],
}

pub fn backup(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.config.load()?.config.data_dir();
    let manifest = backup::backup(&data_dir, &args.directory, Clock::system().now())?;
    tell(&args.output, &manifest, &args.directory, "backed up")
}

pub fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.config.load()?.config.data_dir();
    let manifest = backup::restore(&args.directory, &data_dir)?;
    tell(&args.output, &manifest, &data_dir, "restored")
}

fn tell(
    output: &Output,
    manifest: &Manifest,
    directory: &std::path::Path,
    done: &str,
) -> anyhow::Result<ExitCode> {
    let told = Told {
        directory: directory.display().to_string(),
        at: output::utc(manifest.at),
        files: manifest.files.len(),
        bytes: manifest.bytes(),
        objects: manifest.objects,
        damaged: &manifest.damaged,
    };
    match output {
        Output::Json => say!("{}", serde_json::to_string(&told)?),
        Output::Text => {
            say!(
                "{done}, verified: {} files, {}, {} objects in the store; {} as of {}",
                told.files,
                output::bytes(told.bytes),
                told.objects,
                told.directory,
                told.at
            );
            for damaged in &manifest.damaged {
                say!("DAMAGED   {damaged}");
            }
        }
    }
    Ok(if manifest.damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(74)
    })
}
