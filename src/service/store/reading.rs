//! Read-only questions to a service's state, on a connection of their own, so that looking never waits for the runner and
//! never holds it up. `executions` asks them.
//!
//! Guarantees: every query is bounded by a limit or by the number of schedulers, through the tables' keys. Times are UTC.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::executions::{
    Counts, DatasetRow, EventRow, ExecutionRow, Failing, Input, Inventory, JobRow, LabelRow,
    MOST_ACTIVE, ModelRow, News, SchedulerRow,
};
use crate::signal::NameFormat;

/// The state, open for reading. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Reading(Arc<Mutex<Connection>>);

/// What the scheduler row reads as; `?1` is now, and windows that end more than the shortest cadence after it (a clock was ahead
/// once) count when their time comes.
const SCHEDULER: &str = "s.name, s.uuid, s.model_name, s.status, s.latest_result, s.frequency, s.delay_minutes, s.due_us, s.input,
     (SELECT e.status || ' ' || e.boundary_us FROM execution e
      WHERE e.scheduler_uuid = s.uuid AND e.boundary_us <= ?1 + 300000000 AND e.status <> 'IN_PROGRESS' ORDER BY e.boundary_us DESC LIMIT 1)";
/// The columns that [`execution`] reads.
const EXECUTION: &str = "e.start_us, e.boundary_us, e.scheduled_us, e.finished_us, e.status, e.failed_reason, e.result_bucket, e.result_key, e.rows, e.anomalous";
/// The first anomalous row after the last SUCCESS that had none; `?1` is now.
const SINCE: &str = "(SELECT min(c.start_us) FROM event c WHERE c.scheduler_uuid = s.uuid AND c.end_us > coalesce(
     (SELECT h.boundary_us FROM execution h WHERE h.scheduler_uuid = s.uuid AND h.boundary_us <= ?1 + 300000000 AND h.status = 'SUCCESS' AND h.anomalous = 0
      ORDER BY h.boundary_us DESC LIMIT 1), -9000000000000000000))";
/// The first window that failed after the last SUCCESS; `?1` is now.
const FAILING_SINCE: &str = "(SELECT x.boundary_us FROM execution x WHERE x.scheduler_uuid = s.uuid AND x.status = 'FAILED' AND x.boundary_us > coalesce(
     (SELECT h.boundary_us FROM execution h WHERE h.scheduler_uuid = s.uuid AND h.boundary_us <= ?1 + 300000000 AND h.status = 'SUCCESS'
      ORDER BY h.boundary_us DESC LIMIT 1), -9000000000000000000) ORDER BY x.boundary_us LIMIT 1)";

