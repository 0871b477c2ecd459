//! Events: spans of anomalous rows, by the one rule that service, archive, metrics and console share.
//!
//! Two anomalous rows belong to one event where no more than one and a half steps lie between them, so rows that jitter
//! around their grid are still neighbours and one healthy row between two on a grid parts them. What an event is, is a
//! function of its rows alone: it does not depend on how they were cut into windows. Nothing is dropped for being short;
//! who lists events says which are too short to be listed.
//!
//! The threshold alone counts by a rule of its own, see [`TRAINING_GAP`].

use serde::{Deserialize, Serialize};

/// An evaluation does not count events of fewer rows: the threshold is set so that single rows above it are chance.
pub const SHORTEST: usize = 2;
/// Runs of training rows closer than this are one event to the threshold. That is not the rule above, and stays as it is: the
/// rows it sees are those that are left of the history after labels, gaps and trimming, of which times say nothing, and it
/// belongs to what model files of format 1 are, for ever. No event that anybody is told of is made by it.
const TRAINING_GAP: usize = 3;

/// One row of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row<'a> {
    /// UTC microseconds.
    pub time: i64,
    /// It is anomalous.
    pub prediction: bool,
    /// How much it counts in the mean of the shares, above 0: `u` where it is known, else 1.
    pub weight: f64,
    /// Each sensor's share in it, in an order that does not change; may be empty where nothing is known.
    pub shares: &'a [f64],
}

/// A span of anomalous rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Time of the first anomalous row, UTC microseconds.
    pub start: i64,
    /// Time of the last anomalous row, UTC microseconds.
    pub end: i64,
    /// Its anomalous rows.
    pub rows: usize,
    /// Sum of their weights: how much was wrong for how long.
    pub weight: f64,
    /// Weighted mean of their shares, per sensor, summing to 1 where the rows' do.
    pub contributions: Vec<f64>,
}

/// Makes events of rows that come in time order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventBuilder {
    step: i64,
    open: Option<Event>,
}

/// Whether two anomalous rows, the second not before the first, belong to one event: the one rule there is.
pub const fn joins(previous: i64, next: i64, step: i64) -> bool {
    next.saturating_sub(previous) <= step.saturating_add(step / 2)
}

impl EventBuilder {
    /// A builder for rows that are `step` microseconds apart where nothing is missing.
    pub const fn new(step: i64) -> Self {
        Self { step, open: None }
    }

    /// Takes the next row in time; returns the event that can no longer grow, if one was open.
    pub fn push(&mut self, row: Row<'_>) -> Option<Event> {
        let over = self
            .open
            .as_ref()
            .is_some_and(|event| !joins(event.end, row.time, self.step));
        let closed = if over { self.finish() } else { None };
        if row.prediction {
            self.open
                .get_or_insert_with(|| Event::at(row.time))
                .take(row);
        }
        closed
    }

    /// The event that the rows so far leave open.
    pub fn finish(&mut self) -> Option<Event> {
        let mut event = self.open.take()?;
        for value in &mut event.contributions {
            *value /= event.weight.max(1e-12);
        }
        Some(event)
    }

    /// The start of the event that is open, UTC microseconds.
    pub fn open_since(&self) -> Option<i64> {
        self.open.as_ref().map(|event| event.start)
    }
}

impl Event {
    const fn at(time: i64) -> Self {
        Self {
            start: time,
            end: time,
            rows: 0,
            weight: 0.0,
            contributions: Vec::new(),
        }
    }

    fn take(&mut self, row: Row<'_>) {
        self.rows += 1;
        self.end = row.time;
        self.weight += row.weight;
        if self.contributions.len() < row.shares.len() {
            self.contributions.resize(row.shares.len(), 0.0);
        }
        for (sum, share) in self.contributions.iter_mut().zip(row.shares) {
            *sum += row.weight * share;
        }
    }
}

/// The events of rows that are at hand at once.
pub fn events<'a>(rows: impl IntoIterator<Item = Row<'a>>, step: i64) -> Vec<Event> {
    let mut builder = EventBuilder::new(step);
    let mut found: Vec<Event> = rows
        .into_iter()
        .filter_map(|row| builder.push(row))
        .collect();
    found.extend(builder.finish());
    found
}

