//! Samples of a live source that came after their window was cut: counted per window and component, never cut.

use chrono::{DateTime, Utc};
use rusqlite::params;

use super::{Ledger, LedgerError};
use crate::source::Late;

impl Ledger {
    /// Counts samples for a window that was cut before they came; false, and nothing is counted, where it has them, or is still to be
    /// cut, or never was.
    pub fn count_late(&self, late: &Late<'_>) -> Result<bool, LedgerError> {
        let position = i64::try_from(late.position).unwrap_or(i64::MAX);
        let counted = self.change(|connection| {
            connection.execute(
                "INSERT INTO late (asset, start, component, samples)
                     SELECT asset, start, ?3, ?4 FROM window
                     WHERE asset = ?1 AND start = ?2 AND state <> 'due' AND journal < ?5
                 ON CONFLICT (asset, start, component) DO UPDATE SET samples = samples + ?4",
                params![
                    self.asset,
                    late.start.timestamp(),
                    late.component,
                    late.samples as i64,
                    position,
                ],
            )
        })?;
        Ok(counted > 0)
    }

    /// What came late for the window that starts at `start`, by component.
    pub fn late(&self, start: DateTime<Utc>) -> Result<Vec<(String, u64)>, LedgerError> {
        self.run(|connection| {
            connection
                .prepare("SELECT component, samples FROM late WHERE asset = ?1 AND start = ?2 ORDER BY component")?
                .query_map(params![self.asset, start.timestamp()], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })?
                .collect()
        })
    }
}
