//! The index of the archive: one row per execution, where listing has come to, and what is still to be fetched.
//!
//! SQLite in `archive/index.db`. It is an index only: it can be lost or removed at any time, is then built again from the
//! archive's files, and the executions are listed anew once. Committed means durable. Guarantees: an execution that was
//! listed is not forgotten before it is archived, because its row comes before the cursor moves; an archived one is
//! not fetched again. It reads no clock.

mod cursor;
mod floor;
mod judged;
mod peaks;
mod reading;
mod snapshot;
mod upgrade;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, Row, params};
use serde::Serialize;
use tracing::{info, warn};

use super::archive::{Archive, ArchiveError};
use super::execution::Execution;
use super::result::Summary;
use crate::disk::clean::CleanStop;

pub use reading::Past;
pub use snapshot::{Selection, Snapshot};

/// The index. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Index {
    connection: Arc<Mutex<Connection>>,
    // Dropped after the connection, with which the database is closed. None where it is only looked at.
    stop: Option<Arc<CleanStop>>,
    path: PathBuf,
}

/// An execution as the index knows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Archived {
    /// The execution.
    #[serde(flatten)]
    pub execution: Execution,
    /// Its results in short.
    pub summary: Summary,
    /// When it was archived; `None` while it is still to be.
    pub archived_at: Option<DateTime<Utc>>,
}

/// The index could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite refused; on a full disk nothing has changed and the next attempt may succeed.
    #[error("index {}: {source}", path.display())]
    Sqlite {
        /// The index file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The archive it is built from cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

const FORMAT: i64 = 2;
const SCHEMA: &str = "
CREATE TABLE execution (
    scheduler   TEXT NOT NULL,
    start_us    INTEGER NOT NULL,
    status      TEXT NOT NULL,
    execution   TEXT NOT NULL,
    rows        INTEGER NOT NULL DEFAULT 0,
    anomalous   INTEGER NOT NULL DEFAULT 0,
    score       REAL,
    top         TEXT NOT NULL DEFAULT '[]',
    archived_us INTEGER,
    runs        TEXT NOT NULL DEFAULT '[]',
    step_us     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scheduler, start_us)
) WITHOUT ROWID;
CREATE INDEX open ON execution (scheduler, start_us) WHERE archived_us IS NULL;
CREATE INDEX anomalous ON execution (scheduler, start_us) WHERE anomalous > 0;
CREATE INDEX archived ON execution (scheduler, archived_us);
-- Every execution whose data start is at or before this has been listed.
CREATE TABLE cursor (scheduler TEXT PRIMARY KEY, start_us INTEGER NOT NULL) WITHOUT ROWID;
";
/// Counts rows that no version of this program wrote: each repeats what its JSON says.
const ODD: &str = "SELECT count(*) FROM execution WHERE NOT json_valid(execution) OR NOT json_valid(top)
    OR status NOT IN ('IN_PROGRESS', 'SUCCESS', 'FAILED') OR rows < 0 OR anomalous < 0 OR anomalous > rows
    OR status IS NOT execution ->> '$.status' OR scheduler IS NOT execution ->> '$.scheduler'
    OR start_us / 1000000 IS NOT unixepoch(execution ->> '$.data_start')";
const COLUMNS: &str = "execution, rows, anomalous, score, top, archived_us";

impl Index {
    /// Opens the index of `archive`, building it again where it is absent or damaged.
    pub fn open(archive: &Archive, now: DateTime<Utc>) -> Result<Self, IndexError> {
        let path = archive.root().join("index.db");
        std::fs::create_dir_all(archive.root()).map_err(|source| ArchiveError::Io {
            path: archive.root().to_owned(),
            source,
        })?;
        match Self::connect(&path, archive) {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => {}
            Err(error) => {
                let aside = path.with_extension(format!("damaged-{}", now.timestamp()));
                warn!(%error, aside = %aside.display(), "the index of the archive is damaged: it is built again from the archive");
                std::fs::rename(&path, &aside).map_err(|source| ArchiveError::Io {
                    path: path.clone(),
                    source,
                })?;
                for suffix in ["db-wal", "db-shm"] {
                    // What the damaged file had not taken over is of no use to a new one.
                    let _ = std::fs::remove_file(path.with_extension(suffix));
                }
            }
        }
        Self::build(&path, archive, now)
    }

