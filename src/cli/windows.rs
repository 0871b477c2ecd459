//! `lookoutd windows`: the ledger, for people.

use std::collections::HashSet;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};

use super::ConfigArgs;
use super::asset::AssetArgs;
use super::output::{self, Output};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{Lookout, archive, describe};
use crate::executions::{LOOKED_BACK, Place};
use crate::feed::disk::LocalDisk;
use crate::feed::{Entry, Ledger, Spool, State};
use crate::inference::{Archived, Delivery, Index, Wanted, advice};
use crate::ops::ask::{Question, ask};
use crate::ops::site;
use crate::signal::{Asset, Window, timestamp};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd windows list -n 20
  lookoutd windows show 2026-01-01T00:05:00Z
  lookoutd windows retry 2026-01-01T00:05:00Z          ship it again, or cut it again
  lookoutd windows retry --from 2026-01-01T06:00:00Z --to 2026-01-01T09:00:00Z --state skipped
                                                       cut what was skipped in a downtime after all
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
  lookoutd windows list --unscored
  lookoutd windows list --state set-aside --output json")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        asset: AssetArgs,
        /// How many
        #[arg(short = 'n', long, default_value_t = 50)]
        limit: usize,
        /// Only windows in this state
        #[arg(long, value_parser = state)]
        state: Option<State>,
        /// Only windows that were delivered and that no execution ever looked at, of the newest 500
        #[arg(long)]
        unscored: bool,
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
        #[command(flatten)]
        asset: AssetArgs,
        /// Start of the window, UTC
        #[arg(value_parser = timestamp::instant)]
        start: DateTime<Utc>,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Ships windows again that were set aside, or has them cut again
    #[command(after_help = "\
Examples:
  lookoutd windows retry 2026-01-01T00:05:00Z
  lookoutd windows retry --from 2026-01-01T06:00:00Z --to 2026-01-01T09:00:00Z
  lookoutd windows retry --state set-aside

Windows that are set aside, empty or skipped can be retried, those of a downtime among them.")]
    Retry {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        asset: AssetArgs,
        #[command(flatten)]
        which: Which,
    },
    /// Gives windows up; their files are set aside, not deleted
    #[command(after_help = "\
Examples:
  lookoutd windows skip 2026-01-01T00:05:00Z --reason 'sensor rack was being replaced'
  lookoutd windows skip --state due --to 2026-01-01T06:00:00Z --reason 'not wanted any more'

Windows that are due, in the spool or set aside can be given up.")]
    Skip {
        #[command(flatten)]
        config: ConfigArgs,
        #[command(flatten)]
        asset: AssetArgs,
        #[command(flatten)]
        which: Which,
        /// Why, for the record
        #[arg(long)]
        reason: String,
    },
}

/// Which windows a command is about: one, or those of a range, of a state, or both.
#[derive(Debug, Args)]
struct Which {
    /// Start of the window, UTC
    #[arg(required_unless_present_any = ["from", "to", "state"], conflicts_with_all = ["from", "to", "state"], value_parser = timestamp::instant)]
    start: Option<DateTime<Utc>>,
    /// Windows that start at this time or later, UTC
    #[arg(long, value_parser = timestamp::instant)]
    from: Option<DateTime<Utc>>,
    /// Windows that start before this time, UTC
    #[arg(long, value_parser = timestamp::instant)]
    to: Option<DateTime<Utc>>,
    /// Only windows in this state
    #[arg(long, value_parser = state)]
    state: Option<State>,
}

/// Windows that one command changes at most: a year of five minutes.
const MOST: i64 = 105_408;

pub fn run(args: WindowsArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List {
            config,
            asset,
            limit,
            state,
            unscored,
            output,
        } => list(
            &Desk::open(&config, &asset)?,
            limit,
            state,
            unscored,
            output,
        ),
        Command::Show {
            config,
            asset,
            start,
            output,
        } => show(&Desk::open(&config, &asset)?, start, output),
        Command::Retry {
            config,
            asset,
            which,
        } => retry(&Desk::open(&config, &asset)?, &which),
        Command::Skip {
            config,
            asset,
            which,
            reason,
        } => skip(&Desk::open(&config, &asset)?, &which, &reason),
    }
}

