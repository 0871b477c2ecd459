//! The service's state as the console reads it: a connection of its own, read-only, so that looking never waits for the
//! runner and never holds it up.
//!
//! Guarantees: every query is bounded by a limit or by the number of schedulers, through the tables' keys. Times are UTC.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use tracing::warn;

use super::news::overdue;
use crate::inference::Archive;
use crate::signal::{Cadence, NameFormat};

/// The service's state. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct State {
    connection: Arc<Mutex<Connection>>,
    /// The column executions are kept in order by, and how far it is before their boundary, microseconds.
    pub(super) key: &'static str,
    shift: i64,
    /// How files are named where a scheduler does not say.
    naming: NameFormat,
    /// The archive's directory, where this is an archive.
    archive: Option<Archive>,
}

/// Where executions can be looked up. Opened when it is first asked for and there; cheap to clone.
#[derive(Clone)]
pub struct Place {
    path: PathBuf,
    /// Window length and naming of the feeder whose scheduler is archived; `None` for a service's own state.
    archived: Option<(Cadence, NameFormat)>,
    opened: Arc<Mutex<Option<State>>>,
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
    /// Running schedulers that should have executed and did not, and since when, at most [`MOST_ACTIVE`].
    pub overdue: Vec<(String, DateTime<Utc>)>,
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
    /// The archived results, where they lie on this machine.
    pub file: Option<PathBuf>,
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
      WHERE e.scheduler_uuid = s.uuid AND e.status <> 'IN_PROGRESS' ORDER BY e.{key} DESC LIMIT 1)";
/// The archive's index in the shape of a service's state. Events are runs of anomalous windows of the newest week, with the
/// leading sensors of the window that scored highest.
const ARCHIVE_VIEWS: &str = "
-- One seek per scheduler; imported ones were never listed and have no cursor.
CREATE TEMP VIEW known AS
    WITH RECURSIVE step (scheduler) AS (
        SELECT min(scheduler) FROM main.execution
        UNION ALL
        SELECT (SELECT min(e.scheduler) FROM main.execution e WHERE e.scheduler > step.scheduler) FROM step WHERE scheduler IS NOT NULL)
    SELECT scheduler FROM step WHERE scheduler IS NOT NULL UNION SELECT scheduler FROM main.cursor;
CREATE TEMP VIEW scheduler AS
    SELECT c.scheduler AS name, c.scheduler AS uuid, 'ARCHIVED' AS status, '{cadence}' AS frequency, 0 AS delay_minutes, NULL AS due_us,
           coalesce(json_extract(n.execution, '$.model'), '') AS model_name,
           json_object('S3InputConfiguration', json_object('Bucket', json_extract(n.execution, '$.input'))) AS input,
           CASE WHEN n.anomalous > 0 THEN 'ANOMALOUS' WHEN n.rows > 0 THEN 'NORMAL' END AS latest_result
    FROM known c LEFT JOIN main.execution n
      ON n.scheduler = c.scheduler AND n.start_us = (SELECT max(e.start_us) FROM main.execution e WHERE e.scheduler = c.scheduler);
CREATE TEMP VIEW execution AS
    SELECT scheduler AS scheduler_uuid, start_us + {us} AS boundary_us, start_us, start_us + {us} AS scheduled_us,
           archived_us AS finished_us, status, json_extract(execution, '$.failed_reason') AS failed_reason,
           json_extract(execution, '$.result.bucket') AS result_bucket, json_extract(execution, '$.result.key') AS result_key,
           CASE WHEN status = 'SUCCESS' THEN rows END AS rows, CASE WHEN status = 'SUCCESS' THEN anomalous END AS anomalous
    FROM main.execution;
CREATE TEMP VIEW event AS
    SELECT scheduler AS scheduler_uuid, min(start_us) AS start_us, max(start_us) + {us} AS end_us, top AS diagnostics, max(score)
    FROM (SELECT *, start_us / {us} - row_number() OVER (PARTITION BY scheduler ORDER BY start_us) AS run
          FROM main.execution e
          WHERE anomalous > 0 AND start_us >
                (SELECT max(x.start_us) FROM main.execution x WHERE x.scheduler = e.scheduler) - 604800000000)
    GROUP BY scheduler, run;