    /// The index beside a running daemon, to look at; `None` where there is none.
    /// It is not looked through: that is the daemon's, when it starts.
    pub fn open_existing(archive: &Archive) -> Result<Option<Self>, IndexError> {
        let path = archive.root().join("index.db");
        if !path.exists() {
            return Ok(None);
        }
        let fail = |source| IndexError::Sqlite {
            path: path.clone(),
            source,
        };
        let connection =
            Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
        pragmas(&connection).map_err(fail)?;
        Ok(Some(Self::of(connection, &path, None)))
    }

    /// Takes note of listed executions. One that is archived is left alone, unless it had failed and has been scored
    /// since.
    pub fn note(&self, executions: &[Execution]) -> Result<(), IndexError> {
        self.transact(|db| {
            let mut insert = db.prepare_cached(
                "INSERT INTO execution (scheduler, start_us, status, execution) SELECT ?1, ?2, ?3, ?4
                 WHERE ?2 >= coalesce((SELECT start_us FROM cursor WHERE scheduler = ''), ?2)
                 ON CONFLICT (scheduler, start_us) DO UPDATE SET status = ?3, execution = ?4, archived_us = NULL
                 WHERE execution <> ?4
                    AND (archived_us IS NULL OR (status = 'FAILED' AND ?3 = 'SUCCESS'))",
            )?;
            for execution in executions {
                insert.execute(params![
                    execution.scheduler,
                    execution.data_start.timestamp_micros(),
                    execution.status,
                    json(execution)
                ])?;
            }
            Ok(())
        })
    }

    /// Finished executions that are not archived and whose windows begin before `before`: of the newest `most`, the oldest
    /// first.
    pub fn to_archive(
        &self,
        scheduler: &str,
        before: DateTime<Utc>,
        most: usize,
    ) -> Result<Vec<Execution>, IndexError> {
        let mut found = self.select_open(
            "scheduler = ?1 AND archived_us IS NULL AND status <> 'IN_PROGRESS' AND start_us < ?2 ORDER BY start_us DESC LIMIT ?3",
            params![scheduler, before.timestamp_micros(), limit(most)],
        )?;
        found.reverse();
        Ok(found.into_iter().map(|row| row.execution).collect())
    }

    /// Executions that were in progress when they were last listed and began before `before`, the oldest first.
    pub fn in_progress(
        &self,
        scheduler: &str,
        before: DateTime<Utc>,
        most: usize,
    ) -> Result<Vec<Execution>, IndexError> {
        let found = self.select_open(
            "scheduler = ?1 AND archived_us IS NULL AND status = 'IN_PROGRESS' AND start_us < ?2 ORDER BY start_us LIMIT ?3",
            params![scheduler, before.timestamp_micros(), limit(most)],
        )?;
        Ok(found.into_iter().map(|row| row.execution).collect())
    }

    /// Failed executions with `since <= data start < before`, oldest first.
    pub fn failed(
        &self,
        scheduler: &str,
        since: DateTime<Utc>,
        before: DateTime<Utc>,
    ) -> Result<Vec<Execution>, IndexError> {
        let found = self.select(
            "scheduler = ?1 AND status = 'FAILED' AND start_us >= ?2 AND start_us < ?3 ORDER BY start_us",
            params![
                scheduler,
                since.timestamp_micros(),
                before.timestamp_micros()
            ],
        )?;
        Ok(found.into_iter().map(|row| row.execution).collect())
    }

    /// The execution is in the archive.
    pub fn archived(
        &self,
        execution: &Execution,
        summary: &Summary,
        now: DateTime<Utc>,
    ) -> Result<(), IndexError> {
        self.transact(|db| insert_archived(db, execution, summary, now))
    }

    /// The record of an execution was damaged: it is to be archived again. `known` is what is left of it; where nothing is,
    /// and this index has no row either, everything is listed once more.
    pub fn reopen(
        &self,
        scheduler: &str,
        data_start: DateTime<Utc>,
        known: Option<&Execution>,
    ) -> Result<(), IndexError> {
        self.transact(|db| {
            let row = params![scheduler, data_start.timestamp_micros()];
            let sql =
                "UPDATE execution SET archived_us = NULL WHERE scheduler = ?1 AND start_us = ?2";
            if db.execute(sql, row)? > 0 {
                return Ok(());
            }
            match known {
                Some(execution) => insert_open(db, execution),
                None => {
                    db.execute("DELETE FROM cursor WHERE scheduler = ?1", [scheduler])?;
                    Ok(())
                }
            }
        })
    }

