//! Readiness: a pure judgement of a [`Snapshot`], with every reason it is red, since when, and what to do.
//!
//! It is driven by progress, not by the process being up: the loops' pulses, the age of the oldest undelivered window,
//! what the store and the source said last, the clock. A reason goes away by itself with its cause. `attention` reasons
//! need a person and do not make the process unready.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use super::inputs::InputSnapshot;
use super::site::{FeedSnapshot, Snapshot, Standing};
use crate::executions::Unscored;
use crate::feed::State;
use crate::signal::Asset;
use crate::vitals::{Code, Stalled, Subject, Trouble};

/// What the inference side may take to come back, or to become what it shall be, before it is a reason.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);

/// Signatures are refused from 15 minutes on; a minute is where a person should know.
const OFFSET: TimeDelta = TimeDelta::seconds(60);
/// What was noted so much later than now was noted before the clock went back.
const STEP: TimeDelta = TimeDelta::minutes(1);

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
    /// What kind.
    pub code: Code,
    /// What it is about.
    pub subject: Subject,
    /// Whether it makes the process unready.
    pub blocking: bool,
    /// Since when, UTC.
    #[serde(serialize_with = "utc")]
    pub since: DateTime<Utc>,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub remedy: Cow<'static, str>,
}

/// Judges what all parts said.
pub fn judge(snapshot: &Snapshot) -> Readiness {
    let mut reasons = Vec::new();
    for failure in &snapshot.failures {
        reasons.push(reason(
            Code::StateUnreadable,
            snapshot.first_seen(Code::StateUnreadable, &Asset::default()),
            failure.clone(),
            "see the log; the ledger is rebuilt when it is moved away",
        ));
    }
    for Stalled {
        asset,
        name,
        silent,
    } in &snapshot.stalled
    {
        let silent_s = silent.as_secs();
        reasons.push(
            reason(
                Code::LoopStalled,
                snapshot.now - TimeDelta::seconds(silent_s as i64),
                format!("the {name} has not looked at its work for {silent_s} s"),
                if asset.is_empty() {
                    "systemd restarts it through the watchdog; elsewhere restart lookoutd, nothing sealed is lost"
                } else {
                    "look at what its history lies on, which may hang; the other assets go on, and a restart loses nothing"
                },
            )
            .about(name)
            .of(asset),
        );
    }
    for trouble in &snapshot.troubles {
        // Half a window is the longest that anything may wait to be told.
        let feed = snapshot.asset(&Asset::known(&trouble.subject.asset));
        let patience = feed
            .and_then(|one| one.feed.as_ref())
            .map_or(TimeDelta::MAX, |feed| feed.config.cadence.duration() / 2);
        // Raised by a clock that was ahead, it has lasted nobody knows how long.
        let lasted = snapshot.now - trouble.since;
        if lasted < -STEP || lasted >= trouble.after.min(patience) {
            reasons.push(Reason::from(trouble));
        }
    }
    for one in &snapshot.assets {
        let before = reasons.len();
        if let Some(feed) = &one.feed {
            judge_feed(feed, &one.asset, snapshot, &mut reasons);
        }
        if let Some(standing) = &one.watched {
            judge_scheduler(standing, snapshot, &mut reasons);
        }
        if let Some(unscored) = &one.unscored {
            reasons.push(judge_unscored(unscored));
        }
        for reason in &mut reasons[before..] {
            reason.subject.asset = one.asset.name().to_owned();
        }
    }
    judge_executions(snapshot, &mut reasons);
    if let Some(counts) = &snapshot.service
        && counts.failing > 0
    {
        let (first, since) = match &counts.failing_since {
            Some((name, since)) => (name.as_str(), *since),
            None => (
                "",
                snapshot.first_seen(Code::ExecutionsFailing, &Asset::default()),
            ),
        };
        reasons.push(
            reason(
                Code::ExecutionsFailing,
                since,
                match counts.failing {
                    1 => format!("the last execution of {first} failed"),
                    n => format!("the last execution of {n} schedulers failed, of {first} first"),
                },
                "open the scheduler in the console: its history names the reason and the fix",
            )
            .about(first),
        );
    }
    if let Some(counts) = &snapshot.service
        && let Some((first, since)) = counts.active.iter().min_by_key(|(_, since)| *since)
    {
        let others = match counts.active_count {
            1 => String::new(),
            n => format!(" and {} others", n - 1),
        };
        reasons.push(
            reason(
                Code::AnomalyActive,
                *since,
                format!("{first}{others}: the last result is anomalous"),
                "open the scheduler in the console: the event names the sensors that contribute most",
            )
            .about(first),
        );
    }
    for reason in &mut reasons {
        reason.since = reason.since.min(snapshot.now);
    }
    // Stable: within one rank the order of judgement stays.
    reasons.sort_by_key(|reason| !reason.blocking);
    Readiness {
        ready: reasons.iter().all(|reason| !reason.blocking),
        reasons,
    }
}

