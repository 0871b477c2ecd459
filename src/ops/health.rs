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
/// Schedulers that are named one by one; more are counted.
const NAMED: usize = 20;
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
        once_for_all(&mut reasons, before);
    }
    judge_executions(snapshot, &mut reasons);
    judge_results(snapshot, &mut reasons);
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

/// What is wrong with one scheduler.
struct Found {
    asset: String,
    scheduler: String,
    since: DateTime<Utc>,
    text: String,
}

/// What the schedulers' last executions came to.
fn judge_results(snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let Some(counts) = &snapshot.service else {
        return;
    };
    let found = |named: &[(String, DateTime<Utc>)], text: fn(&str) -> String| -> Vec<_> {
        let found = named.iter().map(|(scheduler, since)| {
            let fed = snapshot.fed(scheduler);
            Found {
                asset: fed.map_or("", |one| one.asset.name()).to_owned(),
                scheduler: scheduler.clone(),
                since: *since,
                text: text(scheduler),
            }
        });
        found.collect()
    };
    let failing = found(&counts.failing_since, |name| {
        format!("the last execution of {name} failed")
    });
    let remedy = "open the scheduler in the console: its history names the reason and the fix";
    tell_each(
        Code::ExecutionsFailing,
        failing,
        counts.failing,
        remedy,
        reasons,
    );
    let active = found(&counts.active, |name| {
        format!("{name}: the last result is anomalous")
    });
    let remedy =
        "open the scheduler in the console: the event names the sensors that contribute most";
    tell_each(
        Code::AnomalyActive,
        active,
        counts.active_count,
        remedy,
        reasons,
    );
}

/// A reason for each of what was found, the oldest first; beyond some, how many more there are of `all`.
fn tell_each(
    code: Code,
    mut found: Vec<Found>,
    all: u64,
    remedy: &'static str,
    reasons: &mut Vec<Reason>,
) {
    found.sort_by_key(|one| one.since);
    found.truncate(NAMED);
    let more = all.saturating_sub(found.len() as u64);
    if let (Some(last), 1..) = (found.last_mut(), more) {
        last.text += &format!("; so it is with {more} more");
    }
    reasons.extend(found.into_iter().map(|one| {
        reason(code, one.since, one.text, remedy)
            .about(&one.scheduler)
            .of(&one.asset)
    }));
}

/// What the machine's clock does is no asset's: of the reasons from `before` on, what one of another asset says already is
/// not said again.
fn once_for_all(reasons: &mut Vec<Reason>, before: usize) {
    for mut reason in reasons.split_off(before) {
        if matches!(reason.code, Code::ClockStepped | Code::ClockOffset) {
            reason.subject = Subject::default();
            if reasons.iter().any(|known| known.code == reason.code) {
                continue;
            }
        }
        reasons.push(reason);
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
        "lookoutd windows list --unscored has them; their files are in the store, and lookoutd model score scores them; a \
         scheduler with the tag lookoutd:catch-up=on executes what it misses from then on",
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

/// Schedulers that run and have executed nothing.
fn judge_executions(snapshot: &Snapshot, reasons: &mut Vec<Reason>) {
    let found = |asset: &str, scheduler: &str, since| Found {
        asset: asset.to_owned(),
        scheduler: scheduler.to_owned(),
        since,
        text: format!(
            "{scheduler}: no execution for {}, although it runs",
            span(snapshot.now - since)
        ),
    };
    let kept = snapshot.overdue();
    let kept = kept
        .iter()
        .map(|one| found(one.asset.name(), one.scheduler, one.since));
    let counts = snapshot.service.iter();
    let here = counts
        .flat_map(|counts| &counts.overdue)
        .map(|(name, since)| found("", name, *since));
    let all: Vec<_> = kept.chain(here).collect();
    let count = all.len() as u64;
    let remedy = "see the log of the service; lookoutd scheduler describe says when it wakes";
    tell_each(Code::ExecutionMissing, all, count, remedy, reasons);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::Counts;
    use crate::ops::site::AssetSnapshot;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    fn snapshot(assets: &[(&str, &str)], counts: Counts) -> Snapshot {
        let asset = |(name, scheduler): &(&str, &str)| AssetSnapshot {
            asset: Asset::known(name),
            watched: Some(Standing {
                scheduler: (*scheduler).to_owned(),
                status: Some("RUNNING".into()),
                wanted: "RUNNING",
                failure: None,
                since: at(0),
            }),
            ..AssetSnapshot::default()
        };
        Snapshot {
            now: at(60),
            started: at(0),
            assets: assets.iter().map(asset).collect(),
            service: Some(counts),
            unarchived: None,
            store: None,
            failures: Vec::new(),
            troubles: Vec::new(),
            inputs: Vec::new(),
            stalled: Vec::new(),
            seen: Default::default(),
        }
    }

    fn told(readiness: &Readiness, code: Code) -> Vec<(&str, &str, &str)> {
        let of = readiness
            .reasons
            .iter()
            .filter(|reason| reason.code == code);
        of.map(|reason| {
            let Subject { asset, thing } = &reason.subject;
            (asset.as_str(), thing.as_str(), reason.text.as_str())
        })
        .collect()
    }

    #[test]
    fn what_an_execution_came_to_is_a_reason_of_the_asset_whose_files_it_read() {
        let named = |name: &str, minute| (name.to_owned(), at(minute));
        let counts = Counts {
            active: vec![named("s2", 20), named("s1", 10)],
            active_count: 2,
            failing: 1,
            failing_since: vec![named("s2", 5)],
            overdue: vec![named("elsewhere", 1)],
            ..Counts::default()
        };
        let readiness = judge(&snapshot(&[("pump-1", "s1"), ("pump-2", "s2")], counts));
        assert_eq!(
            told(&readiness, Code::AnomalyActive),
            [
                ("pump-1", "s1", "s1: the last result is anomalous"),
                ("pump-2", "s2", "s2: the last result is anomalous"),
            ]
        );
        assert_eq!(
            told(&readiness, Code::ExecutionsFailing),
            [("pump-2", "s2", "the last execution of s2 failed")]
        );
        assert_eq!(told(&readiness, Code::ExecutionMissing)[0].1, "elsewhere");
        assert!(readiness.ready, "{:?}", readiness.reasons);
    }

    #[test]
    fn of_a_fleet_the_oldest_are_named_and_the_others_counted() {
        let active = (0..100).map(|n| (format!("s{n}"), at(100 - n))).collect();
        let counts = Counts {
            active,
            active_count: 250,
            ..Counts::default()
        };
        let readiness = judge(&snapshot(&[], counts));
        let told = told(&readiness, Code::AnomalyActive);
        assert_eq!(told.len(), NAMED);
        assert_eq!(told[0].1, "s99");
        assert!(
            told[NAMED - 1].2.ends_with("; so it is with 230 more"),
            "{told:?}"
        );
    }
}