/// How many events the threshold counts among training rows, from which labels and gaps were taken: runs with fewer than
/// three rows between them are one, those of a single row none (part of the first detector's definition, so that the same
/// history gives the same threshold for ever).
pub(super) fn training_events(predictions: impl IntoIterator<Item = bool>) -> usize {
    let mut events: Vec<(usize, usize)> = Vec::new();
    for (row, prediction) in predictions.into_iter().enumerate() {
        if !prediction {
            continue;
        }
        match events.last_mut() {
            Some((_, end)) if row - *end < TRAINING_GAP => *end = row + 1,
            _ => events.push((row, row + 1)),
        }
    }
    events.retain(|(start, end)| end - start >= SHORTEST);
    events.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const MINUTE: i64 = 60 * SECOND;

    fn bits(text: &str) -> Vec<bool> {
        text.chars().map(|c| c == '1').collect()
    }

    fn spans(rows: &[(i64, bool)], step: i64) -> Vec<(i64, i64, usize)> {
        let rows = rows.iter().map(|(time, prediction)| Row {
            time: *time,
            prediction: *prediction,
            weight: 1.0,
            shares: &[],
        });
        let found = events(rows, step);
        found
            .iter()
            .map(|event| (event.start, event.end, event.rows))
            .collect()
    }

    #[test]
    fn a_gap_of_one_and_a_half_steps_is_no_gap_and_a_longer_one_is() {
        assert!(joins(0, MINUTE, MINUTE) && joins(0, 90 * SECOND, MINUTE));
        assert!(!joins(0, 90 * SECOND + 1, MINUTE));
        assert!(!joins(i64::MIN, i64::MAX, MINUTE) && joins(0, 1, i64::MAX));
    }

    #[test]
    fn forty_minutes_of_rows_that_jitter_are_one_event() {
        let jitter = [0, 2, 1, 3, 0, 1, 2, 0, 3, 1];
        let rows: Vec<(i64, bool)> = (0..=40)
            .map(|n| (n * MINUTE - jitter[n as usize % 10] * SECOND, true))
            .collect();
        assert_eq!(spans(&rows, MINUTE), [(0, 40 * MINUTE, 41)]);
    }

    #[test]
    fn a_healthy_row_on_the_grid_parts_two_events_and_single_rows_are_events() {
        let rows: Vec<(i64, bool)> = bits("0110110001")
            .into_iter()
            .enumerate()
            .map(|(n, prediction)| (n as i64, prediction))
            .collect();
        assert_eq!(spans(&rows, 1), [(1, 2, 2), (4, 5, 2), (9, 9, 1)]);
    }

    #[test]
    fn an_event_over_a_stretch_without_rows_ends_before_it() {
        let rows = [(0, true), (1, true), (500, true)];
        assert_eq!(spans(&rows, 1), [(0, 1, 2), (500, 500, 1)]);
    }

    #[test]
    fn an_event_is_told_as_soon_as_no_row_can_join_it() {
        let row = |time, prediction| Row {
            time,
            prediction,
            weight: 2.0,
            shares: if time == 10 {
                &[0.25, 0.75]
            } else {
                &[0.75, 0.25]
            },
        };
        let mut builder = EventBuilder::new(10);
        assert_eq!(builder.push(row(10, true)), None);
        assert_eq!(builder.open_since(), Some(10));
        assert_eq!(builder.push(row(20, true)), None);
        // Half a step later something can still join.
        assert_eq!(builder.push(row(35, false)), None);
        let event = builder.push(row(36, false)).unwrap();
        assert_eq!((event.start, event.end, event.rows), (10, 20, 2));
        assert_eq!((event.weight, event.contributions), (4.0, vec![0.5, 0.5]));
        assert_eq!(builder.finish(), None);
    }

    #[test]
    fn the_threshold_counts_runs_over_two_rows_and_not_over_three() {
        assert_eq!(training_events(bits("0110010")), 1);
        assert_eq!(training_events(bits("011000110")), 2);
        assert_eq!(training_events(bits("0100010")), 0);
    }
}