CREATE TEMP VIEW label AS SELECT 0 AS start_us, 0 AS end_us, '' AS rating, '' AS notes WHERE 0;
";
/// The columns that [`execution`] reads.
pub(super) const EXECUTION: &str = "start_us, boundary_us, scheduled_us, finished_us, status, failed_reason, result_bucket, result_key, rows, anomalous";

impl Place {
    /// A service's own state.
    pub fn service(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            archived: None,
            opened: Arc::default(),
        }
    }

    /// The index of a gateway's archive, for a scheduler of `cadence` that runs elsewhere.
    pub fn archive(path: impl Into<PathBuf>, cadence: Cadence, naming: NameFormat) -> Self {
        Self {
            archived: Some((cadence, naming)),
            ..Self::service(path)
        }
    }

    /// The state, once it is there.
    pub fn open(&self) -> Option<State> {
        let mut opened = self
            .opened
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if opened.is_none() {
            let found = match self.archived {
                None => State::open(&self.path),
                Some((cadence, naming)) => State::open_archive(&self.path, cadence, naming),
            };
            *opened = found.unwrap_or_else(|error| {
                warn!(%error, path = %self.path.display(), "the console cannot read the executions");
                None
            });
        }
        opened.clone()
    }
}

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
            key: "boundary_us",
            shift: 0,
            naming: NameFormat::default(),
            archive: None,
        }))
    }

    /// Opens the index of an archive, seen as a service's state through views; `None` where there is none yet. What an
    /// archive does not know (the scheduler's status, its labels) is left open, and events are whole windows.
    fn open_archive(
        path: &Path,
        cadence: Cadence,
        naming: NameFormat,
    ) -> rusqlite::Result<Option<Self>> {
        let Some(mut state) = Self::open(path)? else {
            return Ok(None);
        };
        let views = ARCHIVE_VIEWS
            .replace("{cadence}", cadence.as_str())
            .replace("{us}", &cadence.micros().to_string());
        state.lock().execute_batch(&format!(
            "PRAGMA query_only = OFF; {views} PRAGMA query_only = ON;"
        ))?;
        (state.key, state.shift) = ("start_us", cadence.micros());
        state.naming = naming;
        state.archive = path.parent().map(Archive::new);
        Ok(Some(state))
    }

    /// Whether this is an archive's index, which knows no models.
    pub(super) fn is_archive(&self) -> bool {
        self.shift != 0
    }

    /// Counts over all schedulers.
    pub fn counts(&self, now: DateTime<Utc>) -> rusqlite::Result<Counts> {
        let db = self.lock();
        let pairs = |sql: &str, since: i64| -> rusqlite::Result<Vec<(String, u64)>> {
            db.prepare_cached(&sql.replace("{key}", self.key))?
                .query_map([since], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })?
                .collect()
        };
        let hour = (now - TimeDelta::hours(1)).timestamp_micros() - self.shift;
        let schedulers = pairs(
            "SELECT status, count(*) FROM scheduler WHERE ?1 IS NOT NULL GROUP BY status ORDER BY status",
            0,
        )?;
        // One seek per scheduler, then only the last hour of it.
        let last_hour = pairs(
            "SELECT e.status, count(*) FROM scheduler s CROSS JOIN execution e
             ON e.scheduler_uuid = s.uuid AND e.{key} >= ?1 GROUP BY e.status ORDER BY e.status",
            hour,
        )?;
        let failing: i64 = db
            .prepare_cached(&
                "SELECT count(*) FROM scheduler s WHERE s.status IN ('RUNNING', 'ARCHIVED') AND 'FAILED' =
                    (SELECT e.status FROM execution e WHERE e.scheduler_uuid = s.uuid AND e.status <> 'IN_PROGRESS'
                     ORDER BY e.{key} DESC LIMIT 1)".replace("{key}", self.key),
            )?
            .query_row([], |row| row.get(0))?;
        let active_count: i64 = db
            .prepare_cached(
                "SELECT count(*) FROM scheduler WHERE status IN ('RUNNING', 'ARCHIVED') AND latest_result = 'ANOMALOUS'",
            )?
            .query_row([], |row| row.get(0))?;
        let active = db
            .prepare_cached(
                "SELECT name FROM scheduler WHERE status IN ('RUNNING', 'ARCHIVED') AND latest_result = 'ANOMALOUS' ORDER BY name LIMIT ?1",
            )?
            .query_map([MOST_ACTIVE as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Counts {
            schedulers,
            failing: failing as u64,
            last_hour,
            active,
            active_count: active_count as u64,
            overdue: overdue(&db, now, MOST_ACTIVE)?,
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
            "SELECT {} FROM scheduler s
             WHERE s.name > ?1 AND (?2 = '' OR instr(lower(s.name), lower(?2)) > 0) AND (?3 IS NULL OR s.status = ?3)
             ORDER BY s.name LIMIT ?4",
            self.scheduler_columns()
        );
        self.lock()
            .prepare_cached(&sql)?
            .query_map(params![after, part, status, limit as i64], |row| {
                self.read(row)
            })?
            .collect()
    }

    /// The scheduler of that name.
    pub fn scheduler(&self, name: &str) -> rusqlite::Result<Option<SchedulerRow>> {
        self.lock()
            .prepare_cached(&format!(
                "SELECT {} FROM scheduler s WHERE s.name = ?1",
                self.scheduler_columns()
            ))?
            .query_row([name], |row| self.read(row))
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
             WHERE scheduler_uuid = ?1 AND {key} >= ?2 AND {key} < ?3 AND (?4 IS NULL OR status = ?4)
             ORDER BY {key} DESC LIMIT ?5",
            key = self.key
        );
        let (from, before) = bounds(from, before);
        let (from, before) = (
            from.saturating_sub(self.shift),
            before.saturating_sub(self.shift),
        );
        let mut rows: Vec<ExecutionRow> = self
            .lock()
            .prepare_cached(&sql)?
            .query_map(params![uuid, from, before, status, limit as i64], execution)?
            .collect::<rusqlite::Result<_>>()?;
        if let Some(archive) = &self.archive {
            for row in &mut rows {
                row.file = Some(archive.results_file(uuid, row.start));
            }
        }
        Ok(rows)
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

    fn scheduler_columns(&self) -> String {
        SCHEDULER.replace("{key}", self.key)
    }

    fn read(&self, row: &Row<'_>) -> rusqlite::Result<SchedulerRow> {
        scheduler(row, self.naming)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl SchedulerRow {
    /// The time up to which it is looked at: one that only the archive knows ended with its last execution.
    pub fn until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        match &self.last {
            Some((_, end)) if self.status == "ARCHIVED" => (*end).min(now),
            _ => now,
        }
    }

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

fn scheduler(row: &Row<'_>, naming: NameFormat) -> rusqlite::Result<SchedulerRow> {
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
        input: read_input(&input, naming),
    })
}

