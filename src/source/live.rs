//! A live source: the windows of one asset, from what the journal holds.
//!
//! A cell is the aggregate of the samples in the grid interval that ends at its row. Where there is none, the last value stands as long
//! as its input says that it lives, and for `stale` after its last sign of life: what is constant for hours is constant, a line that
//! is cut is empty.
//! Guarantees: the same samples give the same bytes; a window that was cut at a position of the journal is, at that position, what
//! it was, whatever has come since. A sample of a time gone by counts for its own interval and stands for no later one.
//! Deliberately absent: where samples come from; which windows are due.

mod cells;
mod closing;
mod marks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use self::cells::Cells;
pub use self::closing::Deadline;
pub use self::marks::{Arrived, Late, Marked, Marks, Passed, SECOND, Waits};
use super::{Closed, Reading, Source, SourceError};
use crate::journal::{Journal, JournalError, Position, Signal};
use crate::signal::{Asset, Cadence, Column, Frame, RowRule, TagList, Values, Window};

/// How far back the value of a signal is looked for that only says that it lives, step by step.
const BACK: [TimeDelta; 4] = [
    TimeDelta::hours(1),
    TimeDelta::hours(8),
    TimeDelta::days(2),
    TimeDelta::days(31),
];

/// The interval of rows: what the API calls a sampling rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Grid {
    /// One second.
    #[serde(rename = "PT1S")]
    Pt1s,
    /// Five seconds.
    #[serde(rename = "PT5S")]
    Pt5s,
    /// Ten seconds.
    #[serde(rename = "PT10S")]
    Pt10s,
    /// Fifteen seconds.
    #[serde(rename = "PT15S")]
    Pt15s,
    /// Thirty seconds.
    #[serde(rename = "PT30S")]
    Pt30s,
    /// One minute.
    #[default]
    #[serde(rename = "PT1M")]
    Pt1m,
    /// Five minutes.
    #[serde(rename = "PT5M")]
    Pt5m,
}

impl Grid {
    /// Its length in seconds; every cadence is a multiple of it.
    pub const fn seconds(self) -> i64 {
        match self {
            Grid::Pt1s => 1,
            Grid::Pt5s => 5,
            Grid::Pt10s => 10,
            Grid::Pt15s => 15,
            Grid::Pt30s => 30,
            Grid::Pt1m => 60,
            Grid::Pt5m => 300,
        }
    }
}

/// What a cell is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// The last sample of the interval.
    #[default]
    Last,
    /// The mean of its values.
    Mean,
    /// The least of its values.
    Min,
    /// The greatest of its values.
    Max,
}

/// How cells are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The interval of rows.
    pub grid: Grid,
    /// What a cell is made of.
    pub aggregate: Aggregate,
    /// How long a value stands after its last sign of life.
    pub stale: TimeDelta,
}

/// What a live source is made of.
pub struct Parts {
    /// Whose samples they are.
    pub asset: Asset,
    /// Its components and their signals.
    pub tags: TagList,
    /// Where its samples are.
    pub journal: Journal,
    /// How far they have come.
    pub marks: Marks,
    /// How cells are made.
    pub rules: Rules,
    /// When windows close at the latest.
    pub deadline: Deadline,
    /// When it began to run.
    pub began: DateTime<Utc>,
    /// What every asset has shipped.
    pub releases: Releases,
}

/// Up to when the windows of each asset are shipped: what the journal may let go is the least of it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Releases(Arc<Mutex<BTreeMap<Asset, i64>>>);

impl Releases {
    /// These are the assets: what is not known of one holds everything.
    pub fn of(&self, assets: &[Asset]) {
        let mut known = self.lock();
        known.retain(|asset, _| assets.contains(asset));
        for asset in assets {
            known.entry(asset.clone()).or_insert(i64::MIN);
        }
    }

