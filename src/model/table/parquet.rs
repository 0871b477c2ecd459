//! A table in a Parquet history, read through the replay source in hours of recorded time.
//!
//! Times keep their recorded values. Unsorted rows are sorted within the hour; of rows with the same time the last counts.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, bail};
use chrono::DateTime;

use crate::model::sensor::{Rows, Sensor};
use crate::signal::{Cadence, Rebase, RowRule, TagList, Window};
use crate::source::Source;
use crate::source::replay::Replay;

/// Rows per block, at least, except for the last.
const BLOCK_ROWS: usize = 1024;

/// A Parquet history that is being read.
pub struct ParquetTable {
    sensors: Vec<Sensor>,
    replay: Replay<File>,
    next: Window,
    last: i64,
}

impl ParquetTable {
    /// Opens a history; the tag list tells its sensors.
    pub fn open(path: &Path, tags: &TagList) -> Result<Self> {
        let history = Replay::open_file(path, tags)?;
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
        Ok(Self {
            sensors,
            replay: Replay::new(history, Rebase::once(first, first)),
            next,
            last,
        })
    }

    /// The sensors, in the tag list's order.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// The next block of rows.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        let mut rows = Rows {
            sensors: self.sensors.len(),
            ..Rows::default()
        };
        while rows.len() < BLOCK_ROWS && self.next.start().timestamp_micros() <= self.last {
            let reading = self.replay.read(&self.next, RowRule::Notebook)?;
            self.next = self.next.next();
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
                rows.values
                    .extend(columns.iter().map(|column| column.values.get(row)));
            }
        }
        Ok(if rows.is_empty() { None } else { Some(rows) })
    }
}