/// Ledger and spool of one asset.
struct Desk {
    asset: Asset,
    /// Its configuration.
    config: Config,
    ledger: Ledger,
    spool: Spool,
}

impl Desk {
    fn open(config: &ConfigArgs, asset: &AssetArgs) -> anyhow::Result<Self> {
        let loaded = config.load()?;
        let data_dir = loaded.config.data_dir();
        let ledger = Ledger::open_existing(&data_dir)?.with_context(|| {
            format!(
                "no ledger in {}: has the daemon run there? set --data-dir or --config",
                data_dir.display()
            )
        })?;
        let one = asset.recorded(&loaded, &ledger)?;
        let spool = Spool::attach(Arc::new(LocalDisk), &data_dir);
        Ok(Self {
            ledger: ledger.of(one.asset.name()),
            spool: spool.of(one.asset.name()),
            asset: one.asset,
            config: one.config,
        })
    }
}

fn list(
    desk: &Desk,
    limit: usize,
    state: Option<State>,
    unscored_only: bool,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let ledger = &desk.ledger;
    let unscored = never_scored(desk)?;
    let mut entries = match unscored_only {
        true => ledger
            .page(None, None, LOOKED_BACK)?
            .into_iter()
            .filter(|entry| unscored.contains(&entry.start))
            .filter(|entry| state.is_none_or(|state| entry.state == state))
            .collect(),
        false => match state {
            Some(State::Skipped) => {
                let mut all = ledger.page(state, None, limit)?;
                all.extend(ledger.skips(None, limit)?);
                all.sort_by_key(|entry| std::cmp::Reverse(entry.start));
                all
            }
            Some(_) => ledger.page(state, None, limit)?,
            None => ledger.list(limit)?,
        },
    };
    entries.truncate(limit);
    if output == Output::Json {
        let marked: anyhow::Result<Vec<_>> = entries
            .iter()
            .map(|entry| marked(entry, unscored.contains(&entry.start)))
            .collect();
        output::json(&marked?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                output::utc(entry.start),
                output::utc(entry.end),
                entry.state.word().to_owned(),
                format!("{}/{}", entry.files, entry.components),
                entry.rows.to_string(),
                output::bytes(entry.bytes),
                entry.shipped_at.map_or_else(String::new, output::utc),
                entry
                    .reason
                    .clone()
                    .or_else(|| entry.last_error.clone())
                    .or_else(|| {
                        let never = unscored.contains(&entry.start);
                        never.then(|| "delivered, never scored".to_owned())
                    })
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

/// A window as JSON, with whether it was delivered and never scored.
fn marked(entry: &Entry, unscored: bool) -> anyhow::Result<serde_json::Value> {
    let mut value = serde_json::to_value(entry)?;
    if let Some(members) = value.as_object_mut() {
        members.insert("unscored".into(), unscored.into());
    }
    Ok(value)
}

/// Starts of the newest delivered windows that no execution of the scheduler looked at: as the daemon knows, or from the disk
/// where none runs.
fn never_scored(desk: &Desk) -> anyhow::Result<HashSet<DateTime<Utc>>> {
    let (config, data_dir) = (&desk.config, desk.config.data_dir());
    if let Ok(told) = ask(&data_dir, Question::Unscored) {
        let mut of = told.unscored.into_iter();
        let own = of.find(|(asset, _)| asset == desk.asset.name());
        return Ok(own
            .map(|(_, starts)| starts)
            .into_iter()
            .flatten()
            .collect());
    }
    let inference = &config.inference;
    let service = data_dir.join("service/state.db");
    let place = match service.exists() {
        true => Place::service(service),
        false => Lookout::archived(config, &data_dir),
    };
    let name = (!inference.scheduler.is_empty()).then_some(inference.scheduler.as_str());
    let unknown = name.is_none() && (desk.asset.is_named() || !config.is_embedded());
    let (false, false, Some(state)) = (inference.wanted == Wanted::Stopped, unknown, place.open())
    else {
        return Ok(HashSet::new());
    };
    let delay = TimeDelta::minutes(i64::from(inference.delay_offset_minutes));
    let allowed = config.feed.cadence.duration() * 2 + delay + TimeDelta::minutes(2);
    let now = Clock::system().now();
    let found = site::never_scored(&state, &desk.ledger, name, now, allowed);
    Ok(found.map_err(anyhow::Error::msg)?.into_iter().collect())
}

fn show(desk: &Desk, start: DateTime<Utc>, output: Output) -> anyhow::Result<ExitCode> {
    let entry = find(&desk.ledger, start)?;
    let window = Window::new(start, entry.cadence)?;
    let manifest = desk.spool.manifest(&window).ok();
    let executions = executions(desk, &window)?;
    let unscored = executions.is_empty() && never_scored(desk)?.contains(&start);
    let late = desk.ledger.late(start)?;
    if output == Output::Json {
        let late: serde_json::Map<_, _> = late
            .into_iter()
            .map(|(component, samples)| (component, samples.into()))
            .collect();
        let entry = marked(&entry, unscored)?;
        output::json(&serde_json::json!({
            "window": entry, "late": late, "spooled": manifest, "executions": executions
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if desk.asset.is_named() {
        say!("asset      {}", desk.asset);
    }
    say!("window     {window}");
    say!(
        "state      {} ({})",
        entry.state.word(),
        describe(entry.state)
    );
    if let Some(reason) = &entry.reason {
        say!("why        {reason}");
    }
    if (entry.start, entry.end) != (window.start(), window.end()) {
        say!(
            "range      skipped from {} to {}; `lookoutd windows retry {}` has it cut after all",
            output::utc(entry.start),
            output::utc(entry.end),
            output::utc(start)
        );
    }
    for component in &entry.blank {
        say!("missing    {component} has no values in it");
    }
    say!(
        "files      {} of {} components, {}",
        entry.files,
        entry.components,
        output::bytes(entry.bytes)
    );
    say!("rows       {}", entry.rows);
    if entry.doubled > 0 {
        say!(
            "doubled    {} rows had the time of a later one and were dropped",
            entry.doubled
        );
    }
    if entry.infinite > 0 {
        say!(
            "infinite   {} values are written as missing",
            entry.infinite
        );
    }
    for (component, samples) in late {
        say!("late       {samples} samples of {component} came after it was cut");
    }
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
    if unscored {
        say!("scored     never: it was delivered, and no execution looked at it");
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
            let delivery = Delivery {
                said: entry.told(),
                shipped_at: entry.shipped_at,
            };
            let failed = execution.failed();
            if let Some(hint) = failed.and_then(|failed| advice(&failed, Some(&delivery))) {
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
fn executions(desk: &Desk, window: &Window) -> anyhow::Result<Vec<Archived>> {
    // Without names whatever scheduler there is, or was, is the asset's.
    let scheduler = match desk.asset.is_named() {
        true => desk.config.inference.scheduler.as_str(),
        false => "",
    };
    if desk.asset.is_named() && scheduler.is_empty() {
        return Ok(Vec::new());
    }
    match Index::open_existing(&archive(&desk.config.data_dir()))? {
        Some(index) => Ok(index.range(scheduler, Some(window.start()), Some(window.end()))?),
        None => Ok(Vec::new()),
    }
}

fn retry(desk: &Desk, which: &Which) -> anyhow::Result<ExitCode> {
    let retried = |state| matches!(state, State::Quarantined | State::Empty | State::Skipped);
    let (ledger, spool) = (&desk.ledger, &desk.spool);
    let (mut cut, mut back) = (0, 0);
    for entry in which.entries(ledger, retried, "retry")? {
        let window = Window::new(
            Window::containing(entry.start, entry.cadence).start(),
            entry.cadence,
        )?;
        if (entry.start, entry.end) != (window.start(), window.end())
            || ledger.get(entry.start)?.is_none()
        {
            let (from, to) = which.range(&entry);
            cut += ledger.reopen(from, to, "retry asked for")?;
        } else if spool.release(&window)? {
            // Where it is in another state by now, its own mover finds it in the spool.
            back += u64::from(ledger.transition(&window, entry.state, State::Spooled, None)?);
        } else {
            let why = Some("retry asked for");
            cut += u64::from(ledger.transition(&window, entry.state, State::Due, why)?);
        }
    }
    match which.start {
        Some(start) if back > 0 => say!(
            "window {} is back in the spool and will be shipped",
            output::utc(start)
        ),
        Some(start) if cut > 0 => say!("window {} will be cut again", output::utc(start)),
        Some(start) => bail!(
            "window {} has just changed its state: look again",
            output::utc(start)
        ),
        None => say!(
            "{cut} windows will be cut again, {back} are back in the spool and will be shipped"
        ),
    }
    Ok(ExitCode::SUCCESS)
}

fn skip(desk: &Desk, which: &Which, reason: &str) -> anyhow::Result<ExitCode> {
    let skipped = |state| matches!(state, State::Due | State::Spooled | State::Quarantined);
    let (ledger, spool) = (&desk.ledger, &desk.spool);
    let mut count = 0;
    for entry in which.entries(ledger, skipped, "skip")? {
        let window = Window::new(entry.start, entry.cadence)?;
        if ledger.transition(&window, entry.state, State::Skipped, Some(reason))? {
            // From here on the daemon neither ships nor cuts it.
            if entry.state == State::Spooled {
                spool.quarantine(&window)?;
            }
            count += 1;
        }
    }
    match which.start {
        Some(start) if count > 0 => say!("window {} is skipped", output::utc(start)),
        Some(start) => bail!(
            "window {} has just changed its state: look again",
            output::utc(start)
        ),
        None => say!("{count} windows are skipped"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Which {
    /// What is recorded of these windows, oldest first, as far as `possible` says of its state. Skipped ranges come as they are.
    fn entries(
        &self,
        ledger: &Ledger,
        possible: impl Fn(State) -> bool,
        what: &str,
    ) -> anyhow::Result<Vec<Entry>> {
        if let Some(start) = self.start {
            let entry = find(ledger, start)?;
            let window = Window::new(start, entry.cadence)?;
            if !possible(entry.state) {
                bail!(
                    "window {window} is {}: {}; there is nothing to {what}",
                    entry.state.word(),
                    describe(entry.state)
                );
            }
            return Ok(vec![entry]);
        }
        if let Some(state) = self.state.filter(|state| !possible(*state)) {
            bail!(
                "a {} window is {}; there is nothing to {what}",
                state.word(),
                describe(state)
            );
        }
        let (from, to) = self.bounds();
        let mut entries = ledger.between(from, to)?;
        entries.retain(|entry| {
            possible(entry.state) && self.state.is_none_or(|state| entry.state == state)
        });
        let windows: i64 = entries
            .iter()
            .map(|entry| {
                let (from, to) = self.range(entry);
                (to - from).num_seconds() / entry.cadence.seconds()
            })
            .sum();
        if windows > MOST {
            bail!(
                "that are {windows} windows: take a smaller range with --from and --to, at most {MOST} windows"
            );
        }
        Ok(entries)
    }

    fn bounds(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (
            self.from.unwrap_or(DateTime::UNIX_EPOCH),
            self.to.unwrap_or(DateTime::<Utc>::MAX_UTC),
        )
    }

    /// The part of an entry's time that is meant.
    fn range(&self, entry: &Entry) -> (DateTime<Utc>, DateTime<Utc>) {
        let (from, to) = match self.start {
            Some(start) => (start, start + entry.cadence.duration()),
            None => self.bounds(),
        };
        (entry.start.max(from), entry.end.min(to))
    }
}

fn find(ledger: &Ledger, start: DateTime<Utc>) -> anyhow::Result<Entry> {
    ledger.find(start)?.with_context(|| {
        format!(
            "no window is recorded that starts at {}: see lookoutd windows list",
            output::utc(start)
        )
    })
}

fn state(text: &str) -> Result<State, String> {
    State::from_name(text).ok_or_else(|| {
        let names = State::ALL.map(|state| state.word().replace(' ', "-"));
        format!("use one of {}", names.join(", "))
    })
}