    /// The results of an archived execution cannot be had any more: what is known of them stays.
    pub fn given_up(&self, execution: &Execution, now: DateTime<Utc>) -> Result<(), IndexError> {
        self.transact(|db| {
            db.execute(
                "UPDATE execution SET archived_us = ?3 WHERE scheduler = ?1 AND start_us = ?2",
                params![
                    execution.scheduler,
                    execution.data_start.timestamp_micros(),
                    now.timestamp_micros()
                ],
            )?;
            Ok(())
        })
    }

    /// One execution.
    pub fn get(
        &self,
        scheduler: &str,
        data_start: DateTime<Utc>,
    ) -> Result<Option<Archived>, IndexError> {
        let found = self.select(
            "scheduler = ?1 AND start_us = ?2",
            params![scheduler, data_start.timestamp_micros()],
        )?;
        Ok(found.into_iter().next())
    }

    /// The newest execution of a scheduler, or of all where it is empty.
    pub fn newest(&self, scheduler: &str) -> Result<Option<Archived>, IndexError> {
        let found = match scheduler {
            // One seek for each scheduler.
            "" => self.select(
                "(scheduler, start_us) IN (
                     WITH RECURSIVE step (name) AS (
                         SELECT min(scheduler) FROM execution
                         UNION ALL
                         SELECT (SELECT min(e.scheduler) FROM execution e WHERE e.scheduler > step.name) FROM step WHERE name IS NOT NULL)
                     SELECT name, (SELECT max(e.start_us) FROM execution e WHERE e.scheduler = name) FROM step WHERE name IS NOT NULL)
                 ORDER BY start_us DESC LIMIT 1",
                [],
            )?,
            _ => self.select(
                "scheduler = ?1 ORDER BY start_us DESC LIMIT 1",
                params![scheduler],
            )?,
        };
        Ok(found.into_iter().next())
    }

    /// Executions with `from <= data start < to`, oldest first, of one scheduler or of all where it is empty.
    pub fn range(
        &self,
        scheduler: &str,
        from: Option<DateTime<Utc>>,
        to: Option<DateTime<Utc>>,
    ) -> Result<Vec<Archived>, IndexError> {
        let micros =
            |time: Option<DateTime<Utc>>, open| time.map_or(open, |time| time.timestamp_micros());
        // Each by its key: without a scheduler all rows are looked at.
        let condition = match scheduler {
            "" => "?1 = '' AND start_us >= ?2 AND start_us < ?3 ORDER BY start_us, scheduler",
            _ => "scheduler = ?1 AND start_us >= ?2 AND start_us < ?3 ORDER BY start_us",
        };
        self.select(
            condition,
            params![scheduler, micros(from, i64::MIN), micros(to, i64::MAX)],
        )
    }

    fn select(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Archived>, IndexError> {
        self.select_from("execution", condition, parameters)
    }

    /// Of those that are not archived: SQLite by itself would go through all that ever were.
    fn select_open(
        &self,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Archived>, IndexError> {
        self.select_from("execution INDEXED BY open", condition, parameters)
    }

    fn select_from(
        &self,
        table: &str,
        condition: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Archived>, IndexError> {
        self.transact(|db| {
            db.prepare_cached(&format!("SELECT {COLUMNS} FROM {table} WHERE {condition}"))?
                .query_map(parameters, read_row)?
                .collect()
        })
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let mut connection = self.lock();
        connection
            .transaction()
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            })
            .map_err(|source| {
                if let Some(stop) = &self.stop {
                    stop.heard(&source);
                }
                IndexError::Sqlite {
                    path: self.path.clone(),
                    source,
                }
            })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The index at `path`; `None` where there is none, an error where it is damaged.
    fn connect(path: &Path, archive: &Archive) -> Result<Option<Self>, IndexError> {
        if !path.exists() {
            return Ok(None);
        }
        let fail = |source| IndexError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let clean = CleanStop::was(path);
        let mut connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
        pragmas(&connection).map_err(fail)?;
        let mut format: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fail)?;
        let stop = || Some(CleanStop::of(path));
        if format == FORMAT {
            // Which an index that is older lacks; where it does, questions take longer and get the same answers.
            let sql = "CREATE INDEX IF NOT EXISTS archived ON execution (scheduler, archived_us)";
            connection.execute_batch(sql).map_err(fail)?;
        }
        if clean && format == FORMAT {
            return Ok(Some(Self::of(connection, path, stop())));
        }
        let sound: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(fail)?;
        if sound == "ok" && format == 1 {
            upgrade::from_1(&mut connection, archive, path)?;
            format = FORMAT;
        }
        let corrupt = |what: String| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            fail(rusqlite::Error::SqliteFailure(code, Some(what)))
        };
        if sound != "ok" || format != FORMAT {
            return Err(corrupt(format!(
                "{sound}; format {format}, this build knows {FORMAT}"
            )));
        }
        let odd: i64 = connection
            .query_row(ODD, [], |row| row.get(0))
            .map_err(fail)?;
        if odd > 0 {
            return Err(corrupt(format!("{odd} rows hold what was never written")));
        }
        // Valid JSON may still lack a field.
        {
            let query = format!("SELECT {COLUMNS} FROM execution");
            let mut rows = connection.prepare(&query).map_err(fail)?;
            for row in rows.query_map([], read_row).map_err(fail)? {
                row.map_err(fail)?;
            }
        }
        Ok(Some(Self::of(connection, path, stop())))
    }

    /// Builds the index from the archive's files, in a file of its own that is renamed when it is whole.
    fn build(path: &Path, archive: &Archive, now: DateTime<Utc>) -> Result<Self, IndexError> {
        let staging = path.with_extension("new");
        let fail = |source| IndexError::Sqlite {
            path: staging.clone(),
            source,
        };
        let _ = std::fs::remove_file(&staging);
        let mut connection = Connection::open(&staging).map_err(fail)?;
        let transaction = connection.transaction().map_err(fail)?;
        transaction.execute_batch(SCHEMA).map_err(fail)?;
        let mut records = 0;
        for day in archive.days()? {
            for checked in archive.check_day(&day)? {
                if let Some((path, what)) = checked.damage {
                    let aside = archive.set_aside(&path)?.unwrap_or_default();
                    let (path, aside) = (path.display(), aside.display());
                    warn!(%path, what, %aside, "an archived record is damaged: set aside, its results are fetched again");
                    if let Some(record) = checked.record {
                        insert_open(&transaction, &record.execution).map_err(fail)?;
                    }
                    continue;
                }
                let Some(record) = checked.record else {
                    continue;
                };
                let summary = match archive.results(&record.execution)? {
                    Some(bytes) => Summary::of(&bytes).unwrap_or_else(|error| {
                        warn!(window = record.execution.window(), %error, "archived results cannot be read");
                        Summary::default()
                    }),
                    None => Summary::default(),
                };
                insert_archived(&transaction, &record.execution, &summary, now).map_err(fail)?;
                records += 1;
            }
        }
        transaction
            .pragma_update(None, "user_version", FORMAT)
            .map_err(fail)?;
        transaction.commit().map_err(fail)?;
        connection.close().map_err(|(_, source)| fail(source))?;
        std::fs::rename(&staging, path)
            .and_then(|()| std::fs::File::open(archive.root())?.sync_all())
            .map_err(|source| ArchiveError::Io {
                path: path.to_owned(),
                source,
            })?;
        if records > 0 {
            info!(records, "the index of the archive is built again");
        }
        let connection = Connection::open(path).map_err(fail)?;
        pragmas(&connection).map_err(fail)?;
        Ok(Self::of(connection, path, Some(CleanStop::of(path))))
    }

    fn of(connection: Connection, path: &Path, stop: Option<CleanStop>) -> Self {
        Self {
            connection: Arc::new(Mutex::new(connection)),
            stop: stop.map(Arc::new),
            path: path.to_owned(),
        }
    }
}

