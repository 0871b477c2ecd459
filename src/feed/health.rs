//! What the loops of the feed last said about themselves: the store, the cutting, the clock, the uploads.
//!
//! The loops write it where they log, and health and metrics read it. It holds the present and a few counters, decides
//! nothing, and takes every time as an argument.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};

/// Shared between the loops and who watches them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Conditions>>);

/// The present state of the loops.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Uploads fail.
    pub store: Option<Trouble>,
    /// Cutting is paused because the disk is full.
    pub paused: Option<Trouble>,
    /// Cutting fails: the source, the spool or the ledger.
    pub cutting: Option<Trouble>,
    /// How often the machine's clock was stepped since the start.
    pub steps: u64,
    /// The last step: when, by the clock after it, and by how many seconds.
    pub last_step: Option<(DateTime<Utc>, i64)>,
    /// How long uploads of whole windows took.
    pub uploads: Uploads,
    /// Attempts to ship a window that failed.
    pub failed_uploads: u64,
}

/// Something that does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: DateTime<Utc>,
    /// What was said.
    pub text: String,
    /// What somebody must do; `None` where it is expected to pass.
    pub remedy: Option<&'static str>,
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
    /// The present state.
    pub fn now(&self) -> Conditions {
        self.lock().clone()
    }

    /// An attempt to reach the store failed.
    pub fn store_failed(&self, text: String, remedy: Option<&'static str>, now: DateTime<Utc>) {
        let mut conditions = self.lock();
        conditions.failed_uploads += 1;
        renew(&mut conditions.store, text, remedy, now);
    }

    /// The store answered.
    pub fn store_works(&self) {
        self.lock().store = None;
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
        let mut conditions = self.lock();
        conditions.cutting = None;
        renew(
            &mut conditions.paused,
            text.to_owned(),
            Some("free some space; cutting resumes by itself"),
            now,
        );
    }

    /// Cutting failed.
    pub fn cutting_failed(&self, text: &str, now: DateTime<Utc>) {
        let mut conditions = self.lock();
        conditions.paused = None;
        renew(&mut conditions.cutting, text.to_owned(), None, now);
    }

    /// Cutting works.
    pub fn cutting_works(&self) {
        let mut conditions = self.lock();
        conditions.paused = None;
        conditions.cutting = None;
    }

    /// The machine's clock was stepped; it shows `now` after it.
    pub fn stepped(&self, seconds: i64, now: DateTime<Utc>) {
        let mut conditions = self.lock();
        conditions.steps += 1;
        conditions.last_step = Some((now, seconds));
    }

    fn lock(&self) -> MutexGuard<'_, Conditions> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A trouble that goes on keeps its beginning.
fn renew(
    slot: &mut Option<Trouble>,
    text: String,
    remedy: Option<&'static str>,
    now: DateTime<Utc>,
) {
    let since = slot.as_ref().map_or(now, |known| known.since);
    *slot = Some(Trouble {
        since,
        text,
        remedy,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_keeps_its_beginning_and_takes_the_latest_words() {
        let health = Health::default();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        health.store_failed("refused".into(), None, at(10));
        health.store_failed("access denied".into(), Some("allow it"), at(70));
        let trouble = health.now().store.unwrap();
        assert_eq!(
            (trouble.since, trouble.text.as_str()),
            (at(10), "access denied")
        );
        health.store_works();
        assert_eq!(health.now().store, None);
        health.uploaded(Duration::from_millis(100));
        health.uploaded(Duration::from_secs(100));
        let uploads = health.now().uploads;
        assert_eq!((uploads.counts[1], uploads.counts[10]), (1, 1));
    }
}
