//! `lookoutd windows`: the ledger, for people.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use super::ConfigArgs;
use super::output::{self, Output};
use crate::daemon::{archive, describe};
use crate::feed::disk::LocalDisk;
use crate::feed::{Entry, Ledger, Spool, State};
use crate::inference::{Archived, Index, hint};
use crate::signal::Window;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd windows list -n 20
  lookoutd windows show 2026-01-01T00:05:00Z
  lookoutd windows retry 2026-01-01T00:05:00Z          ship it again, or cut it again
  lookoutd windows skip 2026-01-01T00:05:00Z --reason 'sensor replaced'

They work beside a running daemon, which picks changes up within seconds.")]
pub struct WindowsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The newest windows first
    #[command(after_help = "\
Examples:
  lookoutd windows list -n 12
  lookoutd windows list --state quarantined --output json")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// How many
        #[arg(short = 'n', long, default_value_t = 50)]
        limit: usize,
        /// Only windows in this state
        #[arg(long, value_parser = state)]
        state: Option<State>,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// All that is recorded of one window
    #[command(after_help = "\
Examples:
  lookoutd windows show 2026-01-01T00:05:00Z")]
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Start of the window, UTC
        start: DateTime<Utc>,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Ships a window again that was set aside, or has it cut again
    #[command(after_help = "\
Examples:
  lookoutd windows retry 2026-01-01T00:05:00Z")]
    Retry {
        #[command(flatten)]
        config: ConfigArgs,
        /// Start of the window, UTC
        start: DateTime<Utc>,
    },
    /// Gives a window up; its files are set aside, not deleted
    #[command(after_help = "\
Examples:
  lookoutd windows skip 2026-01-01T00:05:00Z --reason 'sensor rack was being replaced'")]
    Skip {
        #[command(flatten)]
        config: ConfigArgs,
        /// Start of the window, UTC
        start: DateTime<Utc>,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
}

pub fn run(args: WindowsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List {
            config,
            limit,
            state,
            output,
        } => list(&config, limit, state, output),
        Command::Show {
            config,
            start,
            output,
        } => show(&config, start, output),
        Command::Retry { config, start } => retry(&config, start),
        Command::Skip {
            config,
            start,
            reason,
        } => skip(&config, start, &reason),
    }
}

fn list(
    config: &ConfigArgs,
    limit: usize,
    state: Option<State>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let ledger = open(config)?;
    let wanted = if state.is_some() {
        usize::MAX >> 1
    } else {
        limit
    };
    let mut entries = ledger.list(wanted)?;
    entries.retain(|entry| state.is_none_or(|state| entry.state == state));
    entries.truncate(limit);
    if output == Output::Json {
        output::json(&entries)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                output::utc(entry.start),
                output::utc(entry.end),
                entry.state.name().to_owned(),
                format!("{}/{}", entry.files, entry.components),
                entry.rows.to_string(),
                output::bytes(entry.bytes),
                entry.shipped_at.map_or_else(String::new, output::utc),
                entry
                    .reason
                    .clone()
                    .or_else(|| entry.last_error.clone())
                    .unwrap_or_default(),
            ]
        })
        .collect();
    output::table(
        &[
            "START", "END", "STATE", "FILES", "ROWS", "BYTES", "SHIPPED", "WHY",
        ],
        &rows,
    );
    Ok(ExitCode::SUCCESS)
}