fn read_input(text: &str, naming: NameFormat) -> Input {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let at = |pointer: &str| json.pointer(pointer).and_then(|value| value.as_str());
    let place = |pointer| at(pointer).unwrap_or_default();
    // An archive knows the place as one address.
    let (bucket, prefix) = match place("/S3InputConfiguration/Bucket").strip_prefix("s3://") {
        Some(address) => address.split_once('/').unwrap_or((address, "")),
        None => (
            place("/S3InputConfiguration/Bucket"),
            place("/S3InputConfiguration/Prefix"),
        ),
    };
    Input {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
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

pub(super) fn execution(row: &Row<'_>) -> rusqlite::Result<ExecutionRow> {
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

pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    #[derive(serde::Deserialize)]
    struct Share {
        name: String,
        value: f64,
    }
    let diagnostics: String = row.get(2)?;
    // The service keeps objects, the archive's index pairs.
    let mut shares: Vec<(String, f64)> = match serde_json::from_str::<Vec<Share>>(&diagnostics) {
        Ok(shares) => shares
            .into_iter()
            .map(|share| (share.name, share.value))
            .collect(),
        Err(_) => serde_json::from_str(&diagnostics).unwrap_or_default(),
    };
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(EventRow {
        start: time(row.get(0)?),
        end: time(row.get(1)?),
        shares,
    })
}

pub(super) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{Archive, Execution, Index, ResultObject, Summary};

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + minutes * 60, 0).unwrap()
    }

    #[test]
    fn an_archive_is_read_like_a_services_state() {
        let directory = tempfile::tempdir().unwrap();
        let index = Index::open(&Archive::new(directory.path()), at(0)).unwrap();
        for window in 0..12 {
            let failed = window == 3;
            let execution = Execution {
                scheduler: "pump".into(),
                model: "m".into(),
                model_version: None,
                scheduled: Some(at(window * 5 + 5)),
                data_start: at(window * 5),
                data_end: at(window * 5 + 5),
                status: if failed { "FAILED" } else { "SUCCESS" }.into(),
                failed_reason: failed.then(|| "Could not find data file".into()),
                result: (!failed).then(|| ResultObject {
                    bucket: "b".into(),
                    key: format!("output/{window}"),
                }),
                input: "s3://plant/input/".into(),
            };
            // Two events: windows 5 to 7, and the last one.
            let anomalous = matches!(window, 5..=7 | 11);
            let summary = Summary {
                rows: 5,
                anomalous: if anomalous { 4 } else { 0 },
                score: Some(if window == 6 { 0.9 } else { 0.6 }),
                top: vec![(format!("c\\s{window}"), 0.7)],
            };
            index.note(std::slice::from_ref(&execution)).unwrap();
            index
                .archived(&execution, &summary, at(window * 5 + 6))
                .unwrap();
        }
        index.advance("pump").unwrap();
        let place = Place::archive(
            directory.path().join("index.db"),
            Cadence::Pt5m,
            NameFormat::default(),
        );
        let state = place.open().unwrap();
        let scheduler = state.scheduler("pump").unwrap().unwrap();
        assert_eq!(
            (scheduler.model.as_str(), scheduler.latest_result.as_deref()),
            ("m", Some("ANOMALOUS"))
        );
        assert_eq!(
            (
                scheduler.input.bucket.as_str(),
                scheduler.input.prefix.as_str()
            ),
            ("plant", "input/")
        );
        assert_eq!(scheduler.last, Some(("SUCCESS".into(), at(60))));
        let first = state.executions("pump", None, None, None, 8).unwrap();
        let second = state
            .executions("pump", None, None, Some(first[7].end), 8)
            .unwrap();
        let ends: Vec<_> = first.iter().chain(&second).map(|row| row.end).collect();
        assert_eq!(
            ends,
            (1..=12)
                .rev()
                .map(|window| at(window * 5))
                .collect::<Vec<_>>()
        );
        let failed = state
            .executions("pump", Some("FAILED"), None, None, 8)
            .unwrap();
        assert_eq!(
            (failed.len(), failed[0].reason.as_deref()),
            (1, Some("Could not find data file"))
        );
        assert_eq!(first[0].result, Some(("b".into(), "output/11".into())));
        let events = state.events("pump", None, None, 8).unwrap();
        let spans: Vec<_> = events
            .iter()
            .map(|event| (event.start, event.end))
            .collect();
        assert_eq!(spans, [(at(55), at(60)), (at(25), at(40))]);
        assert_eq!(
            events[1].shares,
            [("c\\s6".to_owned(), 0.7)],
            "the sensors of the highest score"
        );
        assert_eq!(
            state.event("pump", at(25)).unwrap(),
            Some(events[1].clone())
        );
        let counts = state.counts(at(60)).unwrap();
        assert_eq!((counts.active_count, counts.failing), (1, 0));
        assert_eq!(
            counts.last_hour,
            [("FAILED".to_owned(), 1), ("SUCCESS".to_owned(), 11)]
        );
        assert!(state.labels(at(0), at(60), 5).unwrap().is_empty());
    }
}
