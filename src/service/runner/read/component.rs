//! What the files of one component have together: their rows, merged cell by cell, and what is missing of them.
//!
//! Files with the same sensors continue each other, and of their rows of one time the last counts; over those with other
//! sensors a value goes, and an empty cell does not, as in ingestion. What a file that was not read would have had is judged by
//! those that were.

use std::collections::HashMap;

use super::{Content, Stamps, Wanted, describe};
use crate::model::Rows;
use crate::model::events::joins;
use crate::service::runner::locate::Found;
use crate::service::store::executions::{Failed, FailureKind};
use crate::signal::Window;

/// Rows of files with the same sensors.
pub struct Run {
    /// The sensors, as positions in their component.
    pub signals: Vec<usize>,
    /// Times and a value for each of them.
    pub rows: Vec<(i64, Vec<f64>)>,
}

/// What the files of one component gave.
#[derive(Default)]
pub struct Component {
    /// Rows in the window.
    pub runs: Vec<Run>,
    /// Files of this window, or with rows of it, for people, and the sensors that they have.
    own: Vec<(String, Vec<usize>)>,
    /// What each file that was read has.
    pub seen: Vec<String>,
    /// First and last row of the files that were read, from their stamps on.
    reach: Option<(i64, i64)>,
    /// Files that were not read.
    pub unread: Vec<(Found, Failed)>,
}

impl Component {
    /// Takes what a file gave.
    pub fn saw(&mut self, file: Found, content: Content, window: Window) {
        self.seen.push(describe(&file, &content));
        if content.first_us <= content.last_us {
            let (first, last) = (
                content.first_us - file.stamp_us,
                content.last_us - file.stamp_us,
            );
            let (low, high) = self.reach.unwrap_or((first, last));
            self.reach = Some((low.min(first), high.max(last)));
        }
        let Content {
            header,
            signals,
            rows,
            ..
        } = content;
        if Stamps::of(&file, window) == Stamps::Own || !rows.is_empty() {
            let shown = format!("{} has {header}", file.key);
            self.own.push((shown, signals.clone()));
        }
        match self.runs.iter_mut().find(|run| run.signals == signals) {
            Some(run) => run.rows.extend(rows),
            None => self.runs.push(Run { signals, rows }),
        }
    }

