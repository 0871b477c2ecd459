//! The ledger as people and their monitoring look at it: bounded pages and the few rows that tell how delivery goes.
//!
//! Every query here reads a bounded number of rows through an index, however long the ledger is; only
//! [`Ledger::census`] counts all of it.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, params};

use super::super::entry::AHEAD;
use super::{COLUMNS, Entry, Ledger, LedgerError, SKIPPED_COLUMNS, State, entry};

/// What is not in the store yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Windows in the spool.
    pub spooled: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Start of the oldest window that is due or spooled.
    pub oldest: Option<DateTime<Utc>>,
}

impl Ledger {
    /// Windows that start before `before`, newest first, at most `limit`; of one state or all. Skipped ranges have no
    /// window of their own and come with [`Ledger::skips`].
    pub fn page(
        &self,
        state: Option<State>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        let before = before.map_or(i64::MAX, |before| before.timestamp());
        self.run(|connection| match state {
            Some(state) => connection
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM window WHERE asset = ?4 AND state = ?3 AND start < ?1 ORDER BY start DESC LIMIT ?2"
                ))?
                .query_map(params![before, limit as i64, state.name(), self.asset], entry)?
                .collect(),
            None => connection
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM window WHERE asset = ?3 AND start < ?1 ORDER BY start DESC LIMIT ?2"
                ))?
                .query_map(params![before, limit as i64, self.asset], entry)?
                .collect(),
        })
    }

    /// Ranges that were given up and start before `before`, newest first, at most `limit`.
    pub fn skips(
        &self,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> Result<Vec<Entry>, LedgerError> {
        let before = before.map_or(i64::MAX, |before| before.timestamp());
        self.run(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {SKIPPED_COLUMNS} FROM skipped WHERE asset = ?3 AND start < ?1 ORDER BY start DESC LIMIT ?2"
                ))?
                .query_map(params![before, limit as i64, self.asset], entry)?
                .collect()
        })
    }

    /// The newest windows, those left aside that were recorded while the clock was ahead and whose time has not come.
    pub fn recent(&self, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        self.run(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM window WHERE asset = ?1 AND coalesce(instr(reason, ?2), 0) = 0
                     ORDER BY start DESC LIMIT ?3"
                ))?
                .query_map(params![self.asset, AHEAD, limit as i64], entry)?
                .collect()
        })
    }

    /// What is recorded of the window that starts at `start`: its own record, or the range that it was skipped with.
    pub fn find(&self, start: DateTime<Utc>) -> Result<Option<Entry>, LedgerError> {
        if let Some(entry) = self.get(start)? {
            return Ok(Some(entry));
        }
        self.run(|connection| {
            connection
                .query_row(
                    &format!(
                        "SELECT {SKIPPED_COLUMNS} FROM skipped WHERE asset = ?2 AND start <= ?1 AND end > ?1
                         ORDER BY start DESC LIMIT 1"
                    ),
                    params![start.timestamp(), self.asset],
                    entry,
                )
                .optional()
        })
    }

    /// What is recorded between `from` and `to`, oldest first; skipped ranges that reach into it among it, as they are.
    pub fn between(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Entry>, LedgerError> {
        self.run(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM window WHERE asset = ?3 AND start >= ?1 AND start < ?2
                     UNION ALL SELECT {SKIPPED_COLUMNS} FROM skipped WHERE asset = ?3 AND end > ?1 AND start < ?2
                     ORDER BY start"
                ))?
                .query_map(params![from.timestamp(), to.timestamp(), self.asset], entry)?
                .collect()
        })
    }

    /// The newest window that the store has.
    pub fn newest_delivered(&self) -> Result<Option<Entry>, LedgerError> {
        let newest = |state: State| {
            format!(
                "SELECT * FROM (SELECT {COLUMNS} FROM window WHERE asset = ?1 AND state = '{}' ORDER BY start DESC LIMIT 1)",
                state.name()
            )
        };
        let of_each = [State::Shipped, State::Partial, State::Covered]
            .map(newest)
            .join(" UNION ALL ");
        self.run(|connection| {
            connection
                .query_row(
                    &format!("{of_each} ORDER BY start DESC LIMIT 1"),
                    [&self.asset],
                    entry,
                )
                .optional()
        })
    }

    /// What waits to be cut or shipped.
    pub fn waiting(&self) -> Result<Waiting, LedgerError> {
        let (spooled, bytes, oldest): (i64, i64, Option<i64>) = self.run(|connection| {
            connection.query_row(
                "SELECT count(*), coalesce(sum(bytes), 0),
                        (SELECT min(oldest) FROM (
                            SELECT min(start) AS oldest FROM window WHERE asset = ?1 AND state = 'spooled'
                            UNION ALL SELECT min(start) FROM window WHERE asset = ?1 AND state = 'due'))
                 FROM window WHERE asset = ?1 AND state = 'spooled'",
                [&self.asset],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
        })?;
        Ok(Waiting {
            spooled: spooled as u64,
            bytes: bytes as u64,
            oldest: oldest.and_then(|start| DateTime::from_timestamp(start, 0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::{Cadence, Window};

    #[test]
    fn pages_tile_the_ledger_and_waiting_finds_the_oldest() {
        let directory = tempfile::tempdir().unwrap();
        let at = |minutes: i64| DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap();
        let (ledger, _) = Ledger::open(directory.path(), at(0)).unwrap();
        for index in 0..10 {
            let window = Window::new(at(index * 5), Cadence::Pt5m).unwrap();
            let state = match index {
                7 => State::Partial,
                8 => State::Spooled,
                9 => State::Due,
                _ => State::Shipped,
            };
            let mut entry = Entry::new(&window, state);
            entry.bytes = 100;
            ledger.record(&entry).unwrap();
        }
        let first = ledger.page(None, None, 4).unwrap();
        let second = ledger.page(None, Some(first[3].start), 100).unwrap();
        let starts: Vec<_> = first
            .iter()
            .chain(&second)
            .map(|entry| entry.start)
            .collect();
        assert_eq!(
            starts,
            (0..10).rev().map(|index| at(index * 5)).collect::<Vec<_>>()
        );
        assert_eq!(
            ledger.page(Some(State::Shipped), None, 100).unwrap().len(),
            7
        );
        assert_eq!(ledger.newest_delivered().unwrap().unwrap().start, at(35));
        let waiting = ledger.waiting().unwrap();
        assert_eq!(
            (waiting.spooled, waiting.bytes, waiting.oldest),
            (1, 100, Some(at(40)))
        );
    }
}
