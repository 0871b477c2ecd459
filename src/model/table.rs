//! Recorded history as blocks of rows for training and evaluation, and its labels.
//!
//! A history is read as everything reads it (see `source::replay`): a Parquet or CSV file, a directory or a pattern, wide or long.
//! Blocks come in time order, every time once, in hours of recorded time; a table is read once from first to last and never
//! held whole.

mod listed;

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};

use self::listed::Files;
use super::labels;
use super::sensor::{Rows, Sensor, Span};
use crate::signal::{Cadence, Frame, Mapping, Rebase, RowRule, TagList, Window};
use crate::source::replay::{Follow, LocalFiles, follow};
use crate::source::shape::Shape;
use crate::source::{Progress, Source};

/// Rows per block, at least, except for the last.
const BLOCK_ROWS: usize = 1024;
/// After so many hours without a row the next row is looked for.
const EMPTY_HOURS: usize = 48;

/// A table that is being read, block by block.
pub struct Table {
    sensors: Vec<Sensor>,
    ignored: Vec<String>,
    infinite: u64,
    words: u64,
    bad: u64,
    source: Follow<LocalFiles>,
    next: Window,
    last: i64,
    /// Hours without a row before `next`.
    empty: usize,
}

impl Table {
    /// Opens a table. A CSV can do without a tag list: the names of its columns tell the components.
    pub fn open(place: &Path, tags: Option<&TagList>, shape: &Shape) -> Result<Self> {
        let files = Files::at(place)?;
        let list = match (files.parquet(), tags) {
            (None, tags) => files.of_csv(tags, shape)?,
            (Some(_), Some(tags)) => tags.clone(),
            (Some(parquet), None) => bail!(
                "{} is a Parquet file; give its tag list (--tags), which tells the components",
                parquet.display()
            ),
        };
        Self::of(place, &files, &list, shape)
    }

    /// Opens the table that a model with these sensors is to score. Without a tag list, the columns of Parquet files that are
    /// called like a sensor are that sensor; one that could be a sensor of two components is refused.
    pub fn open_for(
        sensors: &[Sensor],
        place: &Path,
        tags: Option<&TagList>,
        shape: &Shape,
    ) -> Result<Self> {
        let files = Files::at(place)?;
        if tags.is_some() || files.parquet().is_none() {
            return Self::open(place, tags, shape);
        }
        let list = listed::of_sensors(sensors, place, &files.columns(shape)?)?;
        Self::of(place, &files, &list, shape)
    }

    fn of(place: &Path, files: &Files, tags: &TagList, shape: &Shape) -> Result<Self> {
        let opened = follow::open(
            LocalFiles::at(place),
            tags,
            shape,
            &Progress::default(),
            None,
        )?;
        let sensor = |(component, signal): (usize, &str)| {
            Sensor::new(&tags.components[component].name, signal)
        };
        let sensors = tags.signals().map(sensor).collect();
        let (first, last) = (opened.extent().first(), opened.extent().last());
        let Some(start) = DateTime::from_timestamp_micros(first) else {
            bail!(
                "{}: its first row lies outside the years that can be written",
                place.display()
            );
        };
        let known: HashSet<&str> = tags.tags().map(|(_, tag)| tag).collect();
        let mut ignored = files.columns(shape)?;
        // The columns of a long history are none of signals.
        match ignored.iter().any(|name| known.contains(name.as_str())) {
            true => ignored.retain(|name| !known.contains(name.as_str())),
            false => ignored.clear(),
        }
        let mapping = Mapping::new(Rebase::once(first, first));
        let nothing_to_keep = Box::new(|_: &Mapping| Ok(()));
        Ok(Self {
            sensors,
            ignored,
            infinite: 0,
            words: 0,
            bad: 0,
            source: Follow::new(opened, mapping, Cadence::Pt1h, nothing_to_keep).as_it_is(),
            next: Window::containing(start, Cadence::Pt1h),
            last,
            empty: 0,
        })
    }

    /// Columns of the file that the tag list does not have: they are left out.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Infinite values so far; each is read as missing.
    pub fn infinite(&self) -> u64 {
        self.infinite
    }

    /// Words instead of values so far; each is read as missing.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// Values of bad quality so far; each is read as missing.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// The sensors, in the order of the tag list, or of the columns of a CSV.
    pub fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// The next block of rows, sorted and unique in time across blocks; none at the end.
    pub fn next_block(&mut self) -> Result<Option<Rows>> {
        let mut rows = Rows {
            sensors: self.sensors.len(),
            ..Rows::default()
        };
        while rows.len() < BLOCK_ROWS && self.next.start().timestamp_micros() <= self.last {
            let reading = self.source.read(&self.next, RowRule::Notebook)?;
            self.next = self.after(&reading.frames)?;
            self.infinite += reading.infinite as u64;
            self.words += reading.words as u64;
            self.bad += reading.bad as u64;
            let columns: Vec<_> = reading
                .frames
                .iter()
                .flat_map(|frame| &frame.columns)
                .collect();
            // Every component has the same rows.
            let times = reading
                .frames
                .first()
                .map(|frame| frame.times.as_slice())
                .unwrap_or_default();
            for (row, time) in times.iter().enumerate() {
                rows.times.push(*time);
                rows.values.extend(columns.iter().map(|column| {
                    let value = column.values.get(row);
                    if value.is_finite() { value } else { f64::NAN }
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
        let row = self.source.next_time(start)?.unwrap_or(i64::MAX);
        let row = DateTime::from_timestamp_micros(row).unwrap_or(DateTime::<Utc>::MAX_UTC);
        Ok(Window::containing(row, Cadence::Pt1h))
    }
}

/// Reads a file of labels, see [`labels::read`]; one without any is not what was meant.
pub fn read_labels(path: &Path) -> Result<Vec<Span>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let labels = labels::read(file).with_context(|| path.display().to_string())?;
    if labels.is_empty() {
        bail!(
            "there is no label in {}: expected a line start,end for each; leave --labels out where there are none",
            path.display()
        );
    }
    Ok(labels)
}

#[cfg(test)]
mod tests;
