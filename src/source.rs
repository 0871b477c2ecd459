//! Where samples come from: the `Source` trait and its implementations.
//!
//! A source answers one question: which rows belong to this window. It keeps no record of what was asked before, so a
//! window may be read again, late, or out of order, and the answer for the same samples is the same.
//! Deliberately absent: which windows are due, files, S3.

pub mod live;
pub mod replay;
pub mod shape;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::config::{ByteSize, Span};
use crate::signal::{Frame, RowRule, Window, timestamp};
use live::{Aggregate, Grid};
use replay::AtEnd;
use shape::{LocalClock, Long, Never, Shape, Ticks, Twice};

/// Something that holds the asset's samples.
pub trait Source: Send {
    /// The rows of `window`, chosen by `rows` and rebased to wall-clock UTC.
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError>;

    /// As [`Source::read`], with what was known at a position that an earlier reading says; what has none reads as ever.
    fn read_at(
        &mut self,
        window: &Window,
        rows: RowRule,
        position: Option<u64>,
    ) -> Result<Reading, SourceError> {
        let _ = position;
        self.read(window, rows)
    }

    /// Whether all rows of a window are here that it will be cut with, at `now`. What is recorded already is here.
    fn closed(&self, window: &Window, now: DateTime<Utc>) -> Closed {
        let _ = (window, now);
        Closed::Yes
    }

    /// Every window that ends before is shipped: what only they have rows of may go.
    fn release(&self, before: DateTime<Utc>) {
        let _ = before;
    }

    /// Hands on samples that may have come after their window was cut; `is_late` says whether they have, and counts them.
    fn late(&mut self, is_late: &mut dyn FnMut(&Late<'_>) -> bool) {
        let _ = is_late;
    }

    /// Whether it holds the present: a window is cut when it has ended, and not ahead.
    fn is_live(&self) -> bool {
        false
    }

    /// What is notified when a window may have closed that was not; never by default.
    fn news(&self) -> Option<Arc<Notify>> {
        None
    }

    /// Where it notes that a reading goes on, for those that wait for one; nothing is noted by default.
    fn progress(&self) -> Progress {
        Progress::default()
    }

    /// How many may read and cut at once of what several share; no bound by default.
    fn gate(&self) -> Option<Arc<Semaphore>> {
        None
    }
}

/// Whether a window has closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It may be cut.
    Yes,
    /// Not yet.
    Until {
        /// It may have by then, or when [`Source::news`] tells.
        time: DateTime<Utc>,
        /// It has by then in any case.
        latest: DateTime<Utc>,
        /// What is waited for, for people.
        waits: String,
    },
}

impl Closed {
    /// Not before `time`, in any case.
    pub fn until(time: DateTime<Utc>, waits: &str) -> Self {
        Self::Until {
            time,
            latest: time,
            waits: waits.to_owned(),
        }
    }
}

/// Samples that may have come after their window was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late<'a> {
    /// Start of the window.
    pub start: DateTime<Utc>,
    /// The component.
    pub component: &'a str,
    /// What a reading would have to be later than to have them.
    pub position: u64,
    /// How many they are.
    pub samples: u64,
}

/// Counts what was read, so that a reading that takes long can be told from one that hangs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Something more was read.
    pub fn made(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// All that was read so far.
    pub fn seen(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a source knows of one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// One frame per component in the tag list's order; a component without rows has an empty frame.
    pub frames: Vec<Frame>,
    /// How many rows the window has when none is missing; `None` where the sampling interval is not known.
    pub expected_rows: Option<usize>,
    /// Rows of this window that were dropped because a later one has the same time.
    pub duplicates: usize,
    /// Values of this window that are infinite, and count as missing.
    pub infinite: usize,
    /// Values of this window that are words, such as `No Data`, and count as missing.
    pub words: usize,
    /// Values of this window whose quality is bad, and that count as missing.
    pub bad: usize,
    /// Where in the journal of a live source it was read: at the same position it reads the same again.
    pub position: Option<u64>,
    /// Whether the history is over: neither this window nor a later one will ever have rows.
    pub ended: bool,
}

/// Why a source has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The samples could not be reached; the next try may succeed.
    #[error("cannot read {name}")]
    Unavailable {
        /// The file, object or server.
        name: String,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One file of several could not be reached: this window may have rows in it, others may be read.
    #[error("cannot read {name}, which may have rows of this window")]
    Held {
        /// The file.
        name: String,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The samples are not what the configuration says; an operator must act.
    #[error("{name}: {}", problems.join("; "))]
    Invalid {
        /// The file, object or server.
        name: String,
        /// Every problem found, each naming the place and the remedy.
        problems: Vec<String>,
    },
}

impl SourceError {
    /// What is wrong, with its causes.
    pub fn causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }

    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, SourceError::Invalid { .. })
    }
}

