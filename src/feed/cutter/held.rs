//! Windows that could not be read when they were tried, so that others have their turn meanwhile: one file that cannot be read
//! holds the windows that it could have rows of, and no others.
//!
//! Guarantees: a live window is tried at each look, one of a backlog once a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// How long a window of a backlog is left alone.
const AGAIN: Duration = Duration::from_secs(60);
/// A window that was not tried for so long is due no more.
const FORGOTTEN: Duration = Duration::from_secs(3 * 60);

/// The starts of windows that were tried, when they may be tried again, and when they were tried.
#[derive(Default)]
pub(super) struct Held(BTreeMap<DateTime<Utc>, (Instant, Instant)>);

impl Held {
    /// A window could not be read at `now`; one that is live is left alone for `look`.
    pub fn put(&mut self, start: DateTime<Utc>, live: bool, look: Duration, now: Instant) {
        let pause = if live { look } else { AGAIN };
        self.0.insert(start, (now + pause, now));
    }

    /// A window was cut.
    pub fn over(&mut self, start: DateTime<Utc>) {
        self.0.remove(&start);
    }

    /// Whether nothing is held at `now`.
    pub fn is_empty(&mut self, now: Instant) -> bool {
        self.0
            .retain(|_, (_, tried)| now.duration_since(*tried) < FORGOTTEN);
        self.0.is_empty()
    }

    /// Those that are left alone at `now`.
    pub fn alone(&self, now: Instant) -> Vec<DateTime<Utc>> {
        let held = self.0.iter().filter(|(_, (until, _))| *until > now);
        held.map(|(start, _)| *start).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_window_is_tried_at_each_look_and_one_of_a_backlog_once_a_minute() {
        let look = Duration::from_secs(5);
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let start = |minute: i64| DateTime::from_timestamp(60 * minute, 0).unwrap();
        let mut held = Held::default();
        assert!(held.is_empty(began));
        held.put(start(5), false, look, began);
        held.put(start(10), true, look, began);
        assert_eq!(held.alone(at(4)), [start(5), start(10)]);
        assert_eq!(held.alone(at(6)), [start(5)]);
        assert!(held.alone(at(61)).is_empty());
        // It could still not be read: again.
        held.put(start(5), false, look, at(61));
        assert_eq!(held.alone(at(62)), [start(5)]);
        held.over(start(5));
        assert!(!held.is_empty(at(62)));
        // The other is due no more: nobody tried it, and nobody said that it was cut.
        assert!(held.is_empty(at(200)));
    }
}
