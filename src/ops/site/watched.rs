//! How the inference schedulers stand that this gateway keeps, as whoever asks the API writes it down.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

/// What was last learned of the inference scheduler that this gateway keeps. Written by whoever asks the API.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<Option<Standing>>>);

/// How a scheduler stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub scheduler: String,
    /// PENDING, RUNNING, STOPPING, STOPPED; `None`: the API knows no such scheduler.
    pub status: Option<String>,
    /// What should be: RUNNING or STOPPED.
    pub wanted: &'static str,
    /// Why the API could not be asked, if the last attempt failed.
    pub failure: Option<String>,
    /// Since when it stands so.
    pub since: DateTime<Utc>,
}

impl Watched {
    /// The API was asked: the scheduler has this status, or there is none.
    pub fn seen(
        &self,
        scheduler: &str,
        status: Option<&str>,
        wanted: &'static str,
        now: DateTime<Utc>,
    ) {
        self.put(Standing {
            scheduler: scheduler.to_owned(),
            status: status.map(str::to_owned),
            wanted,
            failure: None,
            since: now,
        });
    }

    /// The API could not be asked.
    pub fn failed(&self, scheduler: &str, text: String, now: DateTime<Utc>) {
        let known = self.read();
        self.put(Standing {
            scheduler: scheduler.to_owned(),
            status: known.as_ref().and_then(|known| known.status.clone()),
            wanted: known.map_or("RUNNING", |known| known.wanted),
            failure: Some(text),
            since: now,
        });
    }

    /// What is known.
    pub fn read(&self) -> Option<Standing> {
        self.lock().clone()
    }

    fn put(&self, mut standing: Standing) {
        let mut slot = self.lock();
        if let Some(known) = slot.as_ref()
            && known.status == standing.status
            && known.failure.is_some() == standing.failure.is_some()
        {
            // One that was noted by a clock that was ahead lasts from now on at the latest.
            standing.since = known.since.min(standing.since);
        }
        *slot = Some(standing);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Standing>> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_keeps_its_beginning_while_it_lasts() {
        let watched = Watched::default();
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        watched.seen("s", Some("RUNNING"), "RUNNING", at(0));
        watched.seen("s", None, "RUNNING", at(30));
        watched.seen("s", None, "RUNNING", at(60));
        let standing = watched.read().unwrap();
        assert_eq!((standing.status, standing.since), (None, at(30)));
        // The clock goes back.
        watched.seen("s", None, "RUNNING", at(10));
        assert_eq!(watched.read().unwrap().since, at(10));
    }
}
