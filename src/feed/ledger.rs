//! The ledger: one durable row for each window's state, in SQLite.
//!
//! It is an index over what the spool and the bucket hold, and can be rebuilt from them; a damaged ledger is set aside and
//! a new one begun, and no sealed window is lost with it. A state only moves forward: due, spooled, then one of the final
//! states. Committed means durable (`synchronous = FULL`). It reads no clock and no file but its own.

mod pages;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

pub use pages::Waiting;

use super::due::Due;
use super::entry::{Census, Entry, State};
use crate::signal::{Cadence, Window};

/// What the ledger could not do.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite refused; on a full disk nothing has changed and the next attempt may succeed.
    #[error("ledger {}: {source}", path.display())]
    Sqlite {
        /// The ledger file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A stored value is not one of ours.
    #[error("ledger {}: {what}", path.display())]
    Content {
        /// The ledger file.
        path: PathBuf,
        /// Which value, and why.
        what: String,
    },
    /// Written by a later version.
    #[error(
        "ledger {} has format {found}, this version knows up to {FORMAT}: run the newer lookoutd, or move the file away \
         to have it rebuilt from the spool and the bucket",
        path.display()
    )]
    Newer {
        /// The ledger file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
}

impl LedgerError {
    /// The file system is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. }
            if matches!(error.code, rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure))
    }
}

/// How a ledger came to be open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It was there.
    Existing,
    /// There was none, or it was never told what the bucket holds.
    Fresh,
    /// It was damaged and is set aside here; this one is new.
    Replaced(PathBuf),
}

const FORMAT: i64 = 1;

/// How long a call waits for another process.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE window (
        start      INTEGER PRIMARY KEY,
        end        INTEGER NOT NULL,
        cadence    TEXT NOT NULL,
        state      TEXT NOT NULL,
        reason     TEXT,
        files      INTEGER NOT NULL DEFAULT 0,
        components INTEGER NOT NULL DEFAULT 0,
        rows       INTEGER NOT NULL DEFAULT 0,
        bytes      INTEGER NOT NULL DEFAULT 0,
        cut_at     INTEGER,
        shipped_at INTEGER,
        attempts   INTEGER NOT NULL DEFAULT 0,
        last_error TEXT
    ) STRICT;
    CREATE INDEX window_state ON window (state, start);
    CREATE TABLE skipped (
        start INTEGER NOT NULL, end INTEGER NOT NULL, cadence TEXT NOT NULL, reason TEXT NOT NULL,
        PRIMARY KEY (start, end)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;";

/// SQLite's application id, set once the ledger knows what spool and bucket hold: "LkOD".
const COMPLETE: i64 = 0x4c6b_4f44;

/// Counts rows that no version of this program wrote. A flipped bit in a start, an end, a cadence or a state is one of them:
/// they say the same twice over.
const ODD: &str = "SELECT
    (SELECT count(*) FROM window WHERE start % 300 <> 0
        OR end - start IS NOT CASE cadence WHEN 'PT5M' THEN 300 WHEN 'PT10M' THEN 600 WHEN 'PT15M' THEN 900
                                           WHEN 'PT30M' THEN 1800 WHEN 'PT1H' THEN 3600 END
        OR state NOT IN ('due', 'spooled', 'shipped', 'partial', 'empty', 'skipped', 'quarantined')
        OR rows < 0 OR bytes < 0 OR attempts < 0 OR files < 0 OR (state = 'shipped' AND files < components))
  + (SELECT count(*) FROM skipped WHERE start >= end OR cadence NOT IN ('PT5M', 'PT10M', 'PT15M', 'PT30M', 'PT1H'))";

const COLUMNS: &str = "start, end, cadence, state, reason, files, components, rows, bytes, cut_at, shipped_at, attempts, last_error";

/// The ledger of one data directory. Cheap to clone; every call blocks briefly.
#[derive(Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
}

