//! The intake: the only way into the journal. It judges what an input brings, scales it, counts it, and returns when it is durable.
//!
//! Guarantees: what it took is in the journal, on disk, when [`Intake::take`] returns; a batch that it does not take as a whole is not in
//! the journal at all, and may be brought again without a trace. A sample whose time is to come moves no window and is set aside
//! where somebody can see it. While this machine's clock cannot be trusted nothing is judged to be of the future, and nothing is timed
//! by its arrival: who brings such is asked to bring it again.
//! Deliberately absent: connections; how values are read from payloads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::time::Instant;
use tracing::warn;

use super::aside::Aside;
use super::health::{Counts, Figures, InputHealth, Seen, nanos};
use crate::clock::{self, Clock};
use crate::journal::{Journal, JournalError, Kind, Quality, Sample, Signal, Timed};
use crate::signal::{Asset, Scale};
use crate::source::live::{Arrived, Marks};

/// Nothing before is a time: 2000-01-01, UTC nanoseconds.
const EARLIEST: i64 = 946_684_800_000_000_000;
/// How long the clock is not trusted after a step.
const DOUBT: TimeDelta = TimeDelta::minutes(2);
/// How far apart signs of life of a tag are kept.
const ALIVE: i64 = 30_000_000_000;

/// A tag that an input brings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tag {
    /// The machine.
    pub asset: Asset,
    /// The component it is in.
    pub component: String,
    /// Its name in the plant.
    pub tag: String,
    /// Its address, as the tag list has it.
    pub address: String,
    /// Its unit.
    pub unit: String,
    /// What values are multiplied by, and what is added then; `None`: they are as they are.
    pub scale: Option<Scale>,
}

/// A sample as an input reads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raw {
    /// Whose it is: the place in [`Intake::tags`].
    pub tag: usize,
    /// When it was, UTC nanoseconds in the source's own resolution; `None`: it does not say.
    pub time: Option<i64>,
    /// Its value; NaN where it is missing.
    pub value: f64,
    /// What its source says of it; bad is missing.
    pub quality: Quality,
    /// Whose time it is; by arrival in any case where there is none.
    pub timed: Timed,
    /// It is of a time gone by and says nothing of the present.
    pub historical: bool,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Samples that are in the journal now.
    pub taken: u64,
    /// Samples that were refused, and set aside.
    pub refused: u64,
    /// Of those taken: were there already.
    pub collapsed: u64,
    /// Of those taken: fell onto one with another value.
    pub differing: u64,
}

/// Why a batch was not taken: it is not acknowledged, and brought again.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The disk is full, or nearly.
    #[error("{0}")]
    Full(String),
    /// This machine's clock cannot be trusted, and something needs it.
    #[error("this machine's clock cannot be trusted at the moment")]
    Suspect,
    /// The journal refused.
    #[error("the journal: {0}")]
    Journal(JournalError),
}

/// What is good of a batch, what is refused of it and why, and what was counted.
type Judged = (Vec<Seen>, Vec<(Raw, String)>, Counts);

impl IntakeError {
    /// How long to wait before it is brought again.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Full(_) | Self::Suspect => Duration::from_secs(5),
            Self::Journal(_) => Duration::from_secs(1),
        }
    }
}

/// What cannot be taken as samples: payloads, lines, files.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    /// Where it came from: a topic, a line, a file.
    pub from: &'a str,
    /// What is wrong with it.
    pub why: &'a str,
    /// The bytes; of long ones the beginning is kept.
    pub payload: &'a [u8],
}

/// One input's way into the journal. Cheap to clone.
#[derive(Clone)]
pub struct Intake(Arc<Inner>);

struct Inner {
    name: String,
    tags: Vec<Tag>,
    signals: Vec<Signal>,
    /// Of each tag: the asset's marks and its place there.
    marks: Vec<(Marks, usize)>,
    /// The marks of every asset that it brings something of.
    assets: Vec<Marks>,
    by_address: HashMap<String, Vec<usize>>,
    journal: Journal,
    clock: Clock,
    future: TimeDelta,
    health: InputHealth,
    aside: Aside,
    trust: Trust,
    /// The last time given by arrival.
    arrival: AtomicI64,
    /// Of each tag: its last sign of life.
    alive: Mutex<Vec<i64>>,
}

