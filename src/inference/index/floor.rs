//! What is too old to be known: it is forgotten, and not taken note of where it is listed again.
//!
//! Guarantees: nothing is forgotten where that would be all there is, and what a clock that was ahead has shut out is let in
//! again.

use chrono::{DateTime, Utc};

use super::{Index, IndexError};

impl Index {
    /// Executions that are archived and began before `before` are known no longer, also when they are listed again; none where
    /// that would be all, since then it is the time that is wrong. Whether anything may go.
    pub fn forget(&self, before: DateTime<Utc>) -> Result<bool, IndexError> {
        self.transact(|db| {
            let some_stay: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM execution WHERE archived_us IS NOT NULL AND start_us >= ?1)",
                [before.timestamp_micros()],
                |row| row.get(0),
            )?;
            if !some_stay {
                return Ok(false);
            }
            db.execute(
                "DELETE FROM execution WHERE archived_us IS NOT NULL AND start_us < ?1",
                [before.timestamp_micros()],
            )?;
            // No scheduler has an empty name.
            db.execute(
                "INSERT INTO cursor (scheduler, start_us) VALUES ('', ?1)
                 ON CONFLICT (scheduler) DO UPDATE SET start_us = excluded.start_us",
                [before.timestamp_micros()],
            )?;
            Ok(true)
        })
    }

    /// What is listed from `before` on is known again: it was to be forgotten by a clock that was ahead.
    pub fn remember(&self, before: DateTime<Utc>) -> Result<(), IndexError> {
        self.transact(|db| {
            db.execute(
                "UPDATE cursor SET start_us = ?1 WHERE scheduler = '' AND start_us > ?1",
                [before.timestamp_micros()],
            )?;
            Ok(())
        })
    }
}