fn pragmas(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;",
    )
}

/// A row of an execution that is to be archived.
fn insert_open(db: &Connection, execution: &Execution) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR IGNORE INTO execution (scheduler, start_us, status, execution) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        execution.scheduler,
        execution.data_start.timestamp_micros(),
        execution.status,
        json(execution)
    ])?;
    Ok(())
}

fn insert_archived(
    db: &Connection,
    execution: &Execution,
    summary: &Summary,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO execution (scheduler, start_us, status, execution, rows, anomalous, score, top, archived_us, runs, step_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        execution.scheduler,
        execution.data_start.timestamp_micros(),
        execution.status,
        json(execution),
        limit(summary.rows),
        limit(summary.anomalous),
        summary.score,
        json(&summary.top),
        now.timestamp_micros(),
        json(&summary.runs),
        summary.step_us,
    ])?;
    Ok(())
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Archived> {
    Ok(Archived {
        execution: parse(row, 0)?,
        summary: Summary {
            rows: row.get::<_, u32>(1)? as usize,
            anomalous: row.get::<_, u32>(2)? as usize,
            score: row.get(3)?,
            top: parse(row, 4)?,
            // Events read these by themselves.
            runs: Vec::new(),
            step_us: 0,
        },
        archived_at: row
            .get::<_, Option<i64>>(5)?
            .and_then(DateTime::from_timestamp_micros),
    })
}

