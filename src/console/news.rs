//! What is new among the executions, for those who tell people: which schedulers' last execution failed, which are anomalous
//! or were lately, which have not run although they should have.
//!
//! Guarantees: as every query on [`State`], each is bounded by a limit or by the number of schedulers.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::state::{EXECUTION, EventRow, ExecutionRow, State, event, execution, time};

/// A scheduler that is anomalous, or whose last event ended lately.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Its name.
    pub scheduler: String,
    /// Its identity.
    pub uuid: String,
    /// Whether its last window was anomalous.
    pub active: bool,
    /// Its newest event.
    pub event: Option<EventRow>,
}

impl State {
    /// Running schedulers whose last ended execution failed, and that execution; at most `limit`.
    pub fn failing(&self, limit: usize) -> rusqlite::Result<Vec<(String, ExecutionRow)>> {
        let columns = EXECUTION
            .split(", ")
            .map(|column| format!("e.{column}"))
            .collect::<Vec<_>>()
            .join(", ");
        let sql = format!(
            "SELECT {columns}, s.name FROM scheduler s JOIN execution e ON e.scheduler_uuid = s.uuid AND e.{key} =
                 (SELECT x.{key} FROM execution x WHERE x.scheduler_uuid = s.uuid AND x.status <> 'IN_PROGRESS'
                  ORDER BY x.{key} DESC LIMIT 1)
             WHERE s.status IN ('RUNNING', 'ARCHIVED') AND e.status = 'FAILED' ORDER BY s.name LIMIT ?1",
            key = self.key
        );
        self.lock()
            .prepare_cached(&sql)?
            .query_map([limit as i64], |row| Ok((row.get(10)?, execution(row)?)))?
            .collect()
    }

    /// Running schedulers that are anomalous, and those whose newest event ended after `since`; at most `limit`.
    pub fn anomalies(&self, since: DateTime<Utc>, limit: usize) -> rusqlite::Result<Vec<News>> {
        self.lock()
            .prepare_cached(
                "SELECT e.start_us, e.end_us, e.diagnostics, s.name, s.uuid, coalesce(s.latest_result, '') = 'ANOMALOUS'
                 FROM scheduler s LEFT JOIN event e ON e.scheduler_uuid = s.uuid AND e.start_us =
                     (SELECT max(n.start_us) FROM event n WHERE n.scheduler_uuid = s.uuid)
                 WHERE s.status IN ('RUNNING', 'ARCHIVED') AND (s.latest_result = 'ANOMALOUS' OR e.end_us > ?1)
                 ORDER BY s.name LIMIT ?2",
            )?
            .query_map(params![since.timestamp_micros(), limit as i64], |row| {
                let known: Option<i64> = row.get(0)?;
                Ok(News {
                    scheduler: row.get(3)?,
                    uuid: row.get(4)?,
                    active: row.get(5)?,
                    event: known.map(|_| event(row)).transpose()?,
                })
            })?
            .collect()
    }
}

/// Running schedulers that should have woken more than one of their cadences ago, and when; at most `limit`.
pub fn overdue(
    db: &Connection,
    now: DateTime<Utc>,
    limit: usize,
) -> rusqlite::Result<Vec<(String, DateTime<Utc>)>> {
    db.prepare_cached(
        "SELECT name, due_us FROM scheduler WHERE status = 'RUNNING' AND due_us < ?1 - 1000000 *
             CASE frequency WHEN 'PT5M' THEN 300 WHEN 'PT10M' THEN 600 WHEN 'PT15M' THEN 900 WHEN 'PT30M' THEN 1800 ELSE 3600 END
         ORDER BY name LIMIT ?2",
    )?
    .query_map(params![now.timestamp_micros(), limit as i64], |row| {
        Ok((row.get(0)?, time(row.get(1)?)))
    })?
    .collect()
}