    /// The windows of an asset are shipped up to `before`; up to when those of all are.
    fn shipped(&self, asset: &Asset, before: i64) -> i64 {
        let mut known = self.lock();
        if let Some(of_asset) = known.get_mut(asset) {
            *of_asset = before;
        }
        known.values().copied().min().unwrap_or(i64::MIN)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Asset, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The windows of one asset from the journal.
pub struct Live {
    journal: Journal,
    marks: Marks,
    rules: Rules,
    deadline: Deadline,
    began: DateTime<Utc>,
    asset: Asset,
    releases: Releases,
    components: Vec<Component>,
}

struct Component {
    name: String,
    columns: Vec<String>,
    signals: Vec<Signal>,
}

impl Live {
    /// A source of these parts.
    pub fn new(parts: Parts) -> Result<Self, JournalError> {
        let component = |component: &crate::signal::Component| {
            let asset = parts.asset.name();
            let signals = component.tags.iter();
            let signals = signals.map(|tag| parts.journal.signal(asset, tag));
            Ok(Component {
                name: component.name.clone(),
                columns: component.signals.clone(),
                signals: signals.collect::<Result<_, JournalError>>()?,
            })
        };
        let components = parts.tags.components.iter().map(component);
        let components = components.collect::<Result<_, JournalError>>()?;
        Ok(Self {
            components,
            journal: parts.journal,
            marks: parts.marks,
            rules: parts.rules,
            deadline: parts.deadline,
            began: parts.began,
            asset: parts.asset,
            releases: parts.releases,
        })
    }

    /// The rows of a window: every multiple of the grid in it, UTC microseconds.
    fn rows(&self, window: &Window, rows: RowRule) -> Vec<i64> {
        let (first, last) = rows.bounds(window);
        let step = self.rules.grid.seconds() * 1_000_000;
        let mut at = first + (step - first.rem_euclid(step)) % step;
        let mut times = Vec::new();
        while at <= last {
            times.push(at);
            at += step;
        }
        times
    }

    fn cells(&self, signal: Signal, rows: &[i64], upto: Position) -> Result<Cells, JournalError> {
        let step = self.rules.grid.seconds() * SECOND;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Cells::default());
        };
        let (first, last) = (first * 1_000, last * 1_000);
        let stale = self.rules.stale.num_nanoseconds().unwrap_or(i64::MAX);
        let reach = stale.max(step);
        let read = |from: i64| {
            let series = self.journal.read(&[signal], from, last + 1, upto)?;
            let samples = series.into_iter().next().map(|series| series.samples);
            Ok::<_, JournalError>(samples.unwrap_or_default())
        };
        let mut samples = read(first.saturating_sub(reach))?;
        for back in BACK {
            if !Cells::need_more(&samples, first - step) {
                break;
            }
            let back = back.num_nanoseconds().unwrap_or(i64::MAX);
            samples = read(first.saturating_sub(back.max(reach)))?;
        }
        Ok(Cells::of(&samples, rows, step, stale, self.rules.aggregate))
    }

    fn frames(
        &self,
        rows: &[i64],
        upto: Position,
    ) -> Result<(Vec<Frame>, usize, usize), JournalError> {
        let (mut bad, mut has_value) = (0, false);
        let mut frames = Vec::with_capacity(self.components.len());
        for component in &self.components {
            let mut columns = Vec::with_capacity(component.columns.len());
            for (name, signal) in component.columns.iter().zip(&component.signals) {
                let cells = self.cells(*signal, rows, upto)?;
                bad += cells.bad;
                has_value |= cells.values.iter().any(|value| !value.is_nan());
                columns.push(Column {
                    name: name.clone(),
                    values: Values::F64(cells.values),
                });
            }
            frames.push(Frame {
                component: component.name.clone(),
                times: rows.to_vec(),
                columns,
            });
        }
        if !has_value {
            for frame in &mut frames {
                frame.times.clear();
                for column in &mut frame.columns {
                    column.values = Values::F64(Vec::new());
                }
            }
        }
        Ok((frames, bad, rows.len()))
    }
}

impl Source for Live {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        self.read_at(window, rows, None)
    }

    fn read_at(
        &mut self,
        window: &Window,
        rows: RowRule,
        position: Option<u64>,
    ) -> Result<Reading, SourceError> {
        let at = position.map_or_else(|| self.journal.position(), Position::from_number);
        let times = self.rows(window, rows);
        let (frames, bad, expected) =
            self.frames(&times, at)
                .map_err(|error| SourceError::Unavailable {
                    name: "the journal".to_owned(),
                    source: Box::new(error),
                })?;
        self.marks.cut(rows.bounds(window).1.saturating_mul(1_000));
        Ok(Reading {
            frames,
            bad,
            expected_rows: Some(expected),
            position: Some(at.number()),
            ..Reading::default()
        })
    }

    fn closed(&self, window: &Window, now: DateTime<Utc>) -> Closed {
        closing::closed(&self.marks, &self.deadline, self.began, window, now)
    }

    fn release(&self, before: DateTime<Utc>) {
        let before = before.timestamp_nanos_opt().unwrap_or(i64::MIN);
        self.journal
            .release(self.releases.shipped(&self.asset, before));
    }

    fn late(&mut self, is_late: &mut dyn FnMut(&super::Late<'_>) -> bool) {
        let components = &self.components;
        self.marks.late(&mut |late| {
            let component = components.get(late.component as usize);
            let start = DateTime::from_timestamp(late.start, 0);
            let (Some(component), Some(start)) = (component, start) else {
                return false;
            };
            is_late(&super::Late {
                start,
                component: &component.name,
                position: late.position,
                samples: late.samples,
            })
        });
    }

    fn is_live(&self) -> bool {
        true
    }

    fn news(&self) -> Option<Arc<Notify>> {
        Some(self.marks.changed())
    }
}

/// Whether rows of this grid tile windows of that cadence.
pub fn fits(grid: Grid, cadence: Cadence) -> bool {
    cadence.seconds() % grid.seconds() == 0
}