fn parse<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

/// Plain structs of texts and numbers always have a JSON.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::archive::tests::execution;
    use super::*;

    const RESULTS: &[u8] = b"{\"timestamp\": \"2026-03-01T10:05:00.000000\", \"prediction\": 1, \"anomaly_score\": 0.9, \
        \"diagnostics\": [{\"name\": \"c\\\\a\", \"value\": 1.0}]}\n";

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn only_an_index_that_a_clean_stop_left_is_opened_without_reading_it_all() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let now = at("2026-03-01T11:00:00Z");
        let path = archive.root().join("index.db");
        let index = Index::open(&archive, now).unwrap();
        index
            .note(&[execution("2026-03-01T10:00:00Z", "SUCCESS")])
            .unwrap();
        drop(index);
        let spoil = || {
            let connection = Connection::open(&path).unwrap();
            connection
                .execute_batch("UPDATE execution SET status = 'FAILED'")
                .unwrap();
        };
        let rows = || {
            let index = Index::open(&archive, now).unwrap();
            index.to_archive("s", now, 10).unwrap().len()
        };
        // As no clean stop leaves it: every row is looked at, and the index is built again from an archive without any.
        spoil();
        assert_eq!(rows(), 0);
        Index::open(&archive, now)
            .unwrap()
            .note(&[execution("2026-03-01T10:00:00Z", "SUCCESS")])
            .unwrap();
        // Somebody vouches for it: none is.
        spoil();
        drop(CleanStop::of(&path));
        assert_eq!(rows(), 1);
    }

    #[test]
    fn a_listed_execution_is_to_be_archived_until_it_is_and_never_again() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let now = at("2026-03-01T11:00:00Z");
        let index = Index::open(&archive, now).unwrap();
        assert_eq!(index.cursor("s", now).unwrap(), None);
        let running = execution("2026-03-01T10:00:00Z", "IN_PROGRESS");
        let done = execution("2026-03-01T10:05:00Z", "SUCCESS");
        index.note(&[done.clone(), running.clone()]).unwrap();
        index.advance("s", now).unwrap();
        assert_eq!(index.cursor("s", now).unwrap(), Some(done.data_start));
        assert_eq!(
            index.to_archive("s", now, 10).unwrap(),
            std::slice::from_ref(&done)
        );
        assert_eq!(
            index.in_progress("s", done.data_start, 10).unwrap(),
            [running]
        );
        let finished = execution("2026-03-01T10:00:00Z", "FAILED");
        index.note(std::slice::from_ref(&finished)).unwrap();
        assert_eq!(
            index.to_archive("s", now, 10).unwrap(),
            [finished.clone(), done.clone()]
        );
        for one in [&finished, &done] {
            index
                .archived(one, &Summary::default(), at("2026-03-01T11:00:00Z"))
                .unwrap();
        }
        index.note(&[finished.clone(), done.clone()]).unwrap();
        assert!(index.to_archive("s", now, 10).unwrap().is_empty());
        // A failure that was scored late is fetched again.
        index
            .note(&[execution("2026-03-01T10:00:00Z", "SUCCESS")])
            .unwrap();
        assert_eq!(index.to_archive("s", now, 10).unwrap().len(), 1);
    }

    #[test]
    fn a_lost_or_damaged_index_is_built_again_from_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let now = at("2026-03-01T11:00:00Z");
        let one = execution("2026-03-01T10:00:00Z", "SUCCESS");
        archive.keep(&one, Some(RESULTS)).unwrap();
        archive
            .keep(&execution("2026-03-01T10:05:00Z", "FAILED"), None)
            .unwrap();
        for damage in [None, Some(&b"not a database"[..])] {
            if let Some(bytes) = damage {
                std::fs::write(directory.path().join("index.db"), bytes).unwrap();
            }
            let index = Index::open(&archive, now).unwrap();
            let known = index.range("", None, None).unwrap();
            assert_eq!(known.len(), 2);
            assert_eq!(known[0].execution, one);
            assert_eq!(known[0].summary.anomalous, 1);
            assert_eq!(known[0].summary.top, [("c\\a".to_owned(), 1.0)]);
            // Nothing is known of what was listed, so that everything is listed once more.
            assert_eq!(index.cursor("s", now).unwrap(), None);
            assert!(index.to_archive("s", now, 10).unwrap().is_empty());
        }
    }

    #[test]
    fn a_clock_that_is_ahead_takes_nothing_from_the_archive_and_lets_what_comes_in_again() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let now = at("2026-03-01T10:06:00Z");
        let day = chrono::TimeDelta::days(1);
        let index = Index::open(&archive, now).unwrap();
        let old = execution("2025-11-01T10:00:00Z", "SUCCESS");
        let here = execution("2026-03-01T10:00:00Z", "SUCCESS");
        for one in [&old, &here] {
            archive.keep(one, Some(RESULTS)).unwrap();
            index.archived(one, &Summary::default(), now).unwrap();
        }
        let known = || index.range("", None, None).unwrap().len();
        let expire = |before| crate::inference::expire(&archive, before).unwrap();
        // A year ahead, ninety days are kept.
        assert_eq!(expire(now + day * 275), 0);
        assert_eq!((known(), archive.walk().unwrap().len()), (2, 2));
        assert_eq!(expire(now - day * 90), 1);
        assert_eq!((known(), archive.walk().unwrap().len()), (1, 1));
        // What an earlier version let a clock do.
        index
            .transact(|db| {
                let floor = (now + day * 275).timestamp_micros();
                db.execute(
                    "UPDATE cursor SET start_us = ?1 WHERE scheduler = ''",
                    [floor],
                )
            })
            .unwrap();
        let next = execution("2026-03-01T10:05:00Z", "SUCCESS");
        index.note(std::slice::from_ref(&next)).unwrap();
        assert_eq!(known(), 1);
        expire(now - day * 90);
        index.note(std::slice::from_ref(&next)).unwrap();
        assert_eq!(known(), 2);
        // What is old is not known again, though it is listed.
        index.note(std::slice::from_ref(&old)).unwrap();
        assert_eq!(known(), 2);
    }

    #[test]
    fn an_execution_of_a_time_to_come_hides_no_later_one_and_a_failed_one_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let (ahead, now) = (at("2026-03-03T10:20:00Z"), at("2026-03-01T10:16:00Z"));
        let index = Index::open(&archive, now).unwrap();
        let here = execution("2026-03-01T10:05:00Z", "SUCCESS");
        let future = execution("2026-03-03T10:00:00Z", "SUCCESS");
        let failed = execution("2026-03-03T10:05:00Z", "FAILED");
        let all = [here.clone(), future.clone(), failed.clone()];
        index.note(&all).unwrap();
        // As a clock that was ahead itself saw it.
        index.advance("s", ahead).unwrap();
        assert_eq!(index.cursor("s", ahead).unwrap(), Some(failed.data_start));
        let beyond = now + chrono::TimeDelta::minutes(5);
        assert_eq!(index.void("s", beyond).unwrap(), 1);
        assert_eq!(index.cursor("s", now).unwrap(), Some(here.data_start));
        index.advance("s", now).unwrap();
        assert_eq!(index.cursor("s", now).unwrap(), Some(here.data_start));
        assert_eq!(
            index.newest_begun("s", now).unwrap().unwrap().execution,
            here
        );
        let open = index.to_archive("s", ahead, 10).unwrap();
        assert_eq!(open, [here, future]);
    }
}
