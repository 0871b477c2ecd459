//! What the feeder's loops last said about themselves: the store, the cutting, the clock, the uploads.
//!
//! The loops write it where they log, and health and metrics read it. What does not work it raises as a [`Trouble`]; the
//! rest is a few counters. It decides nothing, and takes every time as an argument.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Code, Trouble, Troubles};

/// A store that cannot be reached is a reason after this long; one that refuses is one at once.
const PATIENCE: TimeDelta = TimeDelta::seconds(60);

/// Shared between the loops and who watches them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    conditions: Arc<Mutex<Conditions>>,
    troubles: Troubles,
}

/// What the feeder's loops counted.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// How often the machine's clock was stepped since the start.
    pub steps: u64,
    /// The last step: when, by the clock after it, and by how many seconds.
    pub last_step: Option<(DateTime<Utc>, i64)>,
    /// How long uploads of whole windows took.
    pub uploads: Uploads,
    /// Attempts to ship a window that failed.
    pub failed_uploads: u64,
}

/// A histogram of upload times.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uploads {
    /// Counts up to each of [`Uploads::BOUNDS`], not cumulative; the last counts the rest.
    pub counts: [u64; 11],
    /// Sum of all, seconds.
    pub sum: f64,
}

impl Uploads {
    /// Upper bounds of the classes, seconds.
    pub const BOUNDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
}

impl Health {
    /// Troubles go to `troubles`.
    pub fn new(troubles: Troubles) -> Self {
        Self {
            conditions: Arc::default(),
            troubles,
        }
    }

    /// What was counted.
    pub fn now(&self) -> Conditions {
        self.lock().clone()
    }

    /// An attempt to reach the store failed; with a remedy it will go on failing until somebody does something.
    pub fn store_failed(&self, text: String, remedy: Option<&'static str>, now: DateTime<Utc>) {
        self.lock().failed_uploads += 1;
        let known = [Code::StoreRefuses, Code::StoreUnreachable]
            .into_iter()
            .filter_map(|code| self.troubles.get(code, ""))
            .map(|trouble| trouble.since)
            .min();
        let since = known.unwrap_or(now);
        self.store_works();
        self.troubles.raise(match remedy {
            Some(remedy) => Trouble::new(Code::StoreRefuses, since, text, remedy),
            None => Trouble::new(
                Code::StoreUnreachable,
                since,
                text,
                "check the network and the store; what is sealed waits in the spool and is delivered afterwards",
            )
            .after(PATIENCE),
        });
    }

    /// The store answered.
    pub fn store_works(&self) {
        self.troubles.over(Code::StoreRefuses, "");
        self.troubles.over(Code::StoreUnreachable, "");
    }

    /// A window was uploaded.
    pub fn uploaded(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let uploads = &mut self.lock().uploads;
        let class = Uploads::BOUNDS.partition_point(|bound| *bound < seconds);
        uploads.counts[class] += 1;
        uploads.sum += seconds;
    }

    /// Cutting is paused: the disk is full.
    pub fn paused(&self, text: &str, now: DateTime<Utc>) {
        self.troubles.over(Code::SourceFailing, "");
        self.troubles.raise(Trouble::new(
            Code::SpoolPaused,
            now,
            format!("cutting is paused, the disk is full: {text}"),
            "free some space in the data directory; cutting resumes by itself",
        ));
    }

    /// Cutting failed.
    pub fn cutting_failed(&self, text: &str, now: DateTime<Utc>) {
        self.troubles.over(Code::SpoolPaused, "");
        self.troubles.raise(Trouble::new(
            Code::SourceFailing,
            now,
            format!("windows cannot be cut: {text}"),
            "check the source the text names; cutting is tried again every few seconds",
        ));
    }

    /// Cutting works.
    pub fn cutting_works(&self) {
        self.troubles.over(Code::SpoolPaused, "");
        self.troubles.over(Code::SourceFailing, "");
    }

    /// The machine's clock was stepped; it shows `now` after it.
    pub fn stepped(&self, seconds: i64, now: DateTime<Utc>) {
        let mut conditions = self.lock();
        conditions.steps += 1;
        conditions.last_step = Some((now, seconds));
    }

    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.conditions
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_begins_to_refuse_keeps_the_beginning_of_its_silence() {
        let troubles = Troubles::default();
        let health = Health::new(troubles.clone());
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        health.store_failed("refused".into(), None, at(10));
        health.store_failed("access denied".into(), Some("allow it"), at(70));
        let known = troubles.now();
        assert_eq!(known.len(), 1);
        assert_eq!(
            (known[0].code, known[0].since, known[0].text.as_str()),
            (Code::StoreRefuses, at(10), "access denied")
        );
        health.store_works();
        assert!(troubles.now().is_empty());
        health.uploaded(Duration::from_millis(100));
        health.uploaded(Duration::from_secs(100));
        let uploads = health.now().uploads;
        assert_eq!((uploads.counts[1], uploads.counts[10]), (1, 1));
    }
}
