//! Read-only questions to a service's state, on a connection of their own, so that looking never waits for the runner and
//! never holds it up. `executions` asks them.
//!
//! Guarantees: every query is bounded by a limit or by the number of schedulers, through the tables' keys. Times are UTC.

use std::collections::BTreeMap;
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
const SCHEDULER: &str = "s.name, s.uuid, s.model_name, s.status,
     (SELECT CASE WHEN l.anomalous > 0 THEN 'ANOMALOUS' ELSE 'NORMAL' END FROM execution l
      WHERE l.scheduler_uuid = s.uuid AND l.status = 'SUCCESS' AND l.boundary_us <= ?1 + 300000000 ORDER BY l.boundary_us DESC LIMIT 1),
     s.frequency, s.delay_minutes, s.due_us, s.input,
     (SELECT e.status || ' ' || e.boundary_us FROM execution e
      WHERE e.scheduler_uuid = s.uuid AND e.boundary_us <= ?1 + 300000000 AND e.status <> 'IN_PROGRESS' ORDER BY e.boundary_us DESC LIMIT 1)";
/// The columns that [`execution`] reads.
const EXECUTION: &str = "e.start_us, e.boundary_us, e.scheduled_us, e.finished_us, e.status, e.failed_reason, e.result_bucket, e.result_key, e.rows, e.anomalous";
/// Whether the last SUCCESS had an anomalous row; `?1` is now. That a scheduler is stopped ends no anomaly.
const ANOMALOUS: &str = "coalesce((SELECT l.anomalous > 0 FROM execution l WHERE l.scheduler_uuid = s.uuid AND l.status = 'SUCCESS'
     AND l.boundary_us <= ?1 + 300000000 ORDER BY l.boundary_us DESC LIMIT 1), 0)";
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
        let pairs = |sql: &str, bounds: [i64; 2]| -> rusqlite::Result<Vec<(String, u64)>> {
            db.prepare_cached(sql)?
                .query_map(bounds, |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })?
                .collect()
        };
        let now_us = now.timestamp_micros();
        let schedulers = pairs(
            "SELECT status, count(*) FROM scheduler WHERE ?1 = ?2 GROUP BY status ORDER BY status",
            [0, 0],
        )?;
        // One seek per scheduler, then only the last hour of it.
        let last_hour = pairs(
            "SELECT e.status, count(*) FROM scheduler s CROSS JOIN execution e
             ON e.scheduler_uuid = s.uuid AND e.boundary_us >= ?2 AND e.boundary_us <= ?1 + 300000000
             GROUP BY e.status ORDER BY e.status",
            [now_us, (now - TimeDelta::hours(1)).timestamp_micros()],
        )?;
        let active_count: i64 = db
            .prepare_cached(&format!(
                "SELECT count(*) FROM scheduler s WHERE {ANOMALOUS}"
            ))?
            .query_row([now_us], |row| row.get(0))?;
        let active = news(&db, now, DateTime::<Utc>::MAX_UTC, MOST_ACTIVE)?;
        let active = active
            .into_iter()
            .map(|news| (news.scheduler, news.since.unwrap_or(now)))
            .collect();
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

    /// Schedulers that are anomalous, and those whose newest event ended after `since`; at most `limit`.
    pub fn anomalies(
        &self,
        now: DateTime<Utc>,
        since: DateTime<Utc>,
        limit: usize,
    ) -> rusqlite::Result<Vec<News>> {
        news(&self.lock(), now, since, limit)
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

/// Schedulers that are anomalous, and those whose newest event ended after `since`; at most `limit`.
fn news(
    db: &Connection,
    now: DateTime<Utc>,
    since: DateTime<Utc>,
    limit: usize,
) -> rusqlite::Result<Vec<News>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT s.name, s.uuid, {ANOMALOUS}, e.start_us
         FROM scheduler s LEFT JOIN event e ON e.scheduler_uuid = s.uuid AND e.start_us =
             (SELECT max(n.start_us) FROM event n WHERE n.scheduler_uuid = s.uuid AND n.start_us <= ?1 + 300000000)
         WHERE {ANOMALOUS} OR e.end_us > ?2
         ORDER BY s.name LIMIT ?3"
    ))?;
    let mut rows = statement.query(params![
        now.timestamp_micros(),
        since.timestamp_micros(),
        limited(limit)
    ])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let uuid: String = row.get(1)?;
        let newest: Option<i64> = row.get(3)?;
        let event = newest
            .map(|newest| episode(db, &uuid, newest))
            .transpose()?
            .flatten();
        found.push(News {
            scheduler: row.get(0)?,
            uuid,
            active: row.get(2)?,
            since: event.as_ref().map(|event| event.start),
            event,
        });
    }
    Ok(found)
}