/// What an intake is made of.
pub struct Parts {
    /// The input's name.
    pub name: String,
    /// What it brings.
    pub tags: Vec<Tag>,
    /// Of each tag: the asset's marks and its place there.
    pub marks: Vec<(Marks, usize)>,
    /// Where samples go.
    pub journal: Journal,
    /// The time.
    pub clock: Clock,
    /// How far a sample's time may be ahead.
    pub future: Duration,
    /// Where what is refused is set aside.
    pub aside: PathBuf,
    /// Whether the clock can be trusted.
    pub trust: Trust,
}

impl Intake {
    /// The way in of an input.
    pub fn new(parts: Parts) -> Result<Self, JournalError> {
        let signal = |tag: &Tag| parts.journal.signal(tag.asset.name(), &tag.tag);
        let signals = parts.tags.iter().map(signal).collect::<Result<_, _>>()?;
        let mut by_address: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, tag) in parts.tags.iter().enumerate() {
            by_address.entry(tag.address.clone()).or_default().push(at);
        }
        let mut assets: Vec<Marks> = Vec::new();
        for (marks, _) in &parts.marks {
            if !assets.iter().rev().any(|known| known.is(marks)) {
                assets.push(marks.clone());
            }
        }
        let health = InputHealth::new(parts.tags.len(), parts.clock.now());
        Ok(Self(Arc::new(Inner {
            signals,
            assets,
            by_address,
            health,
            alive: Mutex::new(vec![i64::MIN; parts.tags.len()]),
            name: parts.name,
            tags: parts.tags,
            marks: parts.marks,
            journal: parts.journal,
            clock: parts.clock,
            future: TimeDelta::from_std(parts.future).unwrap_or(TimeDelta::MAX),
            aside: Aside::at(parts.aside),
            trust: parts.trust,
            arrival: AtomicI64::new(i64::MIN),
        })))
    }

    /// The input's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The tags that it brings.
    pub fn tags(&self) -> &[Tag] {
        &self.0.tags
    }

    /// Which tags have this address: places in [`Intake::tags`].
    pub fn at(&self, address: &str) -> &[usize] {
        self.0.by_address.get(address).map_or(&[], Vec::as_slice)
    }

    /// How the input is.
    pub fn health(&self) -> &InputHealth {
        &self.0.health
    }

    /// What is counted of it.
    pub fn figures(&self) -> Figures {
        let late = self
            .0
            .assets
            .iter()
            .map(|marks| marks.late_of(&self.0.name));
        Figures {
            late: late.sum(),
            ..self.0.health.figures(self.0.clock.now())
        }
    }

    /// The connection is made, and samples may come.
    pub fn connected(&self) {
        let now = self.0.clock.now();
        self.0.health.connected(now);
        for marks in &self.0.assets {
            if let Some(input) = marks.input(&self.0.name) {
                marks.connected(input, nanos(now));
            }
        }
    }

    /// The connection is lost, or could not be made.
    pub fn parted(&self, why: &str) {
        self.0.health.parted(why, self.0.clock.now());
    }

    /// Something is wrong though the input is connected; `None`: it is not any more.
    pub fn remark(&self, about: &str, text: Option<String>) {
        self.0.health.remark(about, text, self.0.clock.now());
    }

    /// Takes a batch: what of it can be is in the journal and durable when this returns, the rest is refused and set aside. With an
    /// error nothing of it is taken, and it is brought again.
    pub async fn take(&self, batch: Vec<Raw>) -> Result<Taken, IntakeError> {
        let now = self.0.clock.now();
        let (seen, refused, mut counts) = self.judge(&batch, now)?;
        self.set_aside(&refused, now)?;
        let mut taken = Taken {
            refused: refused.len() as u64,
            ..Taken::default()
        };
        if !seen.is_empty() {
            let samples = seen.iter().map(|seen| Sample {
                signal: self.0.signals[seen.tag],
                time: seen.time,
                value: seen.value,
                quality: seen.quality,
                timed: seen.timed,
                historical: seen.historical,
                kind: Kind::Value,
            });
            let receipt = self.append(samples.collect()).await?;
            (counts.collapsed, counts.differing) = (receipt.collapsed, receipt.differing);
            self.mark(&seen, receipt.position.number(), now);
            taken.taken = seen.len() as u64;
            (taken.collapsed, taken.differing) = (receipt.collapsed, receipt.differing);
        }
        self.0.health.took(&seen, &counts, now);
        Ok(taken)
    }

    /// These tags live, and their values are what they were: a keep-alive of their subscription, or of the node they are on.
    pub async fn alive(&self, tags: &[usize]) -> Result<(), IntakeError> {
        let now = self.0.clock.now();
        if self.0.trust.is_suspect(&self.0.clock) {
            return Ok(());
        }
        let time = nanos(now);
        let due: Vec<usize> = {
            let mut known = self.0.alive.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = |tag: &&usize| {
                let known = known.get(**tag);
                known.is_some_and(|known| time.saturating_sub(*known) >= ALIVE)
            };
            let due = tags.iter().filter(is_due).copied().collect::<Vec<_>>();
            for tag in &due {
                known[*tag] = time;
            }
            due
        };
        if due.is_empty() {
            return Ok(());
        }
        let samples = due.iter().map(|tag| Sample {
            signal: self.0.signals[*tag],
            time,
            value: f64::NAN,
            quality: Quality::Good,
            timed: Timed::Arrival,
            historical: false,
            kind: Kind::Alive,
        });
        let receipt = self.append(samples.collect()).await?;
        let position = receipt.position.number();
        for tag in due {
            let (marks, place) = &self.0.marks[tag];
            let arrived = Arrived {
                tag: *place,
                time,
                live: true,
                is_value: false,
            };
            marks.took(&[arrived], position, time);
        }
        Ok(())
    }

    /// Sets aside what cannot be read as samples, and counts it: that is an acknowledgement too.
    pub fn refuse(&self, refusal: &Refusal<'_>) -> Result<(), IntakeError> {
        let now = self.0.clock.now();
        self.0.health.unreadable(1);
        let kept = self.0.aside.payload(refusal, now);
        kept.map_err(|error| IntakeError::Full(error.to_string()))
    }

    /// What is good of a batch, what is refused of it, and what was counted.
    fn judge(&self, batch: &[Raw], now: DateTime<Utc>) -> Result<Judged, IntakeError> {
        let suspect = self.0.trust.is_suspect(&self.0.clock);
        let limit = nanos(now + self.0.future);
        let (mut seen, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
        let mut counts = Counts::default();
        for raw in batch {
            if raw.tag >= self.0.tags.len() {
                continue;
            }
            let (time, timed) = match (raw.time, raw.timed) {
                (Some(time), Timed::Arrival) => (time, Timed::Source),
                (Some(time), timed) => (time, timed),
                (None, _) if suspect => return Err(IntakeError::Suspect),
                (None, _) => (self.arrives(now), Timed::Arrival),
            };
            if time < EARLIEST {
                counts.ancient += 1;
                refused.push((*raw, "its time is before the year 2000".to_owned()));
                continue;
            }
            if time > limit {
                if suspect {
                    return Err(IntakeError::Suspect);
                }
                let ahead = (time - nanos(now)) as f64 / 1e9;
                counts.future += 1;
                counts.ahead = Some(counts.ahead.map_or(ahead, |known| known.max(ahead)));
                refused.push((*raw, format!("its time is {ahead:.0} s ahead")));
                continue;
            }
            seen.push(Seen {
                tag: raw.tag,
                time,
                value: self.value(raw, &mut counts),
                quality: raw.quality,
                timed,
                historical: raw.historical,
            });
        }
        Ok((seen, refused, counts))
    }

    fn value(&self, raw: &Raw, counts: &mut Counts) -> f64 {
        match raw.quality {
            Quality::Bad => {
                counts.bad += 1;
                return f64::NAN;
            }
            Quality::Uncertain => counts.uncertain += 1,
            Quality::Good => {}
        }
        let value = match self.0.tags[raw.tag].scale {
            Some(scale) => raw.value * scale.factor + scale.offset,
            None => raw.value,
        };
        if value.is_infinite() {
            counts.infinite += 1;
            return f64::NAN;
        }
        value
    }

    /// A time of arrival that no other sample of this input has.
    fn arrives(&self, now: DateTime<Utc>) -> i64 {
        let now = nanos(now);
        let next = |last: i64| Some(now.max(last.saturating_add(1)));
        let last = self
            .0
            .arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(last.unwrap_or(now).saturating_add(1))
    }

    fn set_aside(&self, refused: &[(Raw, String)], now: DateTime<Utc>) -> Result<(), IntakeError> {
        if refused.is_empty() {
            return Ok(());
        }
        let samples = refused
            .iter()
            .map(|(raw, why)| (&self.0.tags[raw.tag], raw, why.as_str()));
        let kept = self.0.aside.samples(samples, now);
        kept.map_err(|error| IntakeError::Full(error.to_string()))
    }

    async fn append(&self, samples: Vec<Sample>) -> Result<crate::journal::Receipt, IntakeError> {
        let appended = self.0.journal.append(samples).await;
        let now = self.0.clock.now();
        let failed = appended.as_ref().err().map(ToString::to_string);
        self.0.health.journal(failed, now);
        appended.map_err(|error| match error {
            JournalError::Full { .. } => IntakeError::Full(error.to_string()),
            error => IntakeError::Journal(error),
        })
    }

    /// Tells the assets how far they have come.
    fn mark(&self, seen: &[Seen], position: u64, now: DateTime<Utc>) {
        let mut at = 0;
        let mut arrived = Vec::new();
        while at < seen.len() {
            let (marks, _) = &self.0.marks[seen[at].tag];
            arrived.clear();
            while let Some(sample) = seen.get(at) {
                let (of, place) = &self.0.marks[sample.tag];
                if !of.is(marks) {
                    break;
                }
                arrived.push(Arrived {
                    tag: *place,
                    time: sample.time,
                    live: !sample.historical,
                    is_value: true,
                });
                at += 1;
            }
            marks.took(&arrived, position, nanos(now));
        }
    }
}