fn show(config: &ConfigArgs, start: DateTime<Utc>, output: Output) -> anyhow::Result<ExitCode> {
    let (ledger, entry) = find(config, start)?;
    drop(ledger);
    let window = Window::new(entry.start, entry.cadence)?;
    let manifest = spool(config)?.manifest(&window).ok();
    let executions = executions(config, &window)?;
    if output == Output::Json {
        output::json(
            &serde_json::json!({ "window": entry, "spooled": manifest, "executions": executions }),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("window     {window}");
    say!(
        "state      {} ({})",
        entry.state.name(),
        describe(entry.state)
    );
    if let Some(reason) = &entry.reason {
        say!("why        {reason}");
    }
    say!(
        "files      {} of {} components, {}",
        entry.files,
        entry.components,
        output::bytes(entry.bytes)
    );
    say!("rows       {}", entry.rows);
    if let Some(cut_at) = entry.cut_at {
        say!("cut        {}", output::utc(cut_at));
    }
    if let Some(shipped_at) = entry.shipped_at {
        say!("shipped    {}", output::utc(shipped_at));
    }
    if entry.attempts > 0 {
        say!(
            "attempts   {} failed, last: {}",
            entry.attempts,
            entry.last_error.as_deref().unwrap_or("-")
        );
    }
    for row in &executions {
        let Archived {
            execution, summary, ..
        } = row;
        say!(
            "execution  {} {}: {} of {} rows anomalous",
            execution.scheduler,
            execution.status,
            summary.anomalous,
            summary.rows
        );
        for (sensor, share) in &summary.top {
            say!("           {sensor} {:.0} %", share * 100.0);
        }
        if let Some(reason) = &execution.failed_reason {
            say!("           {reason}");
            if let Some(hint) = hint(reason) {
                say!("           hint: {hint}");
            }
        }
    }
    for file in manifest.iter().flat_map(|manifest| &manifest.files) {
        say!(
            "spooled    {} ({} rows, sha256 {})",
            file.key,
            file.rows,
            &file.sha256[..12]
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What the archive knows of a window.
fn executions(config: &ConfigArgs, window: &Window) -> anyhow::Result<Vec<Archived>> {
    let data_dir = config.load()?.config.data_dir();
    match Index::open_existing(&archive(&data_dir))? {
        Some(index) => Ok(index.range("", Some(window.start()), Some(window.end()))?),
        None => Ok(Vec::new()),
    }
}

fn retry(config: &ConfigArgs, start: DateTime<Utc>) -> anyhow::Result<ExitCode> {
    let (ledger, entry) = find(config, start)?;
    let window = Window::new(entry.start, entry.cadence)?;
    match entry.state {
        State::Quarantined | State::Empty | State::Skipped => {}
        state => bail!(
            "window {window} is {}: {}; there is nothing to retry",
            state.name(),
            describe(state)
        ),
    }
    if spool(config)?.release(&window)? {
        ledger.set_state(&window, State::Spooled, None)?;
        say!("window {window} is back in the spool and will be shipped");
    } else {
        ledger.set_state(&window, State::Due, Some("retry asked for"))?;
        say!("window {window} will be cut again");
    }
    Ok(ExitCode::SUCCESS)
}

fn skip(config: &ConfigArgs, start: DateTime<Utc>, reason: &str) -> anyhow::Result<ExitCode> {
    let (ledger, entry) = find(config, start)?;
    let window = Window::new(entry.start, entry.cadence)?;
    match entry.state {
        State::Due | State::Quarantined => {}
        State::Spooled => {
            spool(config)?.quarantine(&window)?;
        }
        state => bail!(
            "window {window} is {}: {}; there is nothing to skip",
            state.name(),
            describe(state)
        ),
    }
    ledger.set_state(&window, State::Skipped, Some(reason))?;
    say!("window {window} is skipped");
    Ok(ExitCode::SUCCESS)
}

fn find(config: &ConfigArgs, start: DateTime<Utc>) -> anyhow::Result<(Ledger, Entry)> {
    let ledger = open(config)?;
    let entry = ledger.get(start)?.with_context(|| {
        format!(
            "no window is recorded that starts at {}: see lookoutd windows list",
            output::utc(start)
        )
    })?;
    Ok((ledger, entry))
}

fn open(config: &ConfigArgs) -> anyhow::Result<Ledger> {
    let data_dir = config.load()?.config.data_dir();
    Ledger::open_existing(&data_dir)?.with_context(|| {
        format!(
            "no ledger in {}: has the daemon run there? set --data-dir or --config",
            data_dir.display()
        )
    })
}

fn spool(config: &ConfigArgs) -> anyhow::Result<Spool> {
    let data_dir = config.load()?.config.data_dir();
    Ok(Spool::attach(Arc::new(LocalDisk), &data_dir))
}

fn state(text: &str) -> Result<State, String> {
    State::from_name(text).ok_or_else(|| {
        "use due, spooled, shipped, partial, empty, skipped or quarantined".to_owned()
    })
}
