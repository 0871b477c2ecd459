//! Readiness: a pure judgement of a [`Snapshot`], with every reason it is red, since when, and what to do.
//!
//! It is driven by progress, not by the process being up: the loops' pulses, the age of the oldest undelivered window,
//! what the store and the source said last, the clock. A reason goes away by itself with its cause. `attention` reasons
//! need a person and do not make the process unready.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use super::site::{FeedSnapshot, Snapshot, Standing};
use crate::feed::{State, Trouble};

/// A store that cannot be reached is a reason after this long; one that refuses is one at once.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);
/// Signatures are refused from 15 minutes on; a minute is where a person should know.
const OFFSET: TimeDelta = TimeDelta::seconds(60);
/// Credentials that end within this and were not renewed.
const EXPIRY: TimeDelta = TimeDelta::minutes(5);

/// Every code a reason can have.
pub const CODES: [&str; 21] = [
    "state-unreadable",
    "loop-stalled",
    "store-refuses",
    "store-unreachable",
    "spool-paused",
    "source-failing",
    "windows-late",
    "windows-quarantined",
    "credentials-expire",
    "clock-stepped",
    "clock-offset",
    "clock-suspect",
    "nothing-cut",
    "source-silent",
    "source-gap",
    "scheduler-unreachable",
    "scheduler-gone",
    "scheduler-not-running",
    "execution-missing",
    "executions-failing",
    "anomaly-active",
];

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether windows are being delivered as they should.
    pub ready: bool,
    /// Everything that is wrong, the gravest first.
    pub reasons: Vec<Reason>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Stable name, for machines; also the anchor in docs/operating.md.
    pub code: &'static str,
    /// Whether it makes the process unready.
    pub blocking: bool,
    /// Since when, UTC.
    #[serde(serialize_with = "utc")]
    pub since: DateTime<Utc>,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Judges what all parts said.
pub fn judge(snapshot: &Snapshot) -> Readiness {
    let mut reasons = Vec::new();
    for failure in &snapshot.failures {
        reasons.push(red(
            "state-unreadable",
            snapshot.first_seen("state-unreadable"),
            failure.clone(),
            "see the log; the ledger is rebuilt when it is moved away",
        ));
    }
    if let Some(feed) = &snapshot.feed {
        judge_feed(feed, snapshot, &mut reasons);
    }
    if let Some(standing) = &snapshot.watched {
        judge_scheduler(standing, snapshot.now, &mut reasons);
    }
    judge_executions(snapshot, &mut reasons);
    if let Some(counts) = &snapshot.service
        && counts.failing > 0
    {
        reasons.push(attention(
            "executions-failing",
            snapshot.first_seen("executions-failing"),
            format!("the last execution of {} schedulers failed", counts.failing),
            "open the scheduler in the console: its history names the reason and the fix",
        ));
    }
    if let Some(counts) = &snapshot.service
        && let Some(first) = counts.active.first()
    {
        let others = match counts.active_count {
            1 => String::new(),
            n => format!(" and {} others", n - 1),
        };
        reasons.push(attention(
            "anomaly-active",
            snapshot.first_seen("anomaly-active"),
            format!("{first}{others}: the last window is anomalous"),
            "open the scheduler in the console: the event names the sensors that contribute most",
        ));
    }
    // Stable: within one rank the order of judgement stays.
    reasons.sort_by_key(|reason| !reason.blocking);
    Readiness {
        ready: reasons.iter().all(|reason| !reason.blocking),
        reasons,
    }
}

