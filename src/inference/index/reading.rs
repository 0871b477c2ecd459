//! Read-only questions to an archive's index, on a connection of their own, so that looking never waits for the watcher.
//! `executions` asks them.
//!
//! Guarantees: a list is bounded by its limit, everything else by the number of schedulers and the length of the anomaly
//! that runs, through the table's keys; events come from the runs of anomalous rows, of SUCCESS only. What an archive does
//! not know (a scheduler's status, its wake-up, labels) is left open. Times are UTC.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{COLUMNS, Index, IndexError, limit as limited, parse, read_row};
use crate::executions::{
    Counts, EventRow, ExecutionRow, Failing, Input, MOST_ACTIVE, News, SchedulerRow,
};
use crate::inference::result::Run;
use crate::inference::{Archive, Archived};
use crate::model::events::joins;
use crate::signal::{Cadence, NameFormat};

/// An archive's index, open for reading. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct Past {
    connection: Arc<Mutex<Connection>>,
    /// Window length and naming of the feeder whose scheduler is archived.
    pub(super) feeder: Cadence,
    naming: NameFormat,
    /// The schedulers that are judged; `None`: all.
    pub(super) judged: Option<Arc<BTreeSet<String>>>,
    pub(super) cadences: Arc<Mutex<HashMap<String, Cadence>>>,
    archive: Archive,
    /// The anomaly of each scheduler, by its newest result and the one that was archived last: nothing else changes it.
    anomalies: Arc<Mutex<HashMap<String, (Newest, Anomaly)>>>,
}

/// Data start of the newest result, and when one was last archived: one that comes late changes what came before.
type Newest = (i64, i64);

/// What the newest results say.
#[derive(Clone, Debug, Default)]
struct Anomaly {
    /// The last SUCCESS had an anomalous row.
    active: bool,
    /// The first row of the newest anomaly.
    since: Option<i64>,
    /// All of its rows.
    event: Option<EventRow>,
}

/// A SUCCESS whose results are here and have rows: only such a one says anything about the plant. One of a window that has not
/// begun (a clock was ahead once) counts when its time comes: what is the case now is asked up to `?2`, which is now.
const SAYS: &str = "scheduler = ?1 AND status = 'SUCCESS' AND archived_us IS NOT NULL AND rows > 0";

impl Past {
    /// Opens the index at `path`, of an archive with windows of `cadence`; `None` where there is none yet.
    pub fn open(
        path: &Path,
        cadence: Cadence,
        naming: NameFormat,
    ) -> rusqlite::Result<Option<Self>> {
        let Some(root) = path.parent().filter(|_| path.exists()) else {
            return Ok(None);
        };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(std::time::Duration::from_secs(2))?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -512;")?;
        Ok(Some(Self {
            connection: Arc::new(Mutex::new(connection)),
            feeder: cadence,
            naming,
            judged: None,
            cadences: Arc::default(),
            archive: Archive::new(root),
            anomalies: Arc::default(),
        }))
    }

    /// Counts over all schedulers.
    pub fn counts(&self, now: DateTime<Utc>) -> rusqlite::Result<Counts> {
        let names = self.names()?;
        let mut last_hour: Vec<(String, u64)> = Vec::new();
        let mut active = Vec::new();
        for name in &names {
            let hour = now - TimeDelta::hours(1) - self.cadence(name)?.duration();
            for (status, count) in self.by_status(name, hour.timestamp_micros(), now)? {
                match last_hour.iter_mut().find(|(known, _)| *known == status) {
                    Some((_, sum)) => *sum += count,
                    None => last_hour.push((status, count)),
                }
            }
            if !self.judges(name) {
                continue;
            }
            let anomaly = self.anomaly(name, now)?;
            if anomaly.active {
                active.push((name.clone(), anomaly.since.map_or(now, time)));
            }
        }
        last_hour.sort();
        let failing = self.failing(now, usize::MAX)?;
        let active_count = active.len() as u64;
        active.truncate(MOST_ACTIVE);
        Ok(Counts {
            schedulers: match names.len() {
                0 => Vec::new(),
                count => vec![("ARCHIVED".into(), count as u64)],
            },
            failing: failing.len() as u64,
            failing_since: failing
                .into_iter()
                .map(|failing| (failing.scheduler, failing.since))
                .take(MOST_ACTIVE)
                .collect(),
            last_hour,
            active,
            active_count,
            overdue: Vec::new(),
        })
    }

