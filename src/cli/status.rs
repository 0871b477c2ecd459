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
use super::output::{self, Output};
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::{archive, describe, retention};
use crate::feed::disk::LocalDisk;
use crate::feed::{Census, Entry, Ledger, Spool};
use crate::inference::{Archived, Index};
use crate::ops::ask::{Question, Reason, ask};
use crate::ops::lock;
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
    windows: Census,
    last: Option<Entry>,
    last_delivered: Option<Entry>,
    oldest_waiting: Option<DateTime<Utc>>,
    spool_free_bytes: Option<u64>,
    /// The newest archived execution.
    last_execution: Option<Archived>,
    /// The embedded store: what it holds, and what it keeps for how long.
    store: Option<Standing>,
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
    let config = args.config.load()?.config;
    let status = look(&config, Clock::system().now())?;
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

/// Whether the loops of the process are alive, and nothing else.
pub fn healthcheck(args: HealthArgs) -> anyhow::Result<ExitCode> {
    let data_dir = args.config.load()?.config.data_dir();
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

pub(super) fn look(config: &Config, now: DateTime<Utc>) -> anyhow::Result<Status> {
    let data_dir = config.data_dir();
    let process = lock::holder(&data_dir);
    let ledger = Ledger::open_existing(&data_dir)?;
    let (windows, recent) = match &ledger {
        Some(ledger) => (ledger.census()?, ledger.list(RECENT)?),
        None => Default::default(),
    };
    let delivered = |entry: &&Entry| entry.state.is_delivered();
    let waiting = match &ledger {
        Some(ledger) => ledger
            .spooled()?
            .first()
            .copied()
            .into_iter()
            .chain(ledger.oldest_due()?)
            .map(|window| window.start())
            .min(),
        None => None,
    };
    let mut status = Status {
        verdict: Verdict::Ok,
        why: String::new(),
        running: process.is_some(),
        process,
        judged_by: "disk",
        reasons: Vec::new(),
        data_dir: data_dir.display().to_string(),
        cadence: config.feed.cadence.to_string(),
        windows,
        last: recent.first().cloned(),
        last_delivered: recent.iter().find(delivered).cloned(),
        oldest_waiting: waiting,
        last_execution: match Index::open_existing(&archive(&data_dir)) {
            Ok(Some(index)) => index.newest(&config.inference.scheduler)?,
            _ => None,
        },
        store: None,
        spool_free_bytes: Spool::attach(Arc::new(LocalDisk), &data_dir).free().ok(),
    };
    // A probe that was not given the daemon's configuration goes by the windows it finds.
    let configured = config.feed.cadence.duration();
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
    Ok(status)
}

/// The embedded store of a daemon that is down, where it can be read.
fn stored(config: &Config, data_dir: &Path, now: DateTime<Utc>) -> Option<Standing> {
    let contents = Contents::open(&data_dir.join("s3")).ok()?;
    let rules = retention::rules(config);
    let horizon = retention::horizon(config, data_dir).ok()?;
    Some(Standing {
        figures: contents.figures().ok()?,
        kept: contents.due(&rules, now, horizon).ok()?,
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
                "ATTENTION: {} windows are set aside: lookoutd windows list --state quarantined",
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
        let about = match reason.subject.thing.as_str() {
            "" => String::new(),
            thing => format!("{thing}, "),
        };
        say!(
            "           {about}since {}; {}",
            reason.since,
            reason.remedy
        );
    }
    say!(
        "daemon     {}",
        status.process.map_or_else(
            || "not running".to_owned(),
            |pid| format!("process {pid}, cadence {}", status.cadence)
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
    if let Some(store) = &status.store {
        tell_store(store);
    }
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
