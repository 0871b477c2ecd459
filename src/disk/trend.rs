//! How fast a disk fills, from notes that are taken now and then.
//!
//! It knows levels and times alone: what counts as used, and what is left, is for those who ask.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

/// How often a level is noted, how many notes are kept, and over how long they must reach.
const NOTE_EVERY: TimeDelta = TimeDelta::minutes(10);
const NOTES: usize = 144;
const LEAST: TimeDelta = TimeDelta::hours(1);

/// A level that goes up while a disk fills.
#[derive(Debug, Default)]
pub struct Trend(VecDeque<(DateTime<Utc>, i128)>);

impl Trend {
    /// Days until `left` bytes are used up, from how `level` went up since the oldest note; `None` while it does not, or before
    /// there is an hour of notes.
    pub fn forecast(&mut self, now: DateTime<Utc>, level: i128, left: u64) -> Option<f64> {
        // A clock that went back makes older notes useless.
        self.0.retain(|(at, _)| *at <= now);
        if self.0.back().is_none_or(|(at, _)| now - *at >= NOTE_EVERY) {
            if self.0.len() == NOTES {
                self.0.pop_front();
            }
            self.0.push_back((now, level));
        }
        let (since, before) = *self.0.front()?;
        let passed = now - since;
        if passed < LEAST || level <= before {
            return None;
        }
        let a_day = (level - before) as f64 / passed.as_seconds_f64() * 86_400.0;
        Some(left as f64 / a_day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIGABYTE: u64 = 1_000_000_000;

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(minutes * 60, 0).unwrap()
    }

    #[test]
    fn a_disk_that_fills_is_forecast_and_a_steady_one_is_not() {
        let mut trend = Trend::default();
        let mut note = |minutes, used: u64, left: u64| {
            trend.forecast(at(minutes), i128::from(used * GIGABYTE), left * GIGABYTE)
        };
        assert_eq!(note(0, 1, 9), None);
        assert_eq!(note(30, 2, 8), None);
        // Two in two hours: eight are gone in eight.
        let days = note(120, 3, 8);
        assert!((days.unwrap() - 8.0 / 24.0).abs() < 1e-9, "{days:?}");
        assert_eq!(note(180, 1, 10), None);
    }

    #[test]
    fn what_is_free_may_be_the_level_as_well_and_a_clock_that_went_back_begins_anew() {
        let mut trend = Trend::default();
        let mut note = |minutes, free: u64| {
            let level = -i128::from(free * GIGABYTE);
            trend.forecast(at(minutes), level, (free - 1) * GIGABYTE)
        };
        assert_eq!(note(600, 10), None);
        // One gigabyte an hour, eight left of which one is kept free.
        let days = note(720, 8);
        assert!((days.unwrap() - 7.0 / 24.0).abs() < 1e-9, "{days:?}");
        assert_eq!(note(300, 8), None);
    }
}
