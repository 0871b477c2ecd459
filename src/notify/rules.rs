//! What is worth telling: facts from a snapshot and from the executions, and the message about one.
//!
//! Pure but for reading the executions through the console's eyes. A condition is a reason of `/readyz` under its code;
//! beside those, each scheduler has facts of its own: an anomaly, a failed execution, one that did not come. Names and
//! reasons come from elsewhere: they are cut to a length, and are JSON strings in a message, nothing else.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::executions::{EventRow, State};
use crate::inference::{Delivery, Failed, advice};
use crate::ops::health::{Reason, judge};
use crate::ops::site::Snapshot;
use crate::vitals::Code;

/// An anomaly: from the first anomalous window to the first normal one.
pub const EVENT: &str = "anomaly";
/// The last execution of a scheduler failed.
pub const EXECUTION_FAILED: &str = "execution-failed";
/// An execution that should have come did not.
pub const EXECUTION_MISSING: &str = "execution-missing";
/// Messages were held back, and there was nothing else to tell.
pub const HELD_BACK: &str = "held-back";
/// The kinds beside the codes of `/readyz`.
pub const KINDS: [&str; 3] = [EVENT, EXECUTION_FAILED, EXECUTION_MISSING];
/// Codes of `/readyz` that sum up what is told here of each scheduler.
const SUMS: [Code; 3] = [
    Code::AnomalyActive,
    Code::ExecutionsFailing,
    Code::ExecutionMissing,
];

/// Events that were over before anybody looked are told when they are not older than this.
pub const LOOK_BACK: TimeDelta = TimeDelta::days(1);
/// Schedulers that are looked at one by one.
const MOST: usize = 1_000;
/// Sensors of an event in a message.
const SENSORS: usize = 5;
/// A record of a time later than now by more than this was made by a clock that was ahead.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// Longest text of others in a message, in characters.
const LONGEST: usize = 1_000;

/// Something that is the case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is: a code of `/readyz` or one of [`KINDS`].
    pub kind: String,
    /// The asset; empty where that has no name, and where it is no asset's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub asset: String,
    /// What it is about: a scheduler, or nothing where it is the gateway.
    pub subject: String,
    /// Tells one anomaly of a scheduler from the next: microseconds of its start; 0 elsewhere.
    pub episode: i64,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Whether windows are not delivered as they should be.
    pub blocking: bool,
    /// In words.
    pub text: String,
    /// What to do.
    pub remedy: String,
    /// More, by kind.
    pub details: Value,
    /// Whether it is over already.
    pub over: bool,
}

/// An event that was told and is not over as far as anybody was told: scheduler and start.
pub type Told = (String, DateTime<Utc>);

/// A message as receivers get it. The order of the members is that of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Message<'a> {
    /// Unique; the same in every attempt.
    pub id: &'a str,
    /// The gateway.
    pub gateway: &'a str,
    /// What it is.
    pub kind: &'a str,
    /// The asset it is about; empty where that has no name, or it is no asset's.
    pub asset: &'a str,
    /// What it is about.
    pub subject: &'a str,
    /// `firing`, `resolved` or `test`.
    pub state: &'static str,
    /// `problem`, `attention` or `none`.
    pub severity: &'static str,
    /// Since when, UTC.
    pub since: String,
    /// When it was noticed that it is so, or that it is over, UTC.
    pub at: String,
    /// In words.
    pub text: &'a str,
    /// What to do.
    pub remedy: &'a str,
    /// More, by kind.
    pub details: &'a Value,
    /// Messages before this one that were not sent.
    pub held_back: u64,
}

/// Codes of `/readyz` that are told as they are.
pub fn conditions() -> impl Iterator<Item = &'static str> {
    Code::ALL
        .iter()
        .filter(|code| !SUMS.contains(code))
        .map(|code| code.name())
}

