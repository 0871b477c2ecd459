//! A table in a Parquet history, read through the replay source in hours of recorded time.
//!
//! Times keep their recorded values. Unsorted rows are sorted within the hour; of rows with the same time the last counts.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};

use crate::model::sensor::{Rows, Sensor};
use crate::signal::{Cadence, Component, Frame, Rebase, RowRule, TagList, Window};
use crate::source::Source;
use crate::source::replay::{Replay, column_names};
use crate::source::shape::Shape;

/// Rows per block, at least, except for the last.
const BLOCK_ROWS: usize = 1024;

/// After so many hours without a row the next row is looked for.
const EMPTY_HOURS: usize = 48;

/// The tag list that a model's sensors and the columns of a file make together.
pub fn tags_of(sensors: &[Sensor], path: &Path) -> Result<TagList> {
    let columns = column_names(path)?;
    let mut components: Vec<Component> = Vec::new();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for sensor in sensors
        .iter()
        .filter(|sensor| columns.contains(&sensor.signal))
    {
        if let Some(other) = owners.insert(&sensor.signal, &sensor.component) {
            bail!(
                "{}: its column {} may be {other}\\{} or {sensor} of the model; give the tag list (--tags), which tells",
                path.display(),
                sensor.signal,
                sensor.signal
            );
        }
        let known = components
            .iter()
            .position(|component| component.name == sensor.component);
        let at = known.unwrap_or_else(|| {
            components.push(Component {
                name: sensor.component.clone(),
                ..Component::default()
            });
            components.len() - 1
        });
        components[at].signals.push(sensor.signal.clone());
        components[at].tags.push(sensor.signal.clone());
        components[at].units.push(String::new());
    }
    if components.is_empty() {
        bail!(
            "{}: none of its {} columns is called like a sensor of the model, such as {}; is it the history of another asset?",
            path.display(),
            columns.len(),
            sensors.first().map_or("", |sensor| &sensor.signal)
        );
    }
    Ok(TagList { components })
}

/// A Parquet history that is being read.
pub struct ParquetTable {
    sensors: Vec<Sensor>,
    ignored: Vec<String>,
    infinite: u64,
    replay: Replay<File>,
    next: Window,
    last: i64,
    /// Hours without a row before `next`.
    empty: usize,
}

impl ParquetTable {
    /// Opens a history; the tag list tells its sensors.
    pub fn open(path: &Path, tags: &TagList) -> Result<Self> {
        let history = Replay::open_file(path, tags, &Shape::default())?;
        let sensor = |(component, signal): (usize, &str)| {
            Sensor::new(&tags.components[component].name, signal)
        };
        let sensors = tags.signals().map(sensor).collect();
        let (first, last) = (history.first(), history.last());
        let Some(start) = DateTime::from_timestamp_micros(first) else {
            bail!(
                "{}: its first row lies outside the years that can be written",
                path.display()
            );
        };
        let next = Window::containing(start, Cadence::Pt1h);
        let known: HashSet<&str> = tags.tags().map(|(_, tag)| tag).collect();
        let mut ignored = column_names(path)?;
        ignored.retain(|name| {
            !known.contains(name.as_str()) && !name.eq_ignore_ascii_case("timestamp")
        });
        Ok(Self {
            sensors,
            ignored,
            infinite: 0,
            replay: Replay::new(history, Rebase::once(first, first)),
            next,
            last,
            empty: 0,
        })
    }

    /// The sensors, in the tag list's order.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// Columns that the tag list does not have.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Infinite values so far.
    pub fn infinite(&self) -> u64 {
        self.infinite
    }

    /// The next block of rows.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        let mut rows = Rows {
            sensors: self.sensors.len(),
            ..Rows::default()
        };
        while rows.len() < BLOCK_ROWS && self.next.start().timestamp_micros() <= self.last {
            let reading = self.replay.read(&self.next, RowRule::Notebook)?;
            self.next = self.after(&reading.frames)?;
            let columns: Vec<_> = reading
                .frames
                .iter()
                .flat_map(|frame| &frame.columns)
                .collect();
            // Every component of a wide history has the same rows.
            let times = reading
                .frames
                .first()
                .map(|frame| frame.times.as_slice())
                .unwrap_or_default();
            for (row, time) in times.iter().enumerate() {
                rows.times.push(*time);
                rows.values.extend(columns.iter().map(|column| {
                    let value = column.values.get(row);
                    self.infinite += u64::from(value.is_infinite());
                    if value.is_infinite() { f64::NAN } else { value }
                }));
            }
        }
        Ok(if rows.is_empty() { None } else { Some(rows) })
    }

    /// The hour to read after one with these frames: the next one, or where many were empty the next that has a row.
    fn after(&mut self, frames: &[Frame]) -> Result<Window> {
        let next = self.next.next();
        let empty = frames.first().is_none_or(|frame| frame.times.is_empty());
        self.empty = if empty { self.empty + 1 } else { 0 };
        if self.empty < EMPTY_HOURS {
            return Ok(next);
        }
        self.empty = 0;
        let start = next.start().timestamp_micros();
        let row = self.replay.next_time(start)?.unwrap_or(i64::MAX);
        let row = DateTime::from_timestamp_micros(row).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Ok(Window::containing(row, Cadence::Pt1h))
    }
}