    /// Whether no file has a row in the window.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.rows.is_empty())
    }

    /// Why the window cannot do without what is not there: a file that was not read, or a sensor that no file has.
    pub fn lacks(&self, group: &Wanted, window: Window) -> Option<Failed> {
        self.lacks_a_file(group, window)
            .or_else(|| self.lacks_a_sensor(group))
    }

    /// Rows are missing where those of a file that was not read would have been, judged by how far the files that were read
    /// reach from their stamps.
    fn lacks_a_file(&self, group: &Wanted, window: Window) -> Option<Failed> {
        if self.unread.is_empty() {
            return None;
        }
        let own = |(file, _): &&(Found, Failed)| Stamps::of(file, window) == Stamps::Own;
        let Some((low, high)) = self.reach.filter(|_| !self.is_empty()) else {
            return self.unread.iter().find(own).map(|(_, why)| why.clone());
        };
        // Sensors that lie in the same files have the same rows.
        let mut stretches = Vec::new();
        let mut known: Vec<Vec<bool>> = Vec::new();
        for signal in 0..group.signals.len() {
            let runs: Vec<bool> = self
                .runs
                .iter()
                .map(|run| run.signals.contains(&signal))
                .collect();
            if !known.contains(&runs) {
                stretches.extend(self.holes(signal, window));
                known.push(runs);
            }
        }
        let missed = self.unread.iter().find(|(file, _)| {
            let (first, last) = (file.stamp_us + low, file.stamp_us + high);
            stretches
                .iter()
                .any(|(from, to)| first < *to && *from < last)
        });
        missed.map(|(_, why)| why.clone())
    }

    /// Some files have rows, and of a sensor there is no column in any: its name is another there, or its file has not come.
    fn lacks_a_sensor(&self, group: &Wanted) -> Option<Failed> {
        let has = |signal| {
            self.own
                .iter()
                .any(|(_, signals)| signals.contains(&signal))
        };
        let absent: Vec<&str> = (0..group.signals.len())
            .filter(|signal| !has(*signal))
            .map(|signal| group.signals[signal].0.as_str())
            .collect();
        if absent.is_empty() || self.is_empty() {
            return None;
        }
        let files: Vec<&str> = self.own.iter().map(|(shown, _)| shown.as_str()).collect();
        Some(Failed::new(
            FailureKind::NoRows,
            format!(
                "sensor {} of component '{}' is no column of any of its files ({}). Header names must equal the schema's.",
                absent.join(", "),
                group.component,
                files.join("; ")
            ),
        ))
    }

    /// The stretches of the window without a row of a sensor, between the rows around them, by the sensor's own pace.
    fn holes(&self, signal: usize, window: Window) -> Vec<(i64, i64)> {
        let (start, end) = (
            window.start().timestamp_micros(),
            window.end().timestamp_micros(),
        );
        let having = self.runs.iter().filter(|run| run.signals.contains(&signal));
        let mut times: Vec<i64> = having
            .flat_map(|run| run.rows.iter().map(|(time, _)| *time))
            .collect();
        if times.is_empty() {
            return vec![(start, end + 1)];
        }
        times.sort_unstable();
        times.dedup();
        let mut paces: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        paces.sort_unstable();
        let pace = paces
            .get(paces.len() / 2)
            .copied()
            .unwrap_or(window.cadence().micros());
        let rows = times.iter().copied();
        let points: Vec<i64> = std::iter::once(start).chain(rows).chain([end]).collect();
        let ends_with_a_row = times.last() == Some(&end);
        points
            .windows(2)
            .filter(|pair| !joins(pair[0], pair[1], pace))
            .map(|pair| match pair[1] == end && !ends_with_a_row {
                // The end is part of the window, and there is no row there.
                true => (pair[0], end + 1),
                false => (pair[0], pair[1]),
            })
            .collect()
    }
}

/// Rows by time, cell by cell.
pub struct Merge {
    sensors: usize,
    index: HashMap<i64, usize>,
    values: Vec<f64>,
}

impl Merge {
    /// Nothing yet, of so many sensors.
    pub fn new(sensors: usize) -> Merge {
        Merge {
            sensors,
            index: HashMap::new(),
            values: Vec::new(),
        }
    }

    /// Puts the rows of a component's files that have the same sensors: of one instant the last, and over what another run had
    /// there where it has a value.
    pub fn put(&mut self, group: &Wanted, run: Run) {
        let mut last: HashMap<i64, usize> = HashMap::with_capacity(run.rows.len());
        for (nth, (time, _)) in run.rows.iter().enumerate() {
            last.insert(*time, nth);
        }
        for (time, nth) in last {
            let next = self.index.len();
            let row = *self.index.entry(time).or_insert(next);
            if row == next {
                self.values.resize((next + 1) * self.sensors, f64::NAN);
            }
            for (signal, value) in run.signals.iter().zip(&run.rows[nth].1) {
                let (_, column) = group.signals[*signal];
                if !value.is_nan() {
                    self.values[row * self.sensors + column] = *value;
                }
            }
        }
    }

    /// The rows, sorted.
    pub fn finish(self) -> Rows {
        let mut order: Vec<(i64, usize)> = self.index.into_iter().collect();
        order.sort_unstable();
        let mut rows = Rows {
            times: Vec::new(),
            values: Vec::with_capacity(self.values.len()),
            sensors: self.sensors,
        };
        for (time, row) in order {
            rows.times.push(time);
            rows.values
                .extend_from_slice(&self.values[row * self.sensors..(row + 1) * self.sensors]);
        }
        rows
    }
}