/// Whether this machine's clock can be trusted: it is set, nobody said that it differs, and it was not stepped of late. Cheap to clone,
/// one for all inputs.
#[derive(Clone)]
pub struct Trust(Arc<TrustInner>);

struct TrustInner {
    /// A step that is shorter is none.
    step: TimeDelta,
    /// Whether somebody else doubts it.
    doubted: Box<dyn Fn() -> bool + Send + Sync>,
    seen: Mutex<(DateTime<Utc>, Instant, Option<DateTime<Utc>>)>,
}

impl Trust {
    /// A clock is doubted where it is stepped by `step`, and where `doubted` says so.
    pub fn new(
        clock: &Clock,
        step: Duration,
        doubted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(TrustInner {
            step: TimeDelta::from_std(step).unwrap_or(TimeDelta::MAX),
            doubted: Box::new(doubted),
            seen: Mutex::new((clock.now(), Instant::now(), None)),
        }))
    }

    /// Whether it cannot be trusted now.
    pub fn is_suspect(&self, clock: &Clock) -> bool {
        let now = clock.now();
        !clock::is_set(now) || self.was_stepped(clock, now) || (self.0.doubted)()
    }

    fn was_stepped(&self, clock: &Clock, now: DateTime<Utc>) -> bool {
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, mono, until) = *seen;
        let speed = clock.speed();
        // One that is set by hand only ever steps, and says nothing by it.
        if speed <= 0.0 {
            return false;
        }
        let passed = TimeDelta::from_std(mono.elapsed().mul_f64(speed)).unwrap_or_default();
        let step = (now - wall) - passed;
        // The two are not read at one instant, which a fast clock makes long.
        let noise = TimeDelta::milliseconds((2_000.0 * speed.max(1.0)) as i64);
        let until = match step.abs() > self.0.step.max(noise) {
            true => {
                warn!(
                    seconds = step.num_seconds(),
                    now = now.to_rfc3339_opts(SecondsFormat::Secs, true),
                    "the clock was stepped: for two minutes nothing is judged by it"
                );
                Some(now + DOUBT)
            }
            false => until,
        };
        *seen = (now, Instant::now(), until);
        until.is_some_and(|until| now < until && now + DOUBT + DOUBT > until)
    }
}