impl Ledger {
    /// Opens `data_dir/ledger.db`, creating it where absent and replacing it where it is damaged.
    pub fn open(data_dir: &Path, now: DateTime<Utc>) -> Result<(Self, Opened), LedgerError> {
        let path = data_dir.join("ledger.db");
        let existed = path.exists();
        match Self::open_file(&path) {
            Ok(ledger) => {
                let opened = if ledger.is_complete()? {
                    Opened::Existing
                } else {
                    Opened::Fresh
                };
                Ok((ledger, opened))
            }
            Err(error) if existed && is_damage(&error) => {
                let aside = data_dir.join(format!(
                    "ledger.db.damaged-{}",
                    now.format("%Y%m%dT%H%M%SZ")
                ));
                let moved = std::fs::rename(&path, &aside).map_err(|source| LedgerError::Content {
                    path: path.clone(),
                    what: format!("is damaged and cannot be moved aside: {source}"),
                });
                moved?;
                for suffix in ["-wal", "-shm"] {
                    let side = data_dir.join(format!("ledger.db{suffix}"));
                    // A stale write-ahead log must not be replayed into the new file.
                    if side.exists() {
                        let to = data_dir.join(format!(
                            "ledger.db.damaged-{}{suffix}",
                            now.format("%Y%m%dT%H%M%SZ")
                        ));
                        std::fs::rename(&side, to).map_err(|source| LedgerError::Content {
                            path: side,
                            what: format!("cannot be moved aside: {source}"),
                        })?;
                    }
                }
                Ok((Self::open_file(&path)?, Opened::Replaced(aside)))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a ledger to look at, beside a running daemon, also where only reading is allowed. Creates and repairs nothing;
    /// `None` where there is none yet.
    pub fn open_existing(data_dir: &Path) -> Result<Option<Self>, LedgerError> {
        let path = data_dir.join("ledger.db");
        if !path.exists() {
            return Ok(None);
        }
        let fail = |source| LedgerError::Sqlite {
            path: path.clone(),
            source,
        };
        let connection =
            Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        match format_of(&connection).map_err(fail)? {
            0 => Ok(None),
            1..=FORMAT => Ok(Some(Self {
                connection: Arc::new(Mutex::new(connection)),
                path,
            })),
            found => Err(LedgerError::Newer { path, found }),
        }
    }

    fn open_file(path: &Path) -> Result<Self, LedgerError> {
        let fail = |source| LedgerError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256;",
            )
            .map_err(fail)?;
        let check: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(fail)?;
        if check != "ok" {
            return Err(LedgerError::Content {
                path: path.to_owned(),
                what: check,
            });
        }
        match format_of(&connection).map_err(fail)? {
            0 => connection
                .execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))
                .map_err(fail)?,
            1..=FORMAT => {}
            found => {
                return Err(LedgerError::Newer {
                    path: path.to_owned(),
                    found,
                });
            }
        }
        // SQLite checks its pages, not the values in them.
        let odd: i64 = connection
            .query_row(ODD, [], |row| row.get(0))
            .map_err(fail)?;
        if odd > 0 {
            return Err(LedgerError::Content {
                path: path.to_owned(),
                what: format!("{odd} rows hold values that were never written"),
            });
        }
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            path: path.to_owned(),
        })
    }

    /// Records that the ledger knows what spool and bucket hold, so that it need not be rebuilt at the next start.
    pub fn rebuilt(&self) -> Result<(), LedgerError> {
        self.run(|connection| connection.pragma_update(None, "application_id", COMPLETE))
    }

    fn is_complete(&self) -> Result<bool, LedgerError> {
        let id: i64 = self.run(|connection| {
            connection.query_row("PRAGMA application_id", [], |row| row.get(0))
        })?;
        Ok(id == COMPLETE)
    }

    /// The end of everything recorded before `before`: `None` for a ledger with nothing earlier.
    pub fn frontier(&self, before: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, LedgerError> {
        let end: Option<i64> = self.run(|connection| {
            connection.query_row(
                "SELECT max(end) FROM (
                    SELECT max(end) AS end FROM window WHERE start < ?1
                    UNION ALL SELECT max(end) FROM skipped WHERE start < ?1)",
                [before.timestamp()],
                |row| row.get(0),
            )
        })?;
        Ok(end.and_then(|end| DateTime::from_timestamp(end, 0)))
    }

    /// The record of the window that starts at `start`.
    pub fn get(&self, start: DateTime<Utc>) -> Result<Option<Entry>, LedgerError> {
        self.run(|connection| {
            connection
                .query_row(
                    &format!("SELECT {COLUMNS} FROM window WHERE start = ?1"),
                    [start.timestamp()],
                    entry,
                )
                .optional()
        })
    }

    /// Records a decision: the backlog as due, the rest as skipped. One transaction.
    pub fn plan(&self, due: &Due) -> Result<(), LedgerError> {
        if due.backlog.is_none() && due.skipped.is_none() {
            return Ok(());
        }
        self.run(|connection| {
            let transaction = connection.unchecked_transaction()?;
            if let Some((from, to)) = due.backlog {
                let mut insert = transaction.prepare(
                    "INSERT INTO window (start, end, cadence, state) VALUES (?1, ?2, ?3, 'due') ON CONFLICT DO NOTHING",
                )?;
                let mut window = from;
                while window < to {
                    insert.execute(params![
                        window.start().timestamp(),
                        window.end().timestamp(),
                        window.cadence().to_string()
                    ])?;
                    window = window.next();
                }
            }
            if let Some((from, to, reason)) = due.skipped {
                let cadence = due
                    .live
                    .or(due.backlog.map(|(from, _)| from))
                    .map(|window| window.cadence().to_string())
                    .unwrap_or_else(|| Cadence::Pt5m.to_string());
                transaction.execute(
                    "INSERT INTO skipped (start, end, cadence, reason) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                    params![from.timestamp(), to.timestamp(), cadence, reason],
                )?;
            }
            transaction.commit()
        })
    }

    /// The oldest window that is due.
    pub fn oldest_due(&self) -> Result<Option<Window>, LedgerError> {
        let found: Option<(i64, String)> = self.run(|connection| {
            connection
                .query_row(
                    "SELECT start, cadence FROM window WHERE state = 'due' ORDER BY start LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()
        })?;
        found
            .map(|(start, cadence)| self.window(start, &cadence))
            .transpose()
    }

    /// The windows recorded as spooled, oldest first.
    pub fn spooled(&self) -> Result<Vec<Window>, LedgerError> {
        self.oldest_spooled(usize::MAX)
    }

    /// The oldest windows recorded as spooled, at most `limit`; read from an index, whatever else is recorded.
    pub fn oldest_spooled(&self, limit: usize) -> Result<Vec<Window>, LedgerError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<(i64, String)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT start, cadence FROM window WHERE state = 'spooled' ORDER BY start LIMIT ?1",
                )?
                .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        found
            .into_iter()
            .map(|(start, cadence)| self.window(start, &cadence))
            .collect()
    }

    /// Records an entry, replacing what was known of its window.
    pub fn record(&self, entry: &Entry) -> Result<(), LedgerError> {
        self.run(|connection| {
            connection.execute(
                &format!(
                    "INSERT OR REPLACE INTO window ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
                ),
                params![
                    entry.start.timestamp(),
                    entry.end.timestamp(),
                    entry.cadence.to_string(),
                    entry.state.name(),
                    entry.reason,
                    entry.files,
                    entry.components,
                    entry.rows as i64,
                    entry.bytes as i64,
                    entry.cut_at.map(|time| time.timestamp_millis()),
                    entry.shipped_at.map(|time| time.timestamp_millis()),
                    entry.attempts,
                    entry.last_error
                ],
            )
        })?;
        Ok(())
    }

    /// The store has the window: shipped, or partial where components are missing. Returns the new state.
    pub fn shipped(&self, window: &Window, now: DateTime<Utc>) -> Result<State, LedgerError> {
        let state: String = self.run(|connection| {
            connection.query_row(
                "UPDATE window SET shipped_at = ?2, last_error = NULL,
                    state = CASE WHEN files < components THEN 'partial' ELSE 'shipped' END,
                    reason = CASE WHEN files < components THEN files || '/' || components END
                 WHERE start = ?1 RETURNING state",
                params![window.start().timestamp(), now.timestamp_millis()],
                |row| row.get(0),
            )
        })?;
        self.state(&state)
    }

    /// Shipping failed; the window stays spooled.
    pub fn failed(&self, window: &Window, error: &str) -> Result<u32, LedgerError> {
        self.run(|connection| {
            connection.query_row(
                "UPDATE window SET attempts = attempts + 1, last_error = ?2 WHERE start = ?1 RETURNING attempts",
                params![window.start().timestamp(), error],
                |row| row.get(0),
            )
        })
    }

    /// Moves a window to a state with a reason, as an operator or a conflict does.
    pub fn set_state(
        &self,
        window: &Window,
        state: State,
        reason: Option<&str>,
    ) -> Result<(), LedgerError> {
        self.run(|connection| {
            connection.execute(
                "INSERT INTO window (start, end, cadence, state, reason) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (start) DO UPDATE SET state = ?4, reason = ?5",
                params![
                    window.start().timestamp(),
                    window.end().timestamp(),
                    window.cadence().to_string(),
                    state.name(),
                    reason
                ],
            )
        })?;
        Ok(())
    }

    /// Everything recorded, newest first, skipped ranges among it.
    pub fn list(&self, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        self.run(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM window UNION ALL
                     SELECT start, end, cadence, 'skipped', reason, 0, 0, 0, 0, NULL, NULL, 0, NULL FROM skipped
                     ORDER BY start DESC LIMIT ?1"
                ))?
                .query_map([limit as i64], entry)?
                .collect()
        })
    }

    /// Counts by state.
    pub fn census(&self) -> Result<Census, LedgerError> {
        let counts: Vec<(String, u64)> = self.run(|connection| {
            connection
                .prepare(
                    "SELECT state, count(*) FROM window GROUP BY state
                     UNION ALL SELECT 'skipped', count(*) FROM skipped",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
                .collect()
        })?;
        let mut census = Census::default();
        for (state, count) in counts {
            *match self.state(&state)? {
                State::Due => &mut census.due,
                State::Spooled => &mut census.spooled,
                State::Shipped => &mut census.shipped,
                State::Partial => &mut census.partial,
                State::Empty => &mut census.empty,
                State::Skipped => &mut census.skipped,
                State::Quarantined => &mut census.quarantined,
            } += count;
        }
        Ok(census)
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        work(&self.lock()).map_err(|source| LedgerError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held leaves SQLite with an open transaction at worst, which the next one rolls back.
        self.connection
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn content(&self, what: String) -> LedgerError {
        LedgerError::Content {
            path: self.path.clone(),
            what,
        }
    }

    fn state(&self, name: &str) -> Result<State, LedgerError> {
        State::from_name(name).ok_or_else(|| self.content(format!("unknown window state {name:?}")))
    }

    fn window(&self, start: i64, cadence: &str) -> Result<Window, LedgerError> {
        let cadence: Cadence = cadence
            .parse()
            .map_err(|error| self.content(format!("{error}")))?;
        DateTime::from_timestamp(start, 0)
            .and_then(|start| Window::new(start, cadence).ok())
            .ok_or_else(|| self.content(format!("window start {start} is not on its cadence")))
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let time = |seconds: i64| DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    let millis = |value: Option<i64>| value.and_then(DateTime::from_timestamp_millis);
    let cadence: String = row.get(2)?;
    let state: String = row.get(3)?;
    let bad = |column, what: String| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    Ok(Entry {
        start: time(row.get(0)?),
        end: time(row.get(1)?),
        cadence: cadence
            .parse()
            .map_err(|error| bad(2, format!("{error}")))?,
        state: State::from_name(&state).ok_or_else(|| bad(3, format!("unknown state {state}")))?,
        reason: row.get(4)?,
        files: row.get(5)?,
        components: row.get(6)?,
        rows: row.get::<_, i64>(7)? as u64,
        bytes: row.get::<_, i64>(8)? as u64,
        cut_at: millis(row.get(9)?),
        shipped_at: millis(row.get(10)?),
        attempts: row.get(11)?,
        last_error: row.get(12)?,
    })
}

fn format_of(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn is_damage(error: &LedgerError) -> bool {
    match error {
        LedgerError::Content { .. } => true,
        LedgerError::Newer { .. } => false,
        LedgerError::Sqlite { source, .. } => {
            matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ) || matches!(source, rusqlite::Error::SqlInputError { .. })
                // A schema that SQLite cannot read, such as "unsupported file format", has no code of its own.
                || source
                    .sqlite_error()
                    .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_ERROR)
        }
    }
}
