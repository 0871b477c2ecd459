//! `lookoutd status` and `lookoutd healthcheck`: what the daemon is doing. The first line is the verdict.
//!
//! The verdict is the running daemon's own, the one of `/readyz`: it is asked for it. Only where it is down, or does not
//! answer, is judged from the disk, and that is said. Windows and the last result are read from the disk in any case.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde::Serialize;

use super::ConfigArgs;
use super::asset::{AssetArgs, One};
use super::output::{self, Output};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Loaded};
use crate::daemon::{archive, describe, retention};
use crate::feed::disk::LocalDisk;
use crate::feed::{Census, Entry, Ledger, Spool};
use crate::inference::{Archived, Index};
use crate::ops::ask::{Question, Reason, ask};
use crate::ops::inputs::InputSnapshot;
use crate::ops::lock;
use crate::signal::Asset;
use crate::store::export::Contents;
use crate::store::standing::Standing;

/// Windows that are looked at, at most.
const RECENT: usize = 500;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd status --config lookoutd.toml
  lookoutd status --output json | jq .verdict

The verdict is that of /readyz, asked of the running daemon; where it is down it is judged from the disk.

Exit codes: 0 all well, 3 not ready or something needs attention, 69 no daemon runs.")]
pub struct StatusArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    asset: AssetArgs,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lookoutd healthcheck --config lookoutd.toml
  lookoutd healthcheck --data-dir /var/lib/lookoutd

For container engines and supervisors that restart what is dead: a store that is away or a broken notifier is no reason
to restart, lookoutd status tells of those.

Exit codes: 0 its loops look at their work, 1 stopped, or a loop stands.")]
pub struct HealthArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// What is going on.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    verdict: Verdict,
    pub(super) why: String,
    running: bool,
    process: Option<u32>,
    /// Who judged: the `daemon`, or this command from the `disk`.
    judged_by: &'static str,
    /// Everything that is wrong, as /readyz has it; of a daemon that answered.
    reasons: Vec<Reason>,
    data_dir: String,
    cadence: String,
    /// The assets, the worst first, where they have names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    assets: Vec<AssetStatus>,
    /// Of all of them, as everything below.
    windows: Census,
    last: Option<Entry>,
    last_delivered: Option<Entry>,
    oldest_waiting: Option<DateTime<Utc>>,
    spool_free_bytes: Option<u64>,
    /// The newest archived execution.
    last_execution: Option<Archived>,
    /// The embedded store: what it holds, and what it keeps for how long.
    store: Option<Standing>,
    /// The inputs of a live plant, of a daemon that answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<InputSnapshot>,
    /// When the daemon answered, by its clock.
    #[serde(skip)]
    asked_at: Option<DateTime<Utc>>,
}

/// What is going on with one asset.
#[derive(Debug, Serialize)]
struct AssetStatus {
    asset: String,
    /// `problem`, `attention` or `ok`.
    state: &'static str,
    cadence: String,
    windows: Census,
    last: Option<Entry>,
    last_delivered: Option<Entry>,
    oldest_waiting: Option<DateTime<Utc>>,
    last_execution: Option<Archived>,
}

impl AssetStatus {
    fn of(one: &One, ledger: Option<&Ledger>, index: Option<&Index>) -> anyhow::Result<Self> {
        let ledger = ledger.map(|ledger| ledger.of(one.asset.name()));
        let (windows, recent) = match &ledger {
            Some(ledger) => (ledger.census()?, ledger.list(RECENT)?),
            None => Default::default(),
        };
        let waiting = match &ledger {
            Some(ledger) => ledger
                .oldest_spooled(1)?
                .into_iter()
                .chain(ledger.oldest_due()?)
                .map(|window| window.start())
                .min(),
            None => None,
        };
        let scheduler = &one.config.inference.scheduler;
        let is_none = one.asset.is_named() && scheduler.is_empty();
        let delivered = |entry: &&Entry| entry.state.is_delivered();
        Ok(Self {
            asset: one.asset.name().to_owned(),
            state: "ok",
            cadence: one.config.feed.cadence.to_string(),
            last: recent.first().cloned(),
            last_delivered: recent.iter().find(delivered).cloned(),
            oldest_waiting: waiting,
            windows,
            last_execution: match index.filter(|_| !is_none) {
                Some(index) => index.newest(scheduler)?,
                None => None,
            },
        })
    }