/// Which samples are fed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The history: a Parquet or CSV file, a directory of them, a pattern such as `/data/*/2026-*.parquet`, `s3://bucket/key` or
    /// `s3://bucket/prefix/`. Empty, in embedded mode: the sample plant.
    pub history: String,
    /// The older name of `source.history`.
    pub parquet: String,
    /// The tag list: a CSV with the columns Tag, UOM, Subsystem.
    pub tags: String,
    /// The name of the history's time column. Empty: the one called Timestamp, or the only one of a timestamp type.
    pub time_column: String,
    /// What the time column counts from 1970 on where it is a number: `s`, `ms`, `us` or `ns`.
    pub time_unit: String,
    /// The clock of recorded times without a zone, such as `Europe/Berlin`. Empty: UTC.
    pub time_zone: String,
    /// Which instant a local time is that comes twice, when clocks are put back.
    pub time_twice: Twice,
    /// Which instant a local time is that never was, when clocks are put forward.
    pub time_never: Never,
    /// The name of the column of tags of a long history, which has a row for each value. Empty: wide, or as found.
    pub tag_column: String,
    /// The name of its column of values.
    pub value_column: String,
    /// The name of its column of qualities, if it has one.
    pub quality_column: String,
    /// The qualities of values that count, separated by commas; a value of any other is missing.
    pub quality_good: String,
    /// Recorded time of the first window, such as `2015-11-30T23:45:00`. Empty: the last three windows of the history.
    pub start: String,
    /// What happens at the end of the history.
    pub at_end: AtEnd,
    /// The interval of the rows that are cut from inputs.
    pub grid: Grid,
    /// What a cell is of the samples of its interval.
    pub aggregate: Aggregate,
    /// How long a value stands after the last sign that its input lives.
    pub stale: Span,
    /// How far the time of a sample may be ahead of this machine's.
    pub future: Span,
    /// How long the journal keeps what inputs brought; the history that grows from it stays.
    pub keep: Span,
    /// How large the journal may become before the oldest goes.
    pub max_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            history: String::new(),
            parquet: String::new(),
            tags: String::new(),
            time_column: String::new(),
            time_unit: String::new(),
            time_zone: String::new(),
            time_twice: Twice::default(),
            time_never: Never::default(),
            tag_column: String::new(),
            value_column: String::new(),
            quality_column: String::new(),
            quality_good: "good, ok, uncertain, 192".to_owned(),
            start: String::new(),
            at_end: AtEnd::default(),
            grid: Grid::default(),
            aggregate: Aggregate::default(),
            stale: Span(Duration::from_secs(600)),
            future: Span(Duration::from_secs(60)),
            keep: Span(Duration::from_secs(7 * 24 * 3600)),
            max_bytes: ByteSize(10 << 30),
        }
    }
}

impl Config {
    /// Where the history lies, whichever name the key has.
    pub fn location(&self) -> &str {
        match self.history.is_empty() {
            true => &self.parquet,
            false => &self.history,
        }
    }

    /// The key that says so.
    pub fn location_key(&self) -> &'static str {
        match self.history.is_empty() && !self.parquet.is_empty() {
            true => "source.parquet",
            false => "source.history",
        }
    }

    /// What the history looks like. What is wrong with it [`Config::problems`] says.
    pub fn shape(&self) -> Shape {
        let clock = LocalClock::of(&self.time_zone, self.time_twice, self.time_never);
        let good = self.quality_good.split(',').map(str::trim);
        Shape {
            time: self.time_column.clone(),
            ticks: Ticks::named(&self.time_unit),
            clock: clock.unwrap_or_default(),
            long: (!self.tag_column.is_empty()).then(|| Long {
                tag: self.tag_column.clone(),
                value: self.value_column.clone(),
                quality: self.quality_column.clone(),
            }),
            good: good.map(str::to_ascii_lowercase).collect(),
        }
    }

    /// What is wrong with the values: key and problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.stale.0 < Duration::from_secs(self.grid.seconds() as u64) {
            let problem = "must be at least source.grid: a sample would not reach the end of its own interval";
            problems.push(("source.stale", problem.to_owned()));
        }
        if !self.history.is_empty() && !self.parquet.is_empty() {
            problems.push((
                "source.parquet",
                "is the older name of source.history, which is set too: take one of them out"
                    .to_owned(),
            ));
        }
        if !self.time_unit.is_empty() && Ticks::named(&self.time_unit).is_none() {
            problems.push((
                "source.time_unit",
                format!("\"{}\": expected one of s, ms, us, ns", self.time_unit),
            ));
        }
        for (key, own, other) in [
            ("source.value_column", &self.value_column, &self.tag_column),
            ("source.tag_column", &self.tag_column, &self.value_column),
            ("source.tag_column", &self.tag_column, &self.quality_column),
        ] {
            if own.is_empty() && !other.is_empty() {
                let problem = "is needed: a long history has its tags in one column and its values in another";
                problems.push((key, problem.to_owned()));
                break;
            }
        }
        if let Err(problem) = LocalClock::of(&self.time_zone, self.time_twice, self.time_never) {
            problems.push(("source.time_zone", problem));
        }
        if !self.start.is_empty()
            && let Err(problem) = recorded_time(&self.start)
        {
            problems.push(("source.start", problem));
        }
        if let Some(location) = self.location().strip_prefix("s3://")
            && !matches!(location.split_once('/'), Some((bucket, _)) if !bucket.is_empty())
        {
            problems.push((
                self.location_key(),
                format!(
                    "\"{}\": write it as s3://bucket/key, or s3://bucket/prefix/ for all files under it",
                    self.location()
                ),
            ));
        }
        problems
    }
}

/// Reads a recorded time as a person writes it, with or without fraction, as UTC microseconds.
pub fn recorded_time(text: &str) -> Result<i64, String> {
    timestamp::instant(text).map(|time| time.timestamp_micros())
}