/// The anomaly that the event which starts at `newest` belongs to: all events back to the last SUCCESS without an anomalous
/// row, and beyond it where one of them began before that.
fn episode(db: &Connection, uuid: &str, newest: i64) -> rusqlite::Result<Option<EventRow>> {
    let mut healthy = db.prepare_cached(
        "SELECT boundary_us FROM execution WHERE scheduler_uuid = ?1 AND status = 'SUCCESS' AND boundary_us <= ?2 AND anomalous = 0
         ORDER BY boundary_us DESC LIMIT 1",
    )?;
    let mut healthy_before = |start: i64| -> rusqlite::Result<i64> {
        let found = healthy.query_row(params![uuid, start], |row| row.get(0));
        Ok(found.optional()?.unwrap_or(i64::MIN))
    };
    let mut events = db.prepare_cached(
        "SELECT start_us, end_us, diagnostics, rows FROM event WHERE scheduler_uuid = ?1 AND start_us <= ?2 ORDER BY start_us DESC",
    )?;
    let mut events = events.query(params![uuid, newest])?;
    let (mut whole, mut sum, mut count): (Option<EventRow>, BTreeMap<String, f64>, f64) =
        (None, BTreeMap::new(), 0.0);
    let mut since = i64::MAX;
    while let Some(row) = events.next()? {
        let (start, end): (i64, i64) = (row.get(0)?, row.get(1)?);
        if whole.is_some() && end <= since {
            break;
        }
        if start < since {
            since = healthy_before(start)?;
        }
        let (part, rows) = (event(row)?, row.get::<_, i64>(3)? as f64);
        count += rows;
        for (name, share) in &part.shares {
            *sum.entry(name.clone()).or_default() += share * rows;
        }
        match &mut whole {
            Some(whole) => whole.start = part.start,
            None => whole = Some(part),
        }
    }
    let Some(mut whole) = whole else {
        return Ok(None);
    };
    whole.shares = sum
        .into_iter()
        .map(|(name, sum)| (name, sum / count.max(1.0)))
        .collect();
    whole.shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(Some(whole))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executions::{Place, State};
    use crate::inference::{Archive, Execution, Index, Summary};
    use crate::service::store::executions::{
        CatchUp, Claim, End, Failed, FailureKind, Look, begin,
    };
    use crate::service::store::{NewModel, Store, events::Anomaly, schedulers};
    use crate::signal::Cadence;
    use std::collections::HashSet;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// A service's store with the scheduler `s`, and an archive of it.
    struct Both {
        _directory: tempfile::TempDir,
        store: Store,
        index: Index,
        states: [State; 2],
    }

    /// The rows of a window: seconds after its start, and the share of the first sensor where the row is anomalous.
    type Rows = Vec<(i64, Option<f64>)>;

    impl Both {
        async fn new(now: DateTime<Utc>) -> Both {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::open(directory.path()).unwrap();
            let model = NewModel {
                name: "m".into(),
                components: vec![("c".into(), vec!["a".into(), "b".into()])],
                sampling_us: None,
                file: vec![1],
                trained: crate::model::Span { start: 0, end: 1 },
                region: "r".into(),
                account: "123456789012".into(),
            };
            store.register_model(model, now).await.unwrap();
            let made = store.transact(move |db| {
                db.execute_batch(
                    "INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output, role_arn,
                                            created_us, updated_us)
                     VALUES ('s', 's', 's', 'm', 'RUNNING', 0, 'PT5M', '{}', '{}', 'r', 0, 0)",
                )?;
                let schedule = schedulers::schedule(db, "s")?.unwrap();
                let catch_up = CatchUp {
                    all: true,
                    max_age: TimeDelta::days(7),
                };
                begin(db, &schedule, now, catch_up)
            });
            made.await.unwrap();
            let archive = Archive::new(directory.path().join("archive"));
            let index = Index::open(&archive, now).unwrap();
            let archived = directory.path().join("archive/index.db");
            let places = [
                Place::service(directory.path().join("state.db")),
                Place::archive(archived, Cadence::Pt5m, NameFormat::default()),
            ];
            Both {
                _directory: directory,
                store,
                index,
                states: places.map(|place| place.open().unwrap()),
            }
        }

        /// Claims what is due; of what passed nothing or `all`.
        async fn claim(&self, now: DateTime<Utc>, all: bool) -> Vec<Claim> {
            let look = Look {
                now,
                catch_up: CatchUp {
                    all,
                    max_age: TimeDelta::days(7),
                },
                busy: HashSet::new(),
                most: 100,
                rewind: true,
            };
            self.store.claim_due(look).await.unwrap().claims
        }

        /// The execution ended so, `None`: it failed; for the first time or late.
        async fn end(&self, claim: &Claim, rows: Option<&Rows>, late: bool, now: DateTime<Utc>) {
            let shares =
                |first: f64| [("c\\a".to_owned(), first), ("c\\b".to_owned(), 1.0 - first)];
            let time = |second: i64| claim.window.start() + TimeDelta::seconds(second);
            let end = match rows {
                None => End::Failed(Failed::new(FailureKind::NoFile, "no")),
                Some(rows) => End::Success {
                    bucket: "b".into(),
                    key: "k".into(),
                    scoring_state: None,
                    rows: rows.len(),
                    score: None,
                    anomalies: rows
                        .iter()
                        .filter_map(|(second, share)| {
                            Some(Anomaly {
                                time_us: time(*second).timestamp_micros(),
                                shares: shares((*share)?).to_vec(),
                            })
                        })
                        .collect(),
                    step_us: 60_000_000,
                },
            };
            let boundary_us = claim.window.end().timestamp_micros();
            match late {
                true => self.store.end_late(claim, now, end).await.unwrap(),
                false => {
                    let ended = self.store.end_execution("s", boundary_us, now, end);
                    ended.await.unwrap();
                }
            }
            let lines: String = rows
                .into_iter()
                .flatten()
                .map(|(second, share)| {
                    let mut line = serde_json::json!({
                        "timestamp": time(*second).format("%Y-%m-%dT%H:%M:%S.000000").to_string(),
                        "prediction": i32::from(share.is_some()),
                    });
                    if let Some(share) = share {
                        let each = shares(*share);
                        line["diagnostics"] = each
                            .iter()
                            .map(|(name, value)| serde_json::json!({"name": name, "value": value}))
                            .collect();
                    }
                    format!("{line}\n")
                })
                .collect();
            let execution = Execution {
                scheduler: "s".into(),
                model: "m".into(),
                model_version: None,
                scheduled: None,
                data_start: claim.window.start(),
                data_end: claim.window.end(),
                status: if rows.is_some() { "SUCCESS" } else { "FAILED" }.into(),
                failed_reason: rows.is_none().then(|| "no".to_owned()),
                result: None,
                input: String::new(),
            };
            let summary = match rows {
                Some(_) => Summary::of(lines.as_bytes()).unwrap(),
                None => Summary::default(),
            };
            self.index.note(std::slice::from_ref(&execution)).unwrap();
            self.index.archived(&execution, &summary, now).unwrap();
        }

        /// What both say at `now`, which must be the same.
        fn told(&self, now: DateTime<Utc>, context: &str) -> (Counts, Vec<News>) {
            // Sums of shares come out in another order.
            let event = |event: &EventRow| {
                let mut shares: Vec<_> = event
                    .shares
                    .iter()
                    .map(|(name, share)| (name.clone(), (share * 1e6).round() as i64))
                    .collect();
                shares.sort();
                (event.start, event.end, shares)
            };
            let said = self.states.each_ref().map(|state| {
                let counts = state.counts(now).unwrap();
                let news = state.anomalies(now, now - TimeDelta::days(1), 9).unwrap();
                let events = state.events("s", None, None, 1_000).unwrap();
                let executions = state.executions("s", None, None, None, 1_000).unwrap();
                let failing = state.failing(now, 9).unwrap();
                let scheduler = state.scheduler(now, "s").unwrap();
                let text = format!(
                    "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
                    Counts {
                        schedulers: Vec::new(),
                        overdue: Vec::new(),
                        ..counts.clone()
                    },
                    news.iter()
                        .map(|news| (news.active, news.since, news.event.as_ref().map(event)))
                        .collect::<Vec<_>>(),
                    events.iter().map(event).collect::<Vec<_>>(),
                    executions
                        .iter()
                        .map(|one| (one.start, one.end, &one.status, one.rows))
                        .collect::<Vec<_>>(),
                    failing
                        .iter()
                        .map(|one| (one.since, one.last.end))
                        .collect::<Vec<_>>(),
                    scheduler.map(|scheduler| (scheduler.latest_result, scheduler.last)),
                );
                (text, counts, news)
            });
            let [(service, counts, news), (archive, ..)] = said;
            assert_eq!(service, archive, "{context}");
            (counts, news)
        }
    }

    fn healthy() -> Rows {
        (1..=5).map(|minute| (minute * 60, None)).collect()
    }

    fn anomalous(minutes: &[i64]) -> Rows {
        let mut rows = healthy();
        for (second, share) in &mut rows {
            *share = minutes.contains(&(*second / 60)).then_some(0.5);
        }
        rows
    }

    #[tokio::test]
    async fn the_same_rows_say_the_same_on_a_gateway_as_on_the_service() {
        for seed in 0..24 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut now = at("2026-03-01T10:02:00Z");
            let both = Both::new(now).await;
            let mut failed: Vec<Claim> = Vec::new();
            let mut said = String::new();
            for _ in 0..14 {
                now += TimeDelta::minutes(5);
                for claim in both.claim(now, true).await {
                    let rows: Option<Rows> = match dice.u32(0..10) {
                        0..3 => None,
                        3..6 => Some(healthy()),
                        _ => Some(
                            healthy()
                                .into_iter()
                                .map(|(second, _)| {
                                    (
                                        second,
                                        dice.bool().then(|| f64::from(dice.u32(0..10)) / 10.0),
                                    )
                                })
                                .collect(),
                        ),
                    };
                    said += &format!("{rows:?}\n");
                    both.end(&claim, rows.as_ref(), false, now).await;
                    if rows.is_none() {
                        failed.push(claim);
                    }
                }
                both.told(now, &format!("seed {seed} at {now}\n{said}"));
                if dice.u32(0..4) == 0 && !failed.is_empty() {
                    let claim = failed.swap_remove(dice.usize(..failed.len()));
                    let rows = match dice.bool() {
                        true => healthy(),
                        false => anomalous(&[1, 2, 3, 4, 5]),
                    };
                    said += &format!("late {}: {rows:?}\n", claim.window);
                    now += TimeDelta::seconds(1);
                    both.end(&claim, Some(&rows), true, now).await;
                    both.told(now, &format!("seed {seed} late at {now}\n{said}"));
                    now -= TimeDelta::seconds(1);
                }
            }
        }
    }

    /// Ends a window after the other so, and returns when that was.
    async fn windows(both: &Both, each: &[Option<Rows>]) -> DateTime<Utc> {
        let mut now = at("2026-03-01T10:02:00Z");
        for rows in each {
            now += TimeDelta::minutes(5);
            for claim in both.claim(now, true).await {
                both.end(&claim, rows.as_ref(), false, now).await;
            }
        }
        now
    }

    #[tokio::test]
    async fn a_late_result_in_the_middle_parts_an_anomaly_at_once() {
        let both = Both::new(at("2026-03-01T10:02:00Z")).await;
        let all = || Some(anomalous(&[1, 2, 3, 4, 5]));
        let now = windows(&both, &[Some(healthy()), all(), None, all()]).await;
        let (counts, _) = both.told(now, "before");
        assert_eq!(counts.active[0].1, at("2026-03-01T10:06:00Z"));
        let scheduler = both.store.scheduler("s").await.unwrap();
        let since = now - TimeDelta::hours(1);
        let found = both.store.late_windows(scheduler, since, now, now, 5);
        let late = found.await.unwrap().remove(0);
        both.end(&late, Some(&healthy()), true, now + TimeDelta::seconds(9))
            .await;
        let (counts, news) = both.told(now, "after");
        assert_eq!(counts.active[0].1, at("2026-03-01T10:16:00Z"));
        assert_eq!(news[0].since, Some(at("2026-03-01T10:16:00Z")));
    }

    #[tokio::test]
    async fn an_anomaly_lasts_while_its_scheduler_is_stopped_and_one_of_a_time_to_come_has_not_begun()
     {
        let both = Both::new(at("2026-03-01T10:02:00Z")).await;
        let now = windows(&both, &[Some(healthy()), Some(anomalous(&[2, 4]))]).await;
        let set = |status: &'static str| {
            both.store.transact(move |db| {
                db.execute("UPDATE scheduler SET status = ?1", [status])?;
                Ok(())
            })
        };
        for status in ["STOPPING", "STOPPED", "PENDING"] {
            set(status).await.unwrap();
            let (counts, news) = both.told(now, status);
            assert_eq!(counts.active_count, 1, "{status}");
            assert!(news[0].active, "{status}");
        }
        set("RUNNING").await.unwrap();
        // Two days ahead it is over, and has failed: it says nothing before its time, also to the API.
        let ahead = now + TimeDelta::days(2);
        let claims = both.claim(ahead, false).await;
        both.end(&claims[0], Some(&healthy()), false, ahead).await;
        let told = |now: DateTime<Utc>| {
            let (counts, news) = both.told(now, "ahead");
            (counts.active_count, news[0].active, counts.last_hour)
        };
        let hour = vec![("SUCCESS".to_owned(), 2)];
        assert_eq!(told(now), (1, true, hour));
        both.claim(now, false).await;
        let latest = both.store.scheduler("s").await.unwrap().latest_result;
        assert_eq!(latest, Some(schedulers::LatestResult::Anomalous));
    }
}
