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
    /// A window could not be read; one that is live is left alone for `look`.
    pub fn put(&mut self, start: DateTime<Utc>, live: bool, look: Duration) {
        let now = Instant::now();
        let pause = if live { look } else { AGAIN };
        self.0.insert(start, (now + pause, now));
    }

    /// A window was cut.
    pub fn over(&mut self, start: DateTime<Utc>) {
        self.0.remove(&start);
    }

    /// Whether nothing is held.
    pub fn is_empty(&mut self) -> bool {
        self.0.retain(|_, (_, tried)| tried.elapsed() < FORGOTTEN);
        self.0.is_empty()
    }

    /// Those that are left alone now.
    pub fn now(&self) -> Vec<DateTime<Utc>> {
        let now = Instant::now();
        let held = self.0.iter().filter(|(_, (until, _))| *until > now);
        held.map(|(start, _)| *start).collect()
    }
}
