//! The service's state as the console reads it: a connection of its own, read-only, so that looking never waits for the
//! runner and never holds it up.
//!
//! Guarantees: every query is bounded by a limit or by the number of schedulers, through the tables' keys. Times are UTC.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::signal::{Cadence, NameFormat};

/// The service's state. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct State {
    connection: Arc<Mutex<Connection>>,
}

/// Counts over all schedulers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Schedulers by status.
    pub schedulers: Vec<(String, u64)>,
    /// Schedulers whose last ended execution failed.
    pub failing: u64,
    /// Executions of the last hour by status.
    pub last_hour: Vec<(String, u64)>,
    /// Running schedulers whose last window was anomalous, at most [`MOST_ACTIVE`].
    pub active: Vec<String>,
    /// All schedulers with an anomalous last window.
    pub active_count: u64,
}

/// Active events that are named one by one.
pub const MOST_ACTIVE: usize = 100;

/// One scheduler.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerRow {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: String,
    /// The model it runs.
    pub model: String,
    /// PENDING, RUNNING, STOPPING or STOPPED.
    pub status: String,
    /// ANOMALOUS or NORMAL once there was a result.
    pub latest_result: Option<String>,
    /// Window length, as the API writes it.
    pub frequency: String,
    /// Minutes after a window's end.
    pub delay_minutes: i64,
    /// When it runs next, if it is running.
    pub wakes: Option<DateTime<Utc>>,
    /// How the last execution ended, and the end of its window.
    pub last: Option<(String, DateTime<Utc>)>,
    /// Where it reads: bucket, prefix, and how files are named.
    pub input: Input,
}

/// Where a scheduler reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Input {
    /// The bucket.
    pub bucket: String,
    /// The key prefix.
    pub prefix: String,
    /// How files are named.
    pub naming: NameFormat,
}

/// One execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionRow {
    /// Start of its window.
    pub start: DateTime<Utc>,
    /// End of its window.
    pub end: DateTime<Utc>,
    /// When it was to run.
    pub scheduled: DateTime<Utc>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// IN_PROGRESS, SUCCESS or FAILED.
    pub status: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Where its results lie: bucket and key.
    pub result: Option<(String, String)>,
    /// Lines, and how many of them are anomalous.
    pub rows: Option<(i64, i64)>,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    /// First anomalous line.
    pub start: DateTime<Utc>,
    /// Last anomalous line so far.
    pub end: DateTime<Utc>,
    /// `component\sensor` and its mean share, largest first.
    pub shares: Vec<(String, f64)>,
}

/// One label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRow {
    /// From.
    pub start: DateTime<Utc>,
    /// To.
    pub end: DateTime<Utc>,
    /// ANOMALY, NO_ANOMALY or NEUTRAL.
    pub rating: String,
    /// What the label says.
    pub notes: String,
}

const SCHEDULER: &str = "s.name, s.uuid, s.model_name, s.status, s.latest_result, s.frequency, s.delay_minutes, s.due_us, s.input,
     (SELECT e.status || ' ' || e.boundary_us FROM execution e
      WHERE e.scheduler_uuid = s.uuid AND e.status <> 'IN_PROGRESS' ORDER BY e.boundary_us DESC LIMIT 1)";
const EXECUTION: &str = "start_us, boundary_us, scheduled_us, finished_us, status, failed_reason, result_bucket, result_key, rows, anomalous";