    /// How it is, by the reasons that name it and by what the ledger says.
    fn judge(&mut self, reasons: &[Reason]) {
        let own = || {
            let is_own = |reason: &&Reason| reason.subject.asset == self.asset;
            reasons.iter().filter(is_own)
        };
        self.state = match own().any(|reason| reason.blocking) {
            true => "problem",
            false if own().next().is_some() || self.windows.quarantined > 0 => "attention",
            false => "ok",
        };
    }

    fn grade(&self) -> usize {
        ["problem", "attention", "ok"]
            .iter()
            .position(|state| *state == self.state)
            .unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Ok,
    /// There is a blocking reason.
    NotReady,
    /// Judged from the disk: windows wait for longer than they should.
    Late,
    Attention,
    Stopped,
}

pub fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let (loaded, assets) = known(&args)?;
    let status = look(&loaded.config, &assets, Clock::system().now())?;
    if args.output == Output::Json {
        output::json(&status)?;
    } else {
        print(&status);
    }
    Ok(match status.verdict {
        Verdict::Ok => ExitCode::SUCCESS,
        Verdict::NotReady | Verdict::Late | Verdict::Attention => ExitCode::from(3),
        Verdict::Stopped => ExitCode::from(69),
    })
}

/// The configuration and its assets. A daemon that runs goes on with what it took: what is wrong with them by now is said, and
/// keeps nobody from asking it.
fn known(args: &StatusArgs) -> anyhow::Result<(Loaded, Vec<One>)> {
    let (loaded, findings) = args.config.inspect_all()?;
    let data_dir = loaded.config.data_dir();
    let runs = lock::holder(&data_dir).is_some();
    if !findings.is_empty() {
        let error = ConfigError { findings };
        if !runs {
            return Err(error.into());
        }
        complain!("{error}");
    }
    match args.asset.all(&loaded) {
        Err(error) if runs && args.asset.name().is_none() => {
            complain!("{error:#}");
            let recorded = Ledger::open_existing(&data_dir)?
                .map(|ledger| ledger.assets())
                .transpose()?;
            let of = |name: &String| One::unread(&loaded, Asset::known(name));
            let recorded = recorded.unwrap_or_default().iter().map(of).collect();
            Ok((loaded, recorded))
        }
        all => Ok((loaded, all?)),
    }
}