    /// Finished executions that wait to be archived.
    pub fn waiting(&self) -> rusqlite::Result<u64> {
        let count: i64 = self
            .lock()
            .prepare_cached(
                "SELECT count(*) FROM execution INDEXED BY open WHERE archived_us IS NULL AND status <> 'IN_PROGRESS'",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// Schedulers whose last ended execution failed; at most `limit`.
    pub fn failing(&self, now: DateTime<Utc>, limit: usize) -> rusqlite::Result<Vec<Failing>> {
        let mut failing = Vec::new();
        for name in self.names()? {
            if failing.len() >= limit {
                break;
            }
            if !self.judges(&name) {
                continue;
            }
            let Some(last) = self.last_ended(&name, now)? else {
                continue;
            };
            if last.execution.status != "FAILED" {
                continue;
            }
            let first: Option<Archived> = self
                .lock()
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM execution WHERE scheduler = ?1 AND status = 'FAILED' AND start_us > coalesce(
                         (SELECT max(start_us) FROM execution WHERE scheduler = ?1 AND status = 'SUCCESS' AND start_us <= ?3), ?2)
                     ORDER BY start_us LIMIT 1"
                ))?
                .query_row(params![name, i64::MIN, now.timestamp_micros()], read_row)
                .optional()?;
            let since = first.map_or(last.execution.data_end, |first| first.execution.data_end);
            failing.push(Failing {
                last: self.execution(last),
                scheduler: name,
                since,
            });
        }
        Ok(failing)
    }

    /// Schedulers that are anomalous, and those whose newest event ended after `since`; at most `limit`.
    pub fn anomalies(
        &self,
        now: DateTime<Utc>,
        since: DateTime<Utc>,
        limit: usize,
    ) -> rusqlite::Result<Vec<News>> {
        let mut news = Vec::new();
        for name in self.names()? {
            if news.len() >= limit {
                break;
            }
            if !self.judges(&name) {
                continue;
            }
            let anomaly = self.anomaly(&name, now)?;
            let is_late = anomaly
                .event
                .as_ref()
                .is_some_and(|event| event.end > since);
            if anomaly.active || is_late {
                news.push(News {
                    scheduler: name.clone(),
                    uuid: name,
                    active: anomaly.active,
                    since: anomaly.since.map(time),
                    event: anomaly.event,
                });
            }
        }
        Ok(news)
    }

    /// Schedulers by name, those after `after` that contain `part`, at most `limit`.
    pub fn schedulers(
        &self,
        now: DateTime<Utc>,
        part: &str,
        after: &str,
        limit: usize,
    ) -> rusqlite::Result<Vec<SchedulerRow>> {
        let part = part.to_lowercase();
        let mut rows = Vec::new();
        for name in self.names()? {
            if rows.len() < limit && *name > *after && name.to_lowercase().contains(&part) {
                rows.push(self.row(&name, now)?);
            }
        }
        Ok(rows)
    }