/// What is the case, in the order in which it came to be.
pub fn facts(
    snapshot: &Snapshot,
    state: Option<&State>,
    since: DateTime<Utc>,
    told: &[Told],
) -> anyhow::Result<Vec<Fact>> {
    let mut facts: Vec<Fact> = Vec::new();
    for reason in judge(snapshot).reasons {
        // One of a kind and subject is enough: the gravest comes first.
        let is_known = |known: &Fact| {
            known.kind == reason.code.name()
                && known.subject == reason.subject.thing
                && known.asset == reason.subject.asset
        };
        if !SUMS.contains(&reason.code) && !facts.iter().any(is_known) {
            facts.push(condition(&reason));
        }
    }
    for overdue in snapshot.overdue() {
        facts.push(Fact {
            asset: overdue.asset.name().to_owned(),
            ..missing(overdue.scheduler, overdue.since)
        });
    }
    if let Some(counts) = &snapshot.service {
        for (scheduler, since) in &counts.overdue {
            facts.push(missing(scheduler, *since));
        }
    }
    if let Some(state) = state {
        failures(state, snapshot, &mut facts)?;
        anomalies(state, since, told, snapshot.now, &mut facts)?;
    }
    for fact in facts.iter_mut().filter(|fact| fact.asset.is_empty()) {
        let kept = snapshot.assets.iter().find(|one| {
            let standing = one.watched.as_ref();
            standing.is_some_and(|standing| standing.scheduler == fact.subject)
        });
        if let Some(kept) = kept {
            fact.asset = kept.asset.name().to_owned();
        }
    }
    facts.sort_by(|a, b| (a.since, &a.kind, &a.subject).cmp(&(b.since, &b.kind, &b.subject)));
    Ok(facts)
}

/// Whether this machine may take the present for another time: an anomaly that it does not find then may last all the same.
pub fn clock_in_doubt(facts: &[Fact]) -> bool {
    let doubts = [Code::ClockSuspect, Code::ClockOffset].map(Code::name);
    facts
        .iter()
        .any(|fact| doubts.contains(&fact.kind.as_str()))
}

fn condition(reason: &Reason) -> Fact {
    Fact {
        kind: reason.code.name().to_owned(),
        asset: reason.subject.asset.clone(),
        subject: line(&reason.subject.thing, LONGEST),
        episode: 0,
        since: reason.since,
        blocking: reason.blocking,
        text: line(&reason.text, LONGEST),
        remedy: reason.remedy.clone().into_owned(),
        details: json!({}),
        over: false,
    }
}

fn missing(scheduler: &str, since: DateTime<Utc>) -> Fact {
    Fact {
        kind: EXECUTION_MISSING.into(),
        asset: String::new(),
        subject: line(scheduler, LONGEST),
        episode: 0,
        since,
        blocking: false,
        text: format!(
            "no execution of {} since {}, although it runs",
            line(scheduler, LONGEST),
            utc(since)
        ),
        remedy: "look at the log of the service; lookoutd scheduler describe says when it wakes"
            .into(),
        details: json!({}),
        over: false,
    }
}

/// How the files of a scheduler's window were delivered, where it is one of the last that an asset of this gateway fed.
fn delivery(snapshot: &Snapshot, scheduler: &str, start: DateTime<Utc>) -> Option<Delivery> {
    let feed = snapshot.fed(scheduler)?.feed.as_ref()?;
    let entry = feed.recent.iter().find(|entry| entry.start == start)?;
    Some(Delivery {
        said: entry.told(),
        shipped_at: entry.shipped_at,
    })
}

fn failures(state: &State, snapshot: &Snapshot, facts: &mut Vec<Fact>) -> anyhow::Result<()> {
    for failing in state.failing(snapshot.now, MOST)? {
        let (scheduler, execution) = (failing.scheduler, failing.last);
        let reason = line(execution.reason.as_deref().unwrap_or_default(), LONGEST);
        let delivery = delivery(snapshot, &scheduler, execution.start);
        let failed = Failed {
            reason: &reason,
            looked: execution.scheduled,
            end: execution.end,
        };
        facts.push(Fact {
            kind: EXECUTION_FAILED.into(),
            asset: String::new(),
            subject: line(&scheduler, LONGEST),
            episode: 0,
            since: execution.end,
            blocking: false,
            text: format!(
                "the execution of {} for the window that ended {} failed: {reason}",
                line(&scheduler, LONGEST),
                utc(execution.end)
            ),
            remedy: advice(&failed, delivery.as_ref()).unwrap_or_else(|| {
                "open the scheduler in the console: its history has every failure".to_owned()
            }),
            details: json!({
                "window_start": utc(execution.start),
                "window_end": utc(execution.end),
                "reason": reason,
            }),
            over: false,
        });
    }
    Ok(())
}