fn judge_feed(feed: &FeedSnapshot, snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let now = snapshot.now;
    let cadence = feed.config.cadence.duration();
    for (name, silent_s) in &feed.stalled {
        reasons.push(red(
            "loop-stalled",
            now - TimeDelta::seconds(*silent_s as i64),
            format!("the {name} has not looked at its work for {silent_s} s"),
            "systemd restarts it through the watchdog; elsewhere restart lookoutd, nothing sealed is lost",
        ));
    }
    let conditions = &feed.conditions;
    if let Some(trouble) = &conditions.store {
        judge_store(trouble, cadence, now, reasons);
    }
    if let Some(trouble) = &conditions.paused {
        reasons.push(red(
            "spool-paused",
            trouble.since,
            format!("cutting is paused, the disk is full: {}", trouble.text),
            "free some space in the data directory; cutting resumes by itself",
        ));
    }
    if let Some(trouble) = &conditions.cutting {
        reasons.push(red(
            "source-failing",
            trouble.since,
            format!("windows cannot be cut: {}", trouble.text),
            "check the source the text names; cutting is tried again every few seconds",
        ));
    }
    let age = feed.oldest_age(now);
    if age > cadence * 2 {
        let waiting = feed.census.due + feed.waiting.spooled;
        reasons.push(red(
            "windows-late",
            now - age,
            format!(
                "{waiting} windows are not delivered, the oldest is {} late",
                span(age)
            ),
            "lookoutd windows list shows them with their last error; they are delivered once the cause is gone",
        ));
    }
    judge_clock(feed, snapshot, reasons);
    judge_source(feed, now, reasons);
    if feed.census.quarantined > 0 {
        let since = feed
            .recent
            .iter()
            .filter(|entry| entry.state == State::Quarantined)
            .map(|entry| entry.start)
            .min();
        reasons.push(attention(
            "windows-quarantined",
            since.unwrap_or_else(|| snapshot.first_seen("windows-quarantined")),
            format!("{} windows are set aside", feed.census.quarantined),
            "lookoutd windows list --state quarantined, then windows retry or skip",
        ));
    }
    if let Some(expiry) = feed.readings.expiry
        && expiry - now < EXPIRY
    {
        let reason: fn(_, _, _, _) -> _ = if expiry <= now { red } else { attention };
        reasons.push(reason(
            "credentials-expire",
            expiry - EXPIRY,
            format!(
                "the credentials in use end at {}",
                expiry.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            "renew what the credential chain reads; new credentials are taken within a minute, without a restart",
        ));
    }
}

fn judge_store(
    trouble: &Trouble,
    cadence: TimeDelta,
    now: DateTime<Utc>,
    reasons: &mut Vec<Reason>,
) {
    match trouble.remedy {
        Some(remedy) => reasons.push(red(
            "store-refuses",
            trouble.since,
            trouble.text.clone(),
            remedy,
        )),
        None if now - trouble.since >= PATIENCE.min(cadence / 2) => reasons.push(red(
            "store-unreachable",
            trouble.since,
            trouble.text.clone(),
            "check the network and the store; what is sealed waits in the spool and is delivered afterwards",
        )),
        None => {}
    }
}

fn judge_clock(feed: &FeedSnapshot, snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let now = snapshot.now;
    let cadence = feed.config.cadence.duration();
    const REMEDY: &str = "check time synchronisation with timedatectl or chronyc tracking";
    if let Some((at, seconds)) = feed.conditions.last_step
        && now - at < cadence
        && seconds.abs() >= 2
    {
        reasons.push(red(
            "clock-stepped",
            at,
            format!("the machine's clock was stepped by {seconds} s"),
            REMEDY,
        ));
    }
    if let Some(offset) = feed.readings.offset
        && offset.abs() > OFFSET
    {
        reasons.push(red(
            "clock-offset",
            snapshot.first_seen("clock-offset"),
            format!(
                "this machine's clock is {} {} the store's",
                span(offset.abs()),
                if offset > TimeDelta::zero() {
                    "ahead of"
                } else {
                    "behind"
                }
            ),
            REMEDY,
        ));
    }
    // A window is recorded at its start at the earliest, so one that starts later was recorded under another time.
    if let Some(entry) = feed.recent.first()
        && entry.start > now + cadence
    {
        reasons.push(red(
            "clock-suspect",
            snapshot.first_seen("clock-suspect"),
            format!(
                "window {} is recorded already: the clock went back, or was ahead when it was cut",
                entry.start.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            REMEDY,
        ));
    }
}

fn judge_source(feed: &FeedSnapshot, now: DateTime<Utc>, reasons: &mut Vec<Reason>) {
    let cadence = feed.config.cadence.duration();
    let Some(last) = feed.recent.first() else {
        return;
    };
    let stopped = feed.conditions.paused.is_some() || feed.conditions.cutting.is_some();
    let due_again = feed.live_at(last.end);
    if now - due_again > cadence && !stopped {
        reasons.push(red(
            "nothing-cut",
            due_again,
            format!("no window was cut for {}", span(now - due_again)),
            "see the log of the cutter; a history that is over (source.at_end = \"stop\") ends like this",
        ));
    }
    let silent = feed
        .recent
        .iter()
        .take_while(|entry| matches!(entry.state, State::Empty | State::Skipped))
        .filter(|entry| entry.state == State::Empty)
        .count();
    if silent >= 2 {
        let since = feed.recent[silent - 1].start;
        reasons.push(red(
            "source-silent",
            since,
            format!("the last {silent} windows had no row"),
            "check that the source still writes; lookoutd plan shows which rows the next window expects",
        ));
    } else if let (Some(usual), State::Shipped | State::Partial | State::Covered | State::Spooled) =
        (feed.usual_rows(), last.state)
        && last.rows * 10 < usual * 9
    {
        reasons.push(attention(
            "source-gap",
            last.start,
            format!("the last window had {} rows, usually {usual}", last.rows),
            "see the coverage page of the console: it names the sensors that miss values",
        ));
    }
}

fn judge_executions(snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let service = snapshot.service.as_ref();
    let overdue = service
        .map(|counts| counts.overdue.as_slice())
        .unwrap_or_default();
    let here = overdue.iter().map(|(name, since)| (name.as_str(), *since));
    let all: Vec<_> = snapshot.overdue().into_iter().chain(here).collect();
    let Some((first, since)) = all.iter().min_by_key(|(_, since)| *since) else {
        return;
    };
    let others = match all.len() {
        1 => String::new(),
        n => format!(" and {} others", n - 1),
    };
    reasons.push(attention(
        "execution-missing",
        *since,
        format!(
            "{first}{others}: no execution for {}, although it runs",
            span(snapshot.now - *since)
        ),
        "see the log of the service; lookoutd scheduler describe says when it wakes",
    ));
}

fn judge_scheduler(standing: &Standing, now: DateTime<Utc>, reasons: &mut Vec<Reason>) {
    let name = &standing.scheduler;
    if let Some(failure) = &standing.failure {
        if now - standing.since >= PATIENCE {
            reasons.push(red(
                "scheduler-unreachable",
                standing.since,
                format!("the inference API cannot be asked about {name}: {failure}"),
                "feeding goes on; check inference.endpoint_url and the credentials",
            ));
        }
        return;
    }
    match standing.status.as_deref() {
        // A scheduler that is just being made is not gone.
        None if now - standing.since < PATIENCE => {}
        None => reasons.push(red(
            "scheduler-gone",
            standing.since,
            format!("there is no inference scheduler {name}: the files are not read"),
            "with inference.wanted = \"running\" it is created again; otherwise lookoutd scheduler create",
        )),
        Some(status) if status == standing.wanted => {}
        Some(status) if now - standing.since >= PATIENCE => reasons.push(red(
            "scheduler-not-running",
            standing.since,
            format!("the inference scheduler {name} is {status}, not {}", standing.wanted),
            "lookoutd scheduler start, or set inference.wanted to what it shall be",
        )),
        Some(_) => {}
    }
}

fn red(code: &'static str, since: DateTime<Utc>, text: String, remedy: &'static str) -> Reason {
    Reason {
        code,
        blocking: true,
        since,
        text,
        remedy,
    }
}

fn attention(
    code: &'static str,
    since: DateTime<Utc>,
    text: String,
    remedy: &'static str,
) -> Reason {
    Reason {
        blocking: false,
        ..red(code, since, text, remedy)
    }
}

/// A length of time for people: `45 s`, `12 min`, `3 h 20 min`, `5 days`.
pub fn span(length: TimeDelta) -> String {
    let seconds = length.num_seconds();
    match seconds {
        i64::MIN..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        172_800.. => format!("{} days", seconds / 86_400),
    }
}

fn utc<S: serde::Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true))
}
