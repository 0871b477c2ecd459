//! `lookoutd store`: the embedded store from outside.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use super::ConfigArgs;
use super::output::Output;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::retention;
use crate::ops::lock;
use crate::store::export::{Contents, Report};
use crate::store::retention::Prefix;
use crate::store::{Options, Store};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd store verify                        reads every object and compares its checksums
  lookoutd store export /mnt/disk/objects      every object as a file BUCKET/KEY
  lookoutd store retention --dry-run           what is kept for how long, and what would go now")]
pub struct StoreArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads every object and compares its checksums; changes nothing
    #[command(after_help = "\
Examples:
  lookoutd store verify --data-dir /var/lib/lookoutd

It works beside a running daemon. Exit code 74 when something is damaged.")]
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Writes every object as a file below a directory, named BUCKET/KEY
    #[command(after_help = "\
Examples:
  lookoutd store export /mnt/disk/objects

It works beside a running daemon, and saves what can be read of a damaged store. A key that is no path, such as one with
\"..\" in it, or that is also the directory of others, gets a name below _other-names, which is told.")]
    Export {
        /// A directory that is empty or absent
        directory: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Takes a database as it is that was copied without its log: what was written last is missing
    #[command(after_help = "\
Examples:
  lookoutd store accept --data-dir /mnt/copy

Without it such a copy is refused, since nobody would notice what is missing.")]
    Accept {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// What is kept for how long, and what would be deleted now; --apply deletes it, also where a pass was held
    #[command(after_help = "\
Examples:
  lookoutd store retention --dry-run
  lookoutd store retention --apply

Beside a running daemon it is the daemon that deletes, within a minute.")]
    Retention {
        #[command(flatten)]
        config: ConfigArgs,
        /// Only tells; this is what happens without --apply too
        #[arg(long, conflicts_with = "apply")]
        dry_run: bool,
        /// Deletes what is due, also more than half of a prefix
        #[arg(long)]
        apply: bool,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

pub fn run(args: StoreArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Verify { config, output } => {
            let report = open(&config.load()?.config)?.verify()?;
            tell(*output, &report, "verified")
        }
        Command::Export {
            directory,
            config,
            output,
        } => {
            let empty =
                std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
            if !empty {
                bail!(
                    "{} is not empty: name a directory that is empty or absent",
                    directory.display()
                );
            }
            std::fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
            let report = open(&config.load()?.config)?.export(directory)?;
            tell(*output, &report, "exported")
        }
        Command::Accept { config } => {
            let data_dir = config.load()?.config.data_dir();
            let _lock = lock::lock(&data_dir)?;
            if crate::store::opening::accept(&data_dir.join("s3"))? {
                say!("accepted: what was in the log is not in the store");
            } else {
                say!("nothing to accept: no log is missing");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Retention {
            config,
            apply,
            output,
            ..
        } => {
            let config = config.load()?.config;
            let data_dir = config.data_dir();
            let now = Clock::system().now();
            let root = data_dir.join("s3");
            let prefixes = if *apply {
                if lock::holder(&data_dir).is_some() {
                    crate::store::retention::ask(&root)?;
                    say!("the running daemon deletes what is due within a minute");
                    return Ok(ExitCode::SUCCESS);
                }
                let _lock = lock::lock(&data_dir)?;
                let terms = retention::terms(&config, &data_dir)?;
                let store = Store::open(&root, &options(&config))?;
                let retention = crate::store::retention::Retention::new(store, terms.rules.clone());
                retention.pass(now.timestamp_millis(), terms.horizon, true)?
            } else {
                let terms = retention::terms(&config, &data_dir)?;
                open(&config)?.due(&terms.rules, now, terms.horizon)?
            };
            tell_prefixes(*output, &prefixes, *apply)
        }
    }
}

fn options(config: &Config) -> Options {
    Options {
        shared_disk: config.store.shared_disk,
        ..Options::default()
    }
}

fn open(config: &Config) -> anyhow::Result<Contents> {
    let root = config.data_dir().join("s3");
    Contents::open_with(&root, &options(config))
        .with_context(|| format!("looking at the store in {}", root.display()))
}

fn tell(output: Output, report: &Report, done: &str) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => say!("{}", serde_json::to_string(report)?),
        Output::Text => {
            say!("{done} {} objects, {} bytes", report.objects, report.bytes);
            for (key, name) in &report.renamed {
                say!("renamed   {key} is {name}");
            }
            for damaged in &report.damaged {
                say!("DAMAGED   {damaged}");
            }
        }
    }
    Ok(if report.damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(74)
    })
}

fn tell_prefixes(output: Output, prefixes: &[Prefix], applied: bool) -> anyhow::Result<ExitCode> {
    if output == Output::Json {
        say!("{}", serde_json::to_string(prefixes)?);
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if applied { "deleted" } else { "would go" };
    for one in prefixes {
        say!(
            "{}/{}   kept {}   {} objects, {} bytes   {verb} {}, {} bytes   {} wait{}",
            one.bucket,
            one.prefix,
            one.keep,
            one.objects,
            one.bytes,
            one.due,
            one.due_bytes,
            one.waiting,
            if one.held { "   HELD" } else { "" }
        );
    }
    Ok(ExitCode::SUCCESS)
}