impl Reading {
    /// Opens the state at `path`; `None` where there is none yet.
    pub fn open(path: &Path) -> rusqlite::Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512;")?;
        Ok(Some(Self(Arc::new(Mutex::new(connection)))))
    }

    /// Counts over all schedulers.
    pub fn counts(&self, now: DateTime<Utc>) -> rusqlite::Result<Counts> {
        let failing = self.failing(now, usize::MAX)?;
        let db = self.lock();
        let pairs = |sql: &str, since: i64| -> rusqlite::Result<Vec<(String, u64)>> {
            db.prepare_cached(sql)?
                .query_map([since], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })?
                .collect()
        };
        let schedulers = pairs(
            "SELECT status, count(*) FROM scheduler WHERE ?1 IS NOT NULL GROUP BY status ORDER BY status",
            0,
        )?;
        // One seek per scheduler, then only the last hour of it.
        let last_hour = pairs(
            "SELECT e.status, count(*) FROM scheduler s CROSS JOIN execution e
             ON e.scheduler_uuid = s.uuid AND e.boundary_us >= ?1 GROUP BY e.status ORDER BY e.status",
            (now - TimeDelta::hours(1)).timestamp_micros(),
        )?;
        let active_count: i64 = db
            .prepare_cached(
                "SELECT count(*) FROM scheduler WHERE status = 'RUNNING' AND latest_result = 'ANOMALOUS'",
            )?
            .query_row([], |row| row.get(0))?;
        let active = db
            .prepare_cached(&format!(
                "SELECT s.name, {SINCE} FROM scheduler s
                 WHERE s.status = 'RUNNING' AND s.latest_result = 'ANOMALOUS' ORDER BY s.name LIMIT ?2"
            ))?
            .query_map(params![now.timestamp_micros(), limited(MOST_ACTIVE)], |row| {
                let since: Option<i64> = row.get(1)?;
                Ok((row.get(0)?, since.map_or(now, time)))
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Counts {
            schedulers,
            failing: failing.len() as u64,
            failing_since: failing
                .into_iter()
                .map(|failing| (failing.scheduler, failing.since))
                .take(MOST_ACTIVE)
                .collect(),
            last_hour,
            active,
            active_count: active_count as u64,
            overdue: overdue(&db, now, MOST_ACTIVE)?,
        })
    }

    /// Running schedulers whose last ended execution failed; at most `limit`.
    pub fn failing(&self, now: DateTime<Utc>, limit: usize) -> rusqlite::Result<Vec<Failing>> {
        let sql = format!(
            "SELECT {EXECUTION}, s.name, {FAILING_SINCE} FROM scheduler s JOIN execution e ON e.scheduler_uuid = s.uuid AND e.boundary_us =
                 (SELECT x.boundary_us FROM execution x WHERE x.scheduler_uuid = s.uuid AND x.boundary_us <= ?1 + 300000000
                  AND x.status <> 'IN_PROGRESS' ORDER BY x.boundary_us DESC LIMIT 1)
             WHERE s.status = 'RUNNING' AND e.status = 'FAILED' ORDER BY s.name LIMIT ?2"
        );
        self.lock()
            .prepare_cached(&sql)?
            .query_map(params![now.timestamp_micros(), limited(limit)], |row| {
                let last = execution(row)?;
                let since: Option<i64> = row.get(11)?;
                Ok(Failing {
                    scheduler: row.get(10)?,
                    since: since.map_or(last.end, time),
                    last,
                })
            })?
            .collect()
    }

    /// Running schedulers that are anomalous, and those whose newest event ended after `since`; at most `limit`.
    pub fn anomalies(
        &self,
        now: DateTime<Utc>,
        since: DateTime<Utc>,
        limit: usize,
    ) -> rusqlite::Result<Vec<News>> {
        self.lock()
            .prepare_cached(&format!(
                "SELECT e.start_us, e.end_us, e.diagnostics, s.name, s.uuid, coalesce(s.latest_result, '') = 'ANOMALOUS', {SINCE}
                 FROM scheduler s LEFT JOIN event e ON e.scheduler_uuid = s.uuid AND e.start_us =
                     (SELECT max(n.start_us) FROM event n WHERE n.scheduler_uuid = s.uuid AND n.start_us <= ?1)
                 WHERE s.status = 'RUNNING' AND (s.latest_result = 'ANOMALOUS' OR e.end_us > ?2)
                 ORDER BY s.name LIMIT ?3"
            ))?
            .query_map(
                params![
                    now.timestamp_micros(),
                    since.timestamp_micros(),
                    limited(limit)
                ],
                |row| {
                let known: Option<i64> = row.get(0)?;
                let active = row.get(5)?;
                let began: Option<i64> = row.get(6)?;
                Ok(News {
                    scheduler: row.get(3)?,
                    uuid: row.get(4)?,
                    active,
                    since: began.filter(|_| active).or(known).map(time),
                    event: known.map(|_| event(row)).transpose()?,
                })
            },
            )?
            .collect()
    }

    /// Schedulers by name, those after `after` that contain `part`, at most `limit`; of one status or all.
    pub fn schedulers(
        &self,
        now: DateTime<Utc>,
        part: &str,
        status: Option<&str>,
        after: &str,
        limit: usize,
    ) -> rusqlite::Result<Vec<SchedulerRow>> {
        let sql = format!(
            "SELECT {SCHEDULER} FROM scheduler s
             WHERE s.name > ?2 AND (?3 = '' OR instr(lower(s.name), lower(?3)) > 0) AND (?4 IS NULL OR s.status = ?4)
             ORDER BY s.name LIMIT ?5"
        );
        let now = now.timestamp_micros();
        self.lock()
            .prepare_cached(&sql)?
            .query_map(params![now, after, part, status, limited(limit)], scheduler)?
            .collect()
    }

    /// The scheduler of that name.
    pub fn scheduler(
        &self,
        now: DateTime<Utc>,
        name: &str,
    ) -> rusqlite::Result<Option<SchedulerRow>> {
        self.lock()
            .prepare_cached(&format!(
                "SELECT {SCHEDULER} FROM scheduler s WHERE s.name = ?2"
            ))?
            .query_row(params![now.timestamp_micros(), name], scheduler)
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
            "SELECT {EXECUTION} FROM execution e
             WHERE e.scheduler_uuid = ?1 AND e.boundary_us >= ?2 AND e.boundary_us < ?3 AND (?4 IS NULL OR e.status = ?4)
             ORDER BY e.boundary_us DESC LIMIT ?5"
        );
        let (from, before) = bounds(from, before);
        self.lock()
            .prepare_cached(&sql)?
            .query_map(
                params![uuid, from, before, status, limited(limit)],
                execution,
            )?
            .collect()
    }

    /// The highest score of each of `count` stretches of `step` since `from`; `None` for one without a scored window.
    pub fn peaks(
        &self,
        uuid: &str,
        from: DateTime<Utc>,
        step: TimeDelta,
        count: usize,
    ) -> rusqlite::Result<Vec<Option<f64>>> {
        let (from, step) = (from.timestamp_micros(), stretch(step));
        let mut peaks = vec![None; count];
        let db = self.lock();
        // Nobody brings a state that is only looked at to this build's format.
        let is_kept: bool = db
            .prepare_cached(
                "SELECT count(*) FROM pragma_table_info('execution') WHERE name = 'score'",
            )?
            .query_row([], |row| row.get(0))?;
        if !is_kept {
            return Ok(peaks);
        }
        // A window ends a stretch that it fills.
        let mut statement = db.prepare_cached(
            "SELECT (boundary_us - ?2 - 1) / ?4, max(score) FROM execution
             WHERE scheduler_uuid = ?1 AND boundary_us > ?2 AND boundary_us <= ?3 AND score IS NOT NULL GROUP BY 1",
        )?;
        let before = from.saturating_add(step.saturating_mul(limited(count)));
        let mut rows = statement.query(params![uuid, from, before, step])?;
        while let Some(row) = rows.next()? {
            let place = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
            if let Some(peak) = peaks.get_mut(place) {
                *peak = Some(row.get(1)?);
            }
        }
        Ok(peaks)
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
            .query_map(params![uuid, from, before, limited(limit)], event)?
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
                    limited(limit)
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

    /// The status of the model of that name.
    pub fn model(&self, name: &str) -> rusqlite::Result<Option<String>> {
        self.lock()
            .prepare_cached("SELECT status FROM model WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()
    }

    /// Models by name, those after `after`, and the newest datasets and ingestions, at most `limit` of each.
    pub fn inventory(&self, after: &str, limit: usize) -> rusqlite::Result<Inventory> {
        let db = self.lock();
        let models = db
            .prepare_cached(
                "SELECT m.name, m.status, m.active_version, m.dataset_name, v.version, v.status, v.failed_reason, v.created_us
                 FROM model m LEFT JOIN model_version v ON v.model_uuid = m.uuid AND v.version =
                     (SELECT max(n.version) FROM model_version n WHERE n.model_uuid = m.uuid)
                 WHERE m.name > ?1 ORDER BY m.name LIMIT ?2",
            )?
            .query_map(params![after, limited(limit)], |row| {
                let created: Option<i64> = row.get(7)?;
                Ok(ModelRow {
                    name: row.get(0)?,
                    status: row.get(1)?,
                    active: row.get(2)?,
                    dataset: row.get(3)?,
                    newest: row.get(4)?,
                    newest_status: row.get(5)?,
                    reason: row.get(6)?,
                    created: created.map(time),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let datasets = db
            .prepare_cached(
                "SELECT name, status, created_us FROM dataset ORDER BY created_us DESC LIMIT ?1",
            )?
            .query_map([limited(limit)], |row| {
                Ok(DatasetRow {
                    name: row.get(0)?,
                    status: row.get(1)?,
                    created: time(row.get(2)?),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let jobs = db
            .prepare_cached(
                "SELECT d.name, j.status, j.failed_reason, j.size, j.created_us
                 FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid ORDER BY j.created_us DESC LIMIT ?1",
            )?
            .query_map([limited(limit)], |row| {
                Ok(JobRow {
                    dataset: row.get(0)?,
                    status: row.get(1)?,
                    reason: row.get(2)?,
                    size: row.get(3)?,
                    created: time(row.get(4)?),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Inventory {
            models,
            datasets,
            jobs,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Running schedulers that should have woken more than one of their cadences ago, and when; at most `limit`.
fn overdue(
    db: &Connection,
    now: DateTime<Utc>,
    limit: usize,
) -> rusqlite::Result<Vec<(String, DateTime<Utc>)>> {
    db.prepare_cached(
        "SELECT name, due_us FROM scheduler WHERE status = 'RUNNING' AND due_us < ?1 - 1000000 *
             CASE frequency WHEN 'PT5M' THEN 300 WHEN 'PT10M' THEN 600 WHEN 'PT15M' THEN 900 WHEN 'PT30M' THEN 1800 ELSE 3600 END
         ORDER BY name LIMIT ?2",
    )?
    .query_map(params![now.timestamp_micros(), limited(limit)], |row| {
        Ok((row.get(0)?, time(row.get(1)?)))
    })?
    .collect()
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
    let place = |pointer| at(pointer).unwrap_or_default().to_owned();
    let naming = NameFormat::default();
    Input {
        bucket: place("/S3InputConfiguration/Bucket"),
        prefix: place("/S3InputConfiguration/Prefix"),
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
        file: None,
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    #[derive(serde::Deserialize)]
    struct Share {
        name: String,
        value: f64,
    }
    let diagnostics: String = row.get(2)?;
    let mut shares: Vec<(String, f64)> = serde_json::from_str::<Vec<Share>>(&diagnostics)
        .unwrap_or_default()
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

/// A stretch of time in microseconds, to divide by.
fn stretch(step: TimeDelta) -> i64 {
    step.num_microseconds().unwrap_or(i64::MAX).max(1)
}

/// A limit as SQLite takes it.
fn limited(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
