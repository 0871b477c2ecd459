//! Events: contiguous anomalous spans of predictions.
//!
//! Runs of prediction 1 are joined where fewer than three rows lie between them; an event of a single row is dropped.
//! The tracker works row by row, so an event can grow across windows; it can be stored between them.

use serde::{Deserialize, Serialize};

use super::Scored;

/// Runs closer than this many rows are one event.
pub const GAP: usize = 3;
/// Shorter events are dropped.
pub const SHORTEST: usize = 2;

/// A closed anomalous span.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Time of the first anomalous row, UTC microseconds.
    pub start: i64,
    /// Time of the last anomalous row, UTC microseconds.
    pub end: i64,
    /// Rows from the first to the last.
    pub rows: usize,
    /// Sum of `u` over the anomalous rows: how much was wrong for how long.
    pub weight: f64,
    /// Mean contributions over the anomalous rows weighted by `u`, per sensor, summing to 1.
    pub contributions: Vec<f64>,
}

/// Turns scored rows into events, one at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventTracker {
    open: Option<Event>,
    quiet: usize,
}

impl EventTracker {
    /// Takes the next row in time; returns the event that it closed, if any.
    pub fn push(&mut self, row: &Scored) -> Option<Event> {
        if !row.prediction {
            self.quiet += 1;
            return if self.quiet >= GAP {
                self.finish()
            } else {
                None
            };
        }
        let event = self.open.get_or_insert_with(|| Event {
            start: row.time,
            end: row.time,
            rows: 0,
            weight: 0.0,
            contributions: vec![0.0; row.contributions.len()],
        });
        event.rows += if event.rows == 0 { 1 } else { self.quiet + 1 };
        event.end = row.time;
        event.weight += row.u;
        for (sum, contribution) in event.contributions.iter_mut().zip(&row.contributions) {
            *sum += row.u * contribution;
        }
        self.quiet = 0;
        None
    }

    /// Closes the open event, if it is long enough to count.
    pub fn finish(&mut self) -> Option<Event> {
        self.quiet = 0;
        let mut event = self.open.take()?;
        if event.rows < SHORTEST {
            return None;
        }
        let total: f64 = event.contributions.iter().sum();
        for value in &mut event.contributions {
            *value /= total.max(1e-12);
        }
        Some(event)
    }

    /// The start of the event that is open, UTC microseconds.
    pub fn open_since(&self) -> Option<i64> {
        self.open.as_ref().map(|event| event.start)
    }
}

/// The events in a sequence of predictions as `start..end` row indices.
pub fn runs(predictions: impl IntoIterator<Item = bool>) -> Vec<(usize, usize)> {
    let mut events: Vec<(usize, usize)> = Vec::new();
    for (row, prediction) in predictions.into_iter().enumerate() {
        if !prediction {
            continue;
        }
        match events.last_mut() {
            Some((_, end)) if row - *end < GAP => *end = row + 1,
            _ => events.push((row, row + 1)),
        }
    }
    events.retain(|(start, end)| end - start >= SHORTEST);
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reason;

    fn bits(text: &str) -> Vec<bool> {
        text.chars().map(|c| c == '1').collect()
    }

    #[test]
    fn runs_join_over_two_rows_and_not_over_three() {
        assert_eq!(runs(bits("0110010")), vec![(1, 6)]);
        assert_eq!(runs(bits("011000110")), vec![(1, 3), (6, 8)]);
        assert_eq!(runs(bits("0100010")), vec![]);
    }

    #[test]
    fn the_tracker_finds_the_events_that_runs_finds() {
        for pattern in [
            "0110010",
            "011000110",
            "0100010",
            "1100111",
            "1",
            "11",
            "1001",
            "0101010001",
            "111000",
        ] {
            let predictions = bits(pattern);
            let mut tracker = EventTracker::default();
            let mut found = Vec::new();
            for (row, prediction) in predictions.iter().enumerate() {
                let row = Scored {
                    time: row as i64,
                    u: 2.0,
                    anomaly_score: 0.6,
                    prediction: *prediction,
                    reason: Reason::AnomalyDetected,
                    contributions: vec![0.25, 0.75],
                };
                found.extend(tracker.push(&row));
            }
            found.extend(tracker.finish());
            let spans: Vec<_> = found
                .iter()
                .map(|event| (event.start as usize, event.end as usize + 1))
                .collect();
            assert_eq!(spans, runs(predictions), "{pattern}");
            assert!(
                found
                    .iter()
                    .all(|event| (event.contributions[1] - 0.75).abs() < 1e-12)
            );
            assert!(
                found
                    .iter()
                    .all(|event| event.rows as i64 == event.end - event.start + 1)
            );
        }
    }
}