fn judge_unscored(unscored: &Unscored) -> Reason {
    let utc = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    reason(
        Code::WindowsUnscored,
        unscored.first,
        format!(
            "{} windows were delivered and never scored, the first {}, the last {}",
            unscored.windows,
            utc(unscored.first),
            utc(unscored.last)
        ),
        "lookoutd windows list --unscored has them; their files are in the store: lookoutd serve --catch-up executes what it \
         missed, elsewhere lookoutd model score scores files",
    )
}

fn judge_feed(feed: &FeedSnapshot, asset: &Asset, snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let now = snapshot.now;
    let cadence = feed.config.cadence.duration();
    let age = feed.oldest_age(now);
    if age > cadence * 2 {
        let waiting = feed.census.due + feed.waiting.spooled;
        reasons.push(reason(
            Code::WindowsLate,
            now - age,
            format!(
                "{waiting} windows are not delivered, the oldest is {} late",
                span(age)
            ),
            "lookoutd windows list shows them with their last error; they are delivered once the cause is gone",
        ));
    }
    judge_clock(feed, asset, snapshot, reasons);
    judge_source(feed, asset, snapshot, reasons);
    if feed.census.quarantined > 0 {
        let since = feed
            .recent
            .iter()
            .filter(|entry| entry.state == State::Quarantined)
            .map(|entry| entry.start)
            .min();
        reasons.push(reason(
            Code::WindowsQuarantined,
            since.unwrap_or_else(|| snapshot.first_seen(Code::WindowsQuarantined, asset)),
            format!("{} windows are set aside", feed.census.quarantined),
            "lookoutd windows list --state set-aside, then windows retry or skip",
        ));
    }
    // Credentials that are shorter than the time between two windows are renewed with the next request.
    if let (Some(expiry), Some(why)) = (feed.readings.expiry, &feed.readings.renewal) {
        reasons.push(reason(
            Code::CredentialsExpire,
            snapshot.first_seen(Code::CredentialsExpire, asset),
            format!(
                "the credentials, which end at {}, cannot be renewed: {why}",
                expiry.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            "renew what the credential chain reads; new credentials are taken within a minute, without a restart",
        ));
    }
}

fn judge_clock(feed: &FeedSnapshot, asset: &Asset, snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let now = snapshot.now;
    let cadence = feed.config.cadence.duration();
    const REMEDY: &str = "check time synchronisation with timedatectl or chronyc tracking";
    if let Some((at, seconds)) = feed.conditions.last_step
        && now - at < cadence
        && seconds.abs() >= 2
    {
        reasons.push(reason(
            Code::ClockStepped,
            at,
            format!("the machine's clock was stepped by {seconds} s"),
            REMEDY,
        ));
    }
    if let Some(offset) = feed.readings.offset
        && offset.abs() > OFFSET
    {
        reasons.push(reason(
            Code::ClockOffset,
            snapshot.first_seen(Code::ClockOffset, asset),
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
    // A window is recorded at its start at the earliest, so one that starts later was recorded under another time. Where the
    // ledger knows that the clock was ahead then, it is right now.
    if let Some(entry) = feed.recent.first()
        && entry.start > now + cadence
        && !entry.is_ahead()
    {
        reasons.push(reason(
            Code::ClockSuspect,
            snapshot.first_seen(Code::ClockSuspect, asset),
            format!(
                "window {} is recorded already: the clock went back, or was ahead when it was cut",
                entry.start.to_rfc3339_opts(SecondsFormat::Secs, true)
            ),
            REMEDY,
        ));
    }
}

fn judge_source(
    feed: &FeedSnapshot,
    asset: &Asset,
    snapshot: &Snapshot,
    reasons: &mut Vec<Reason>,
) {
    let now = snapshot.now;
    let cadence = feed.config.cadence.duration();
    let Some(last) = feed.recent.first() else {
        return;
    };
    let stopped =
        snapshot.has(Code::SpoolPaused, asset) || snapshot.has(Code::SourceFailing, asset);
    let due_again = feed.live_at(last.end);
    if now - due_again > cadence && !stopped {
        reasons.push(reason(
            Code::NothingCut,
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
        reasons.push(reason(
            Code::SourceSilent,
            since,
            format!("the last {silent} windows had no row{}", silence(snapshot, asset)),
            "check that the source still writes; lookoutd plan shows which rows the next window expects",
        ));
    } else if let (Some(usual), State::Shipped | State::Partial | State::Covered | State::Spooled) =
        (feed.usual_rows(), last.state)
        && last.rows * 10 < usual * 9
    {
        reasons.push(reason(
            Code::SourceGap,
            last.start,
            format!("the last window had {} rows, usually {usual}", last.rows),
            "see the coverage page of the console: it names the sensors that miss values",
        ));
    }
}

/// Which inputs of an asset bring nothing, and of what.
fn silence(snapshot: &Snapshot, asset: &Asset) -> String {
    let of_asset = |input: &&InputSnapshot| input.assets.iter().any(|name| name == asset.name());
    let inputs = snapshot.inputs.iter().filter(of_asset);
    let lines = inputs.map(|input| format!("; input {}: {}", input.name, input.line(snapshot.now)));
    lines.collect()
}

fn judge_executions(snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let service = snapshot.service.as_ref();
    let counted = service
        .map(|counts| counts.overdue.as_slice())
        .unwrap_or_default();
    let kept = snapshot.overdue();
    let kept = kept
        .iter()
        .map(|one| (one.asset.name(), one.scheduler, one.since));
    let here = counted
        .iter()
        .map(|(name, since)| ("", name.as_str(), *since));
    let all: Vec<_> = kept.chain(here).collect();
    let Some((asset, first, since)) = all.iter().min_by_key(|(_, _, since)| *since) else {
        return;
    };
    let others = match all.len() {
        1 => String::new(),
        n => format!(" and {} others", n - 1),
    };
    reasons.push(
        reason(
            Code::ExecutionMissing,
            *since,
            format!(
                "{first}{others}: no execution for {}, although it runs",
                span(snapshot.now - *since)
            ),
            "see the log of the service; lookoutd scheduler describe says when it wakes",
        )
        .about(first)
        .of(asset),
    );
}

fn judge_scheduler(standing: &Standing, snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let (name, now) = (&standing.scheduler, snapshot.now);
    if let Some(failure) = &standing.failure {
        if now - standing.since >= PATIENCE {
            reasons.push(
                reason(
                    Code::SchedulerUnreachable,
                    standing.since,
                    format!("the inference API cannot be asked about {name}: {failure}"),
                    "feeding goes on; check inference.endpoint_url and the credentials",
                )
                .about(name),
            );
        }
        return;
    }
    match standing.status.as_deref() {
        // A scheduler that is just being made is not gone.
        None if now - standing.since < PATIENCE => {}
        None => reasons.push(reason(
            Code::SchedulerGone,
            standing.since,
            format!("there is no inference scheduler {name}: the files are not read"),
            "with inference.wanted = \"running\" it is created again; otherwise lookoutd scheduler create",
        ).about(name)),
        Some(status) if status == standing.wanted => {}
        Some(status) if now - standing.since >= PATIENCE => reasons.push(reason(
            Code::SchedulerNotRunning,
            standing.since,
            format!("the inference scheduler {name} is {status}, not {}", standing.wanted),
            "lookoutd scheduler start, or set inference.wanted to what it shall be",
        ).about(name)),
        Some(_) => {}
    }
}

fn reason(
    code: Code,
    since: DateTime<Utc>,
    text: String,
    remedy: impl Into<Cow<'static, str>>,
) -> Reason {
    Reason {
        code,
        subject: Subject::default(),
        blocking: code.is_blocking(),
        since,
        text,
        remedy: remedy.into(),
    }
}

impl Reason {
    fn about(mut self, thing: &str) -> Self {
        self.subject.thing = thing.to_owned();
        self
    }

    fn of(mut self, asset: &str) -> Self {
        self.subject.asset = asset.to_owned();
        self
    }
}

impl From<&Trouble> for Reason {
    fn from(trouble: &Trouble) -> Self {
        Self {
            code: trouble.code,
            subject: trouble.subject.clone(),
            blocking: trouble.code.is_blocking(),
            since: trouble.since,
            text: trouble.text.clone(),
            remedy: trouble.remedy.clone(),
        }
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