impl State {
    /// Opens the database at `path`; `None` where there is none yet.
    pub fn open(path: &Path) -> rusqlite::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512;")?;
        Ok(Some(Self {
            connection: Arc::new(Mutex::new(connection)),
        }))
    }

    /// Counts over all schedulers.
    pub fn counts(&self, now: DateTime<Utc>) -> rusqlite::Result<Counts> {
        let db = self.lock();
        let pairs = |sql: &str, since: i64| -> rusqlite::Result<Vec<(String, u64)>> {
            db.prepare_cached(sql)?
                .query_map([since], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })?
                .collect()
        };
        let hour = (now - TimeDelta::hours(1)).timestamp_micros();
        let schedulers = pairs(
            "SELECT status, count(*) FROM scheduler WHERE ?1 IS NOT NULL GROUP BY status ORDER BY status",
            0,
        )?;
        // One seek per scheduler, then only the last hour of it.
        let last_hour = pairs(
            "SELECT e.status, count(*) FROM scheduler s CROSS JOIN execution e
             ON e.scheduler_uuid = s.uuid AND e.boundary_us >= ?1 GROUP BY e.status ORDER BY e.status",
            hour,
        )?;
        let failing: i64 = db
            .prepare_cached(
                "SELECT count(*) FROM scheduler s WHERE s.status = 'RUNNING' AND 'FAILED' =
                    (SELECT e.status FROM execution e WHERE e.scheduler_uuid = s.uuid AND e.status <> 'IN_PROGRESS'
                     ORDER BY e.boundary_us DESC LIMIT 1)",
            )?
            .query_row([], |row| row.get(0))?;
        let active_count: i64 = db
            .prepare_cached(
                "SELECT count(*) FROM scheduler WHERE status = 'RUNNING' AND latest_result = 'ANOMALOUS'",
            )?
            .query_row([], |row| row.get(0))?;
        let active = db
            .prepare_cached(
                "SELECT name FROM scheduler WHERE status = 'RUNNING' AND latest_result = 'ANOMALOUS' ORDER BY name LIMIT ?1",
            )?
            .query_map([MOST_ACTIVE as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Counts {
            schedulers,
            failing: failing as u64,
            last_hour,
            active,
            active_count: active_count as u64,
        })
    }

    /// Schedulers by name, those after `after` that contain `part`, at most `limit`; of one status or all.
    pub fn schedulers(
        &self,
        part: &str,
        status: Option<&str>,
        after: &str,
        limit: usize,
    ) -> rusqlite::Result<Vec<SchedulerRow>> {
        let sql = format!(
            "SELECT {SCHEDULER} FROM scheduler s
             WHERE s.name > ?1 AND (?2 = '' OR instr(lower(s.name), lower(?2)) > 0) AND (?3 IS NULL OR s.status = ?3)
             ORDER BY s.name LIMIT ?4"
        );
        self.lock()
            .prepare_cached(&sql)?
            .query_map(params![after, part, status, limit as i64], scheduler)?
            .collect()
    }

    /// The scheduler of that name.
    pub fn scheduler(&self, name: &str) -> rusqlite::Result<Option<SchedulerRow>> {
        self.lock()
            .prepare_cached(&format!(
                "SELECT {SCHEDULER} FROM scheduler s WHERE s.name = ?1"
            ))?
            .query_row([name], scheduler)
            .optional()
    }

    /// Executions of windows that end in `from..before`, newest first, at most `limit`; of one status or all.
    pub fn executions(
        &self,
        uuid: &str,
        status: Option<&str>,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> rusqlite::Result<Vec<ExecutionRow>> {
        let sql = format!(
            "SELECT {EXECUTION} FROM execution
             WHERE scheduler_uuid = ?1 AND boundary_us >= ?2 AND boundary_us < ?3 AND (?4 IS NULL OR status = ?4)
             ORDER BY boundary_us DESC LIMIT ?5"
        );
        let (from, before) = bounds(from, before);
        self.lock()
            .prepare_cached(&sql)?
            .query_map(params![uuid, from, before, status, limit as i64], execution)?
            .collect()
    }

    /// Events that overlap `from..before`, newest first, at most `limit`.
    pub fn events(
        &self,
        uuid: &str,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> rusqlite::Result<Vec<EventRow>> {
        let (from, before) = bounds(from, before);
        self.lock()
            .prepare_cached(
                "SELECT start_us, end_us, diagnostics FROM event
                 WHERE scheduler_uuid = ?1 AND end_us >= ?2 AND start_us < ?3 ORDER BY start_us DESC LIMIT ?4",
            )?
            .query_map(params![uuid, from, before, limit as i64], event)?
            .collect()
    }

    /// The event that starts at `start`.
    pub fn event(&self, uuid: &str, start: DateTime<Utc>) -> rusqlite::Result<Option<EventRow>> {
        self.lock()
            .prepare_cached(
                "SELECT start_us, end_us, diagnostics FROM event WHERE scheduler_uuid = ?1 AND start_us = ?2",
            )?
            .query_row(params![uuid, start.timestamp_micros()], event)
            .optional()
    }

    /// Labels of all groups that overlap `from..before`, at most `limit`.
    pub fn labels(
        &self,
        from: DateTime<Utc>,
        before: DateTime<Utc>,
        limit: usize,
    ) -> rusqlite::Result<Vec<LabelRow>> {
        self.lock()
            .prepare_cached(
                "SELECT start_us, end_us, rating, coalesce(notes, '') FROM label
                 WHERE end_us >= ?1 AND start_us < ?2 ORDER BY start_us LIMIT ?3",
            )?
            .query_map(
                params![
                    from.timestamp_micros(),
                    before.timestamp_micros(),
                    limit as i64
                ],
                |row| {
                    Ok(LabelRow {
                        start: time(row.get(0)?),
                        end: time(row.get(1)?),
                        rating: row.get(2)?,
                        notes: row.get(3)?,
                    })
                },
            )?
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl SchedulerRow {
    /// Its window length; five minutes where the text is not one of ours.
    pub fn cadence(&self) -> Cadence {
        self.frequency.parse().unwrap_or(Cadence::Pt5m)
    }
}

fn bounds(from: Option<DateTime<Utc>>, before: Option<DateTime<Utc>>) -> (i64, i64) {
    (
        from.map_or(i64::MIN, |time| time.timestamp_micros()),
        before.map_or(i64::MAX, |time| time.timestamp_micros()),
    )
}

fn scheduler(row: &Row<'_>) -> rusqlite::Result<SchedulerRow> {
    let status: String = row.get(3)?;
    let due: Option<i64> = row.get(7)?;
    let input: String = row.get(8)?;
    let last: Option<String> = row.get(9)?;
    let last = last.as_deref().and_then(|last| {
        let (status, boundary) = last.split_once(' ')?;
        Some((status.to_owned(), time(boundary.parse().ok()?)))
    });
    Ok(SchedulerRow {
        name: row.get(0)?,
        uuid: row.get(1)?,
        model: row.get(2)?,
        wakes: due.filter(|_| status == "RUNNING").map(time),
        status,
        latest_result: row.get(4)?,
        frequency: row.get(5)?,
        delay_minutes: row.get(6)?,
        last,
        input: read_input(&input),
    })
}

fn read_input(text: &str) -> Input {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let at = |pointer: &str| json.pointer(pointer).and_then(|value| value.as_str());
    let naming = NameFormat::default();
    Input {
        bucket: at("/S3InputConfiguration/Bucket")
            .unwrap_or_default()
            .to_owned(),
        prefix: at("/S3InputConfiguration/Prefix")
            .unwrap_or_default()
            .to_owned(),
        naming: NameFormat {
            timestamp: at("/InferenceInputNameConfiguration/TimestampFormat")
                .and_then(|text| text.parse().ok())
                .unwrap_or(naming.timestamp),
            delimiter: at("/InferenceInputNameConfiguration/ComponentTimestampDelimiter")
                .and_then(|text| text.parse().ok())
                .unwrap_or(naming.delimiter),
            zone_offset: at("/InputTimeZoneOffset")
                .and_then(|text| text.parse().ok())
                .unwrap_or(naming.zone_offset),
        },
    }
}

fn execution(row: &Row<'_>) -> rusqlite::Result<ExecutionRow> {
    let finished: Option<i64> = row.get(3)?;
    let result: (Option<String>, Option<String>) = (row.get(6)?, row.get(7)?);
    let rows: (Option<i64>, Option<i64>) = (row.get(8)?, row.get(9)?);
    Ok(ExecutionRow {
        start: time(row.get(0)?),
        end: time(row.get(1)?),
        scheduled: time(row.get(2)?),
        finished: finished.map(time),
        status: row.get(4)?,
        reason: row.get(5)?,
        result: result.0.zip(result.1),
        rows: rows.0.zip(rows.1),
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    #[derive(serde::Deserialize)]
    struct Share {
        name: String,
        value: f64,
    }
    let diagnostics: String = row.get(2)?;
    let shares: Vec<Share> = serde_json::from_str(&diagnostics).unwrap_or_default();
    let mut shares: Vec<(String, f64)> = shares
        .into_iter()
        .map(|share| (share.name, share.value))
        .collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(EventRow {
        start: time(row.get(0)?),
        end: time(row.get(1)?),
        shares,
    })
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}