fn anomalies(
    state: &State,
    since: DateTime<Utc>,
    told: &[Told],
    now: DateTime<Utc>,
    facts: &mut Vec<Fact>,
) -> anyhow::Result<()> {
    for news in state.anomalies(now, since, MOST)? {
        let subject = line(&news.scheduler, LONGEST);
        let mut start = news.since.unwrap_or(now);
        for (_, earlier) in told.iter().filter(|(known, _)| *known == subject) {
            // It is of a time to come: what was read up to now says nothing of it.
            if *earlier > now {
                continue;
            }
            match state.event(&news.uuid, *earlier)? {
                // Another one has begun since.
                Some(event) if event.end < start => {
                    facts.push(anomaly(&subject, *earlier, Some(&event), true));
                }
                // The same one, whose beginning moved or was not known.
                _ => start = *earlier,
            }
        }
        // Recorded by a clock that was ahead: it is no news until its time has come.
        if start > now + AHEAD {
            continue;
        }
        facts.push(anomaly(&subject, start, news.event.as_ref(), !news.active));
    }
    Ok(())
}

fn anomaly(subject: &str, start: DateTime<Utc>, event: Option<&EventRow>, over: bool) -> Fact {
    let shares = event
        .map(|event| event.shares.as_slice())
        .unwrap_or_default();
    let sensors: Vec<_> = shares
        .iter()
        .take(SENSORS)
        .map(|(name, share)| json!({"name": line(name, LONGEST), "share": share}))
        .collect();
    let top = shares.first().map_or(String::new(), |(name, _)| {
        format!(", {} contributes most", line(name, LONGEST))
    });
    Fact {
        kind: EVENT.into(),
        asset: String::new(),
        subject: subject.to_owned(),
        episode: start.timestamp_micros(),
        since: start,
        blocking: false,
        text: format!("{subject} is anomalous since {}{top}", utc(start)),
        remedy: "somebody should look at the machine; the console shows the event, its sensors and their signals".into(),
        details: json!({
            "event_start": utc(start),
            "last_anomalous": event.map(|event| utc(event.end)),
            "sensors": sensors,
        }),
        over,
    }
}

impl Fact {
    /// What it is remembered by: schedulers have names of their own, everything else is told apart by its asset.
    pub fn key(&self) -> String {
        if self.asset.is_empty() || KINDS.contains(&self.kind.as_str()) {
            return self.subject.clone();
        }
        format!("{}\u{1f}{}", self.asset, self.subject)
    }

    /// The message about it, as JSON: that it is so, or that it is over.
    pub fn message(
        &self,
        id: &str,
        gateway: &str,
        resolved: bool,
        held_back: u64,
        now: DateTime<Utc>,
    ) -> String {
        let message = Message {
            id,
            gateway,
            kind: &self.kind,
            asset: &self.asset,
            subject: &self.subject,
            state: if resolved { "resolved" } else { "firing" },
            severity: if self.blocking {
                "problem"
            } else {
                "attention"
            },
            since: utc(self.since),
            at: utc(now),
            text: &if resolved {
                format!("over: {}", self.text)
            } else {
                self.text.clone()
            },
            remedy: if resolved { "" } else { &self.remedy },
            details: &self.details,
            held_back,
        };
        message.json()
    }
}

impl Message<'_> {
    /// As JSON, on one line.
    pub fn json(&self) -> String {
        // Strings and numbers to memory: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A message that only says that messages arrive.
pub fn test_message(id: &str, gateway: &str, now: DateTime<Utc>) -> String {
    let message = Message {
        id,
        gateway,
        kind: "test",
        asset: "",
        subject: "",
        state: "test",
        severity: "none",
        since: utc(now),
        at: utc(now),
        text: "a test of lookoutd's notifications: nothing has happened",
        remedy: "",
        details: &json!({}),
        held_back: 0,
    };
    message.json()
}

/// A message about messages that were held back.
pub fn held_back_message(id: &str, gateway: &str, count: u64, now: DateTime<Utc>) -> String {
    let message = Message {
        id,
        gateway,
        kind: HELD_BACK,
        asset: "",
        subject: "",
        state: "firing",
        severity: "attention",
        since: utc(now),
        at: utc(now),
        text: &format!(
            "{count} messages were held back (notify.per_hour): what they told of is over"
        ),
        remedy: "the console and lookoutd executions list have all of it",
        details: &json!({}),
        held_back: count,
    };
    message.json()
}

/// Text of others on one line of at most so many characters.
pub fn line(text: &str, most: usize) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most)
        .collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line.trim().to_owned()
}

fn utc(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