    /// The scheduler of that name.
    pub fn scheduler(
        &self,
        now: DateTime<Utc>,
        name: &str,
    ) -> rusqlite::Result<Option<SchedulerRow>> {
        let is_known: bool = self
            .lock()
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM execution WHERE scheduler = ?1)
                     OR EXISTS (SELECT 1 FROM cursor WHERE scheduler = ?1)",
            )?
            .query_row([name], |row| row.get(0))?;
        is_known.then(|| self.row(name, now)).transpose()
    }

    /// Executions of windows that end in `from..before`, newest first, at most `limit`; of one status or all.
    pub fn executions(
        &self,
        name: &str,
        status: Option<&str>,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> rusqlite::Result<Vec<ExecutionRow>> {
        // They are kept in order of their start, and asked for by their end.
        let length = self.cadence(name)?.micros();
        let start = |end: Option<DateTime<Utc>>, open: i64| {
            end.map_or(open, |end| end.timestamp_micros().saturating_sub(length))
        };
        let found: Vec<Archived> = self
            .lock()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM execution
                 WHERE scheduler = ?1 AND start_us >= ?2 AND start_us < ?3 AND (?4 IS NULL OR status = ?4)
                 ORDER BY start_us DESC LIMIT ?5"
            ))?
            .query_map(
                params![
                    name,
                    start(from, i64::MIN),
                    start(before, i64::MAX),
                    status,
                    limited(limit)
                ],
                read_row,
            )?
            .collect::<rusqlite::Result<_>>()?;
        Ok(found.into_iter().map(|row| self.execution(row)).collect())
    }

    /// Events that overlap `from..before`, newest first, at most `limit`.
    pub fn events(
        &self,
        name: &str,
        from: Option<DateTime<Utc>>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> rusqlite::Result<Vec<EventRow>> {
        let from = from.map_or(i64::MIN, |time| time.timestamp_micros());
        let before = before.map_or(i64::MAX, |time| time.timestamp_micros());
        let db = self.lock();
        // Up to the next window that ends whatever reaches beyond `before`.
        let upper: Option<i64> = db
            .prepare_cached(&format!(
                "SELECT min(start_us) FROM execution WHERE {SAYS} AND anomalous = 0 AND start_us >= ?2"
            ))?
            .query_row(params![name, before], |row| row.get(0))?;
        let mut statement = db.prepare_cached(&format!(
            "SELECT runs, step_us FROM execution WHERE {SAYS} AND anomalous > 0 AND start_us < ?2 ORDER BY start_us DESC"
        ))?;
        let mut rows = statement.query(params![name, upper.unwrap_or(i64::MAX)])?;
        let mut found: Vec<Span> = Vec::new();
        'windows: while let Some(row) = rows.next()? {
            let runs: Vec<Run> = parse(row, 0)?;
            let step: i64 = row.get(1)?;
            for run in runs.into_iter().rev() {
                if let Some(later) = found.last_mut()
                    && joins(run.end_us, later.start, step)
                {
                    later.add(run);
                    continue;
                }
                if found.last().is_some_and(|event| event.start >= before) {
                    found.pop();
                }
                if found.len() == limit || run.end_us < from {
                    break 'windows;
                }
                found.push(Span::of(run));
            }
        }
        found.retain(|event| event.start < before && event.end >= from);
        Ok(found.into_iter().map(Span::event).collect())
    }

    /// The event that starts at `start`.
    pub fn event(&self, name: &str, start: DateTime<Utc>) -> rusqlite::Result<Option<EventRow>> {
        let found = self.events(
            name,
            Some(start),
            Some(start + TimeDelta::microseconds(1)),
            2,
        )?;
        Ok(found.into_iter().find(|event| event.start == start))
    }

    /// The names of all schedulers: one seek for each; imported ones were never listed and have no cursor.
    fn names(&self) -> rusqlite::Result<Vec<String>> {
        self.lock()
            .prepare_cached(
                "WITH RECURSIVE step (scheduler) AS (
                     SELECT min(scheduler) FROM execution
                     UNION ALL
                     SELECT (SELECT min(e.scheduler) FROM execution e WHERE e.scheduler > step.scheduler)
                     FROM step WHERE scheduler IS NOT NULL)
                 SELECT scheduler FROM step WHERE scheduler IS NOT NULL UNION SELECT scheduler FROM cursor ORDER BY 1",
            )?
            .query_map([], |row| row.get(0))?
            .collect()
    }

    fn by_status(
        &self,
        name: &str,
        since: i64,
        now: DateTime<Utc>,
    ) -> rusqlite::Result<Vec<(String, u64)>> {
        self.lock()
            .prepare_cached(
                "SELECT status, count(*) FROM execution WHERE scheduler = ?1 AND start_us >= ?2 AND start_us <= ?3 GROUP BY status",
            )?
            .query_map(params![name, since, now.timestamp_micros()], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
            })?
            .collect()
    }

    fn last_ended(&self, name: &str, now: DateTime<Utc>) -> rusqlite::Result<Option<Archived>> {
        self.lock()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM execution
                 WHERE scheduler = ?1 AND start_us <= ?2 AND status <> 'IN_PROGRESS' ORDER BY start_us DESC LIMIT 1"
            ))?
            .query_row(params![name, now.timestamp_micros()], read_row)
            .optional()
    }

    fn row(&self, name: &str, now: DateTime<Utc>) -> rusqlite::Result<SchedulerRow> {
        let newest: Option<Archived> = self
            .lock()
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM execution WHERE scheduler = ?1 ORDER BY start_us DESC LIMIT 1"
            ))?
            .query_row([name], read_row)
            .optional()?;
        let last = self.last_ended(name, now)?;
        let latest = self
            .newest(name, now)?
            .map(|(_, is_anomalous)| match is_anomalous {
                true => "ANOMALOUS".to_owned(),
                false => "NORMAL".to_owned(),
            });
        let newest = newest.map(|row| row.execution);
        Ok(SchedulerRow {
            name: name.to_owned(),
            uuid: name.to_owned(),
            model: newest
                .as_ref()
                .map(|execution| execution.model.clone())
                .unwrap_or_default(),
            status: "ARCHIVED".into(),
            latest_result: latest,
            frequency: self.cadence(name)?.as_str().to_owned(),
            delay_minutes: 0,
            wakes: None,
            last: last.map(|row| (row.execution.status, row.execution.data_end)),
            input: self.input(newest.as_ref().map_or("", |execution| &execution.input)),
        })
    }

    /// An archive knows where a scheduler reads as one address.
    fn input(&self, address: &str) -> Input {
        let place = address.strip_prefix("s3://").unwrap_or(address);
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        Input {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            naming: self.naming,
        }
    }

    fn execution(&self, row: Archived) -> ExecutionRow {
        let (execution, summary) = (row.execution, row.summary);
        let has_results = execution.status == "SUCCESS";
        ExecutionRow {
            start: execution.data_start,
            end: execution.data_end,
            scheduled: execution.scheduled.unwrap_or(execution.data_end),
            finished: row.archived_at,
            reason: execution.failed_reason,
            result: execution.result.map(|object| (object.bucket, object.key)),
            rows: has_results.then_some((limited(summary.rows), limited(summary.anomalous))),
            file: Some(
                self.archive
                    .results_file(&execution.scheduler, execution.data_start),
            ),
            status: execution.status,
        }
    }

    /// The newest result, and whether it is anomalous.
    fn newest(&self, name: &str, now: DateTime<Utc>) -> rusqlite::Result<Option<(Newest, bool)>> {
        self.lock()
            .prepare_cached(&format!(
                "SELECT start_us, (SELECT max(archived_us) FROM execution WHERE scheduler = ?1), anomalous > 0 FROM execution
                 WHERE {SAYS} AND start_us <= ?2 ORDER BY start_us DESC LIMIT 1"
            ))?
            .query_row(params![name, now.timestamp_micros()], |row| {
                Ok(((row.get(0)?, row.get(1)?), row.get(2)?))
            })
            .optional()
    }

    /// What the newest results say of a scheduler.
    fn anomaly(&self, name: &str, now: DateTime<Utc>) -> rusqlite::Result<Anomaly> {
        let Some((newest, active)) = self.newest(name, now)? else {
            return Ok(Anomaly::default());
        };
        if let Some((known, anomaly)) = lock(&self.anomalies).get(name)
            && *known == newest
        {
            return Ok(anomaly.clone());
        }
        let event = self.episode(name, now)?;
        let anomaly = Anomaly {
            active,
            since: event.as_ref().map(|event| event.start.timestamp_micros()),
            event,
        };
        lock(&self.anomalies).insert(name.to_owned(), (newest, anomaly.clone()));
        Ok(anomaly)
    }

    /// The newest anomaly: its last window, all before it back to the last healthy result, and beyond that as far as what came
    /// before belongs to the same event.
    fn episode(&self, name: &str, now: DateTime<Utc>) -> rusqlite::Result<Option<EventRow>> {
        let reach = 3 * self.cadence(name)?.micros();
        let db = self.lock();
        let last: Option<i64> = db
            .prepare_cached(&format!(
                "SELECT start_us FROM execution WHERE {SAYS} AND anomalous > 0 AND start_us <= ?2 ORDER BY start_us DESC LIMIT 1"
            ))?
            .query_row(params![name, now.timestamp_micros()], |row| row.get(0))
            .optional()?;
        let Some(last) = last else { return Ok(None) };
        let mut chain: Option<Span> = None;
        let mut statement = db.prepare_cached(&format!(
            "SELECT anomalous, runs, step_us, start_us FROM execution WHERE {SAYS} AND start_us <= ?2 ORDER BY start_us DESC"
        ))?;
        let mut rows = statement.query(params![name, last])?;
        let mut parted = false;
        while let Some(row) = rows.next()? {
            let is_anomalous = row.get::<_, i64>(0)? > 0;
            if !is_anomalous {
                // Rows of a window lie within it, and steps are no longer than windows.
                let reach = row.get::<_, i64>(3)?.saturating_add(reach);
                match &chain {
                    Some(chain) if chain.start <= reach => parted = true,
                    _ => break,
                }
                continue;
            }
            let mut runs: Vec<Run> = parse(row, 1)?;
            let step: i64 = row.get(2)?;
            if parted {
                let joined = chain.as_ref().is_some_and(|chain| {
                    runs.last()
                        .is_some_and(|run| joins(run.end_us, chain.start, step))
                });
                if !joined {
                    break;
                }
                parted = false;
            }
            while let Some(run) = runs.pop() {
                match &mut chain {
                    Some(chain) => chain.add(run),
                    None => chain = Some(Span::of(run)),
                }
            }
        }
        Ok(chain.map(Span::event))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        lock(&self.connection)
    }
}

