//! Which schedulers of an archive are judged, and by which window length.
//!
//! An archive may hold what another gateway ran, or what ran once: that it was anomalous when it last ran is not the case now.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::reading::{Past, lock};
use super::{COLUMNS, read_row};
use crate::inference::Archived;
use crate::signal::Cadence;

impl Past {
    /// Judges only these schedulers, where they are given.
    pub fn judging(mut self, schedulers: Option<BTreeSet<String>>) -> Self {
        self.judged = schedulers.map(Arc::new);
        self
    }

    pub(super) fn judges(&self, name: &str) -> bool {
        let judged = self.judged.as_ref();
        judged.is_none_or(|judged| judged.contains(name))
    }

    /// The window length of a scheduler: that of its newest execution when it was first asked for.
    pub(super) fn cadence(&self, name: &str) -> rusqlite::Result<Cadence> {
        if let Some(known) = lock(&self.cadences).get(name) {
            return Ok(*known);
        }
        let newest: Option<Archived> = self
            .lock()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM execution WHERE scheduler = ?1 ORDER BY start_us DESC LIMIT 1"
            ))?
            .query_row([name], read_row)
            .optional()?;
        let Some(length) = newest.map(|row| row.execution.data_end - row.execution.data_start)
        else {
            return Ok(self.feeder);
        };
        let of = |cadence: &Cadence| cadence.duration() == length;
        let cadence = Cadence::ALL.into_iter().find(of).unwrap_or(self.feeder);
        lock(&self.cadences).insert(name.to_owned(), cadence);
        Ok(cadence)
    }
}