/// Whether the loops of the process are alive, and nothing else.
pub fn healthcheck(args: HealthArgs) -> anyhow::Result<ExitCode> {
    // Mistakes that were made since it started are no reason to restart what would not start again.
    let data_dir = args.config.inspect_all()?.0.config.data_dir();
    let Some(process) = lock::holder(&data_dir) else {
        say!("STOPPED: no daemon runs on {}", data_dir.display());
        return Ok(ExitCode::FAILURE);
    };
    Ok(match ask(&data_dir, Question::Alive) {
        Ok(told) if told.stalled.is_empty() => {
            say!("OK: process {process} looks at its work");
            ExitCode::SUCCESS
        }
        Ok(told) => {
            say!(
                "STALLED: process {process} no longer looks at its work: {}",
                told.stalled.join(", ")
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            say!("SILENT: process {process} runs, but {error}");
            ExitCode::FAILURE
        }
    })
}

fn look(config: &Config, assets: &[One], now: DateTime<Utc>) -> anyhow::Result<Status> {
    let data_dir = config.data_dir();
    let process = lock::holder(&data_dir);
    let ledger = Ledger::open_existing(&data_dir)?;
    let index = Index::open_existing(&archive(&data_dir)).ok().flatten();
    let mut known = assets
        .iter()
        .map(|one| AssetStatus::of(one, ledger.as_ref(), index.as_ref()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut status = Status {
        verdict: Verdict::Ok,
        why: String::new(),
        running: process.is_some(),
        process,
        judged_by: "disk",
        reasons: Vec::new(),
        data_dir: data_dir.display().to_string(),
        cadence: known
            .first()
            .map_or_else(String::new, |one| one.cadence.clone()),
        windows: known
            .iter()
            .fold(Census::default(), |sum, one| sum.and(&one.windows)),
        last: newest(known.iter().filter_map(|one| one.last.as_ref())),
        last_delivered: newest(known.iter().filter_map(|one| one.last_delivered.as_ref())),
        oldest_waiting: known.iter().filter_map(|one| one.oldest_waiting).min(),
        last_execution: known
            .iter()
            .filter_map(|one| one.last_execution.as_ref())
            .max_by_key(|row| row.execution.data_start)
            .cloned(),
        assets: Vec::new(),
        store: None,
        inputs: Vec::new(),
        asked_at: None,
        spool_free_bytes: Spool::attach(Arc::new(LocalDisk), &data_dir).free().ok(),
    };
    // A probe that was not given the daemon's configuration goes by the windows it finds.
    let cadences = assets.iter().map(|one| one.config.feed.cadence.duration());
    let configured = cadences.max().unwrap_or(config.feed.cadence.duration());
    let cadence = status
        .last
        .as_ref()
        .map_or(configured, |entry| configured.max(entry.end - entry.start));
    match process.map(|_| ask(&data_dir, Question::All)) {
        Some(Ok(told)) => {
            status.judged_by = "daemon";
            (status.verdict, status.why) = rendered(&status, &told.reasons);
            status.reasons = told.reasons;
            status.store = told.store;
            (status.inputs, status.asked_at) = (told.inputs, told.at);
        }
        None => {
            (status.verdict, status.why) = judge(&status, cadence, now);
            status.store = stored(config, &data_dir, now);
        }
        Some(Err(error)) => {
            let (verdict, why) = judge(&status, cadence, now);
            status.verdict = match verdict {
                Verdict::Ok => Verdict::Attention,
                graver => graver,
            };
            status.why = format!("{why} (judged from the disk: {error})");
        }
    }
    if assets.iter().any(|one| one.asset.is_named()) {
        for one in &mut known {
            one.judge(&status.reasons);
        }
        known.sort_by(|a, b| (a.grade(), &a.asset).cmp(&(b.grade(), &b.asset)));
        status.assets = known;
    }
    Ok(status)
}

fn newest<'a>(entries: impl Iterator<Item = &'a Entry>) -> Option<Entry> {
    entries.max_by_key(|entry| entry.start).cloned()
}

/// The embedded store of a daemon that is down, where it can be read.
fn stored(config: &Config, data_dir: &Path, now: DateTime<Utc>) -> Option<Standing> {
    let contents = Contents::open(&data_dir.join("s3")).ok()?;
    let kept = retention::terms(config, data_dir).ok().and_then(|terms| {
        let kept = contents.due(&terms.rules, now, terms.horizon);
        kept.ok()
    });
    Some(Standing {
        figures: contents.figures().ok()?,
        kept: kept.unwrap_or_default(),
        ..Standing::default()
    })
}

/// The daemon's own judgement in one line.
fn rendered(status: &Status, reasons: &[Reason]) -> (Verdict, String) {
    let Some(first) = reasons.first() else {
        return delivered(status);
    };
    let others = match reasons.len() {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    let (verdict, word) = match first.blocking {
        true => (Verdict::NotReady, "NOT READY"),
        false => (Verdict::Attention, "ATTENTION"),
    };
    (
        verdict,
        format!("{word}: {} ({}){others}", first.text, first.code),
    )
}

/// Nothing is wrong.
fn delivered(status: &Status) -> (Verdict, String) {
    let backlog = status.windows.due + status.windows.spooled;
    (
        Verdict::Ok,
        match &status.last_delivered {
            Some(entry) => format!(
                "OK: last window {} delivered, {backlog} waiting",
                output::utc(entry.start)
            ),
            None => format!("OK: started, {backlog} waiting"),
        },
    )
}

/// What the disk alone says.
fn judge(status: &Status, cadence: TimeDelta, now: DateTime<Utc>) -> (Verdict, String) {
    let backlog = status.windows.due + status.windows.spooled;
    if !status.running {
        return (
            Verdict::Stopped,
            format!(
                "STOPPED: no daemon runs on {}; {backlog} windows wait",
                status.data_dir
            ),
        );
    }
    let behind = status
        .oldest_waiting
        .filter(|start| now - *start > cadence * 3);
    if let Some(start) = behind {
        let error = status
            .last
            .as_ref()
            .and_then(|entry| entry.last_error.clone())
            .map(|error| format!("; {error}"))
            .unwrap_or_default();
        return (
            Verdict::Late,
            format!(
                "LATE: {backlog} windows wait, the oldest since {}{error}",
                output::utc(start)
            ),
        );
    }
    let silent = status
        .last
        .as_ref()
        .is_some_and(|entry| now - entry.end > cadence * 2);
    if silent {
        return (
            Verdict::Late,
            "LATE: nothing was cut for two windows; see the log".to_owned(),
        );
    }
    if status.windows.quarantined > 0 {
        return (
            Verdict::Attention,
            format!(
                "ATTENTION: {} windows are set aside: lookoutd windows list --state set-aside",
                status.windows.quarantined
            ),
        );
    }
    delivered(status)
}

fn print(status: &Status) {
    say!("{}", status.why);
    for reason in &status.reasons {
        let kind = if reason.blocking {
            "blocking"
        } else {
            "attention"
        };
        say!("{kind:<10} {}: {}", reason.code, reason.text);
        let subject = &reason.subject;
        let about: String = [&subject.asset, &subject.thing]
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(|part| format!("{part}, "))
            .collect();
        say!(
            "           {about}since {}; {}",
            reason.since,
            reason.remedy
        );
    }
    tell_assets(&status.assets);
    say!(
        "daemon     {}",
        status.process.map_or_else(
            || "not running".to_owned(),
            |pid| match status.assets.len() {
                0 => format!("process {pid}, cadence {}", status.cadence),
                1 => format!("process {pid}, 1 asset"),
                n => format!("process {pid}, {n} assets"),
            }
        )
    );
    if let Some(entry) = &status.last {
        say!(
            "last       {} {}, {} rows, {} files",
            output::utc(entry.start),
            describe(entry.state),
            entry.rows,
            entry.files
        );
    }
    let windows = &status.windows;
    say!(
        "windows    {} shipped, {} partial, {} empty, {} waiting, {} to cut, {} skips, {} set aside",
        windows.shipped,
        windows.partial,
        windows.empty,
        windows.spooled,
        windows.due,
        windows.skipped,
        windows.quarantined
    );
    if let Some(row) = &status.last_execution {
        say!(
            "result     {} {} {}, {} of {} rows anomalous",
            row.execution.scheduler,
            output::utc(row.execution.data_start),
            row.execution.status,
            row.summary.anomalous,
            row.summary.rows
        );
    }
    if let Some(free) = status.spool_free_bytes {
        say!(
            "spool      {} free in {}",
            output::bytes(free),
            status.data_dir
        );
    }
    for input in &status.inputs {
        let now = status.asked_at.unwrap_or_default();
        say!("input      {} {}", input.name, input.line(now));
    }
    if let Some(store) = &status.store {
        tell_store(store);
    }
}

/// The assets, the worst first.
fn tell_assets(assets: &[AssetStatus]) {
    if assets.is_empty() {
        return;
    }
    let rows: Vec<_> = assets
        .iter()
        .map(|one| {
            let last = one.last.as_ref();
            let result = one.last_execution.as_ref();
            vec![
                one.asset.clone(),
                one.state.to_owned(),
                one.cadence.clone(),
                last.map_or_else(String::new, |entry| output::utc(entry.start)),
                last.map_or_else(String::new, |entry| entry.state.word().to_owned()),
                (one.windows.due + one.windows.spooled).to_string(),
                result.map_or_else(String::new, |row| {
                    let execution = &row.execution;
                    format!("{} {}", output::utc(execution.data_start), execution.status)
                }),
            ]
        })
        .collect();
    output::table(
        &[
            "ASSET",
            "STATE",
            "CADENCE",
            "LAST WINDOW",
            "IS",
            "WAITING",
            "LAST RESULT",
        ],
        &rows,
    );
}

fn tell_store(store: &Standing) {
    let figures = &store.figures;
    let full = match store.days_to_full {
        Some(days) => format!(", full in {days:.0} days"),
        None => String::new(),
    };
    say!(
        "store      {} objects, {}, {} on disk of which {} free{full}",
        figures.objects,
        output::bytes(figures.bytes),
        output::bytes(figures.file_bytes),
        output::bytes(figures.free_bytes),
    );
    if figures.uploads > 0 {
        let begun = figures
            .oldest_upload_ms
            .and_then(DateTime::from_timestamp_millis)
            .map_or_else(String::new, |at| {
                format!(", the oldest of {}", output::utc(at))
            });
        say!(
            "           {} uploads begun and not completed, {}{begun}",
            figures.uploads,
            output::bytes(figures.upload_bytes)
        );
    }
    for one in &store.kept {
        let waiting = match one.waiting {
            0 => String::new(),
            n => format!(", {n} wait for delivery, scoring or the archive"),
        };
        let held = match one.held {
            true => format!(
                ", deletion of {} held: lookoutd store retention --dry-run",
                one.due
            ),
            false => String::new(),
        };
        say!(
            "kept       {}/{} {}: {} objects, {}{waiting}{held}",
            one.bucket,
            one.prefix,
            one.keep,
            one.objects,
            output::bytes(one.bytes)
        );
    }
    if let Some(at) = store.last_pass {
        say!("           last looked through {}", output::utc(at));
    }
}