impl Index {
    /// Executions with `from <= data start < to`, newest first, at most `most`; of one status or all.
    pub fn list(
        &self,
        scheduler: &str,
        from: Option<DateTime<Utc>>,
        to: Option<DateTime<Utc>>,
        status: Option<&str>,
        most: usize,
    ) -> Result<Vec<Archived>, IndexError> {
        self.select(
            "scheduler = ?1 AND start_us >= ?2 AND start_us < ?3 AND (?4 IS NULL OR status = ?4)
             ORDER BY start_us DESC LIMIT ?5",
            params![
                scheduler,
                from.map_or(i64::MIN, |time| time.timestamp_micros()),
                to.map_or(i64::MAX, |time| time.timestamp_micros()),
                status,
                limited(most)
            ],
        )
    }
}

/// Runs that are put together from the newest to the oldest.
struct Span {
    start: i64,
    end: i64,
    rows: usize,
    shares: HashMap<String, f64>,
}

impl Span {
    fn of(run: Run) -> Self {
        let mut span = Self {
            start: run.start_us,
            end: run.end_us,
            rows: 0,
            shares: HashMap::new(),
        };
        span.add(run);
        span
    }

    fn add(&mut self, run: Run) {
        self.start = self.start.min(run.start_us);
        self.rows += run.rows;
        for (name, share) in run.shares {
            *self.shares.entry(name).or_default() += share * run.rows as f64;
        }
    }

    fn event(self) -> EventRow {
        let rows = self.rows.max(1) as f64;
        let mut shares: Vec<(String, f64)> = self
            .shares
            .into_iter()
            .map(|(name, sum)| (name, sum / rows))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        EventRow {
            start: time(self.start),
            end: time(self.end),
            shares,
        }
    }
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
