//! The ledger: one durable row for each window's state, in SQLite.
//!
//! It is an index over what the spool and the bucket hold, and can be rebuilt from them; a damaged ledger is set aside and
//! a new one begun, and no sealed window is lost with it. A state moves only from the state that its mover saw (`changes`), so
//! that daemon and commands may work on one ledger at once. Committed means durable (`synchronous = FULL`). It reads no clock
//! and no file but its own. A window is known by its asset and its start; a [`Ledger`] speaks of one asset.

mod changes;
mod future;
mod late;
mod pages;
mod schema;
mod tally;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use tracing::info;

pub use pages::Waiting;

use super::entry::{Census, Entry, State};
use crate::disk::clean::CleanStop;
use crate::signal::{Cadence, Window};
use schema::{FORMAT, create, format_of, migrate, odd_rows, read_as_2};

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
    /// Written by an earlier version, and opened only to be looked at.
    #[error(
        "ledger {} has format 1, in which this version changes nothing: start this lookoutd once, it brings the ledger to \
         format {FORMAT} and keeps a copy",
        path.display()
    )]
    Earlier {
        /// The ledger file.
        path: PathBuf,
    },
    /// The copy that is kept of an earlier format could not be written.
    #[error("copy of the ledger {}: {source}", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// What the file system said.
        source: std::io::Error,
    },
}

impl LedgerError {
    /// The file system is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sqlite {
                source: rusqlite::Error::SqliteFailure(error, _),
                ..
            } => matches!(
                error.code,
                rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure
            ),
            Self::Copy { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
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

/// How long a call waits for another process.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

/// SQLite's application id, set once the ledger knows what spool and bucket hold: "LkOD".
const COMPLETE: i64 = 0x4c6b_4f44;

const COLUMNS: &str = "start, end, cadence, state, reason, files, components, rows, bytes, cut_at, shipped_at, attempts, last_error, \
    blank, infinite, doubled, journal, asset";
/// The same of a skipped range.
const SKIPPED_COLUMNS: &str = "start, end, cadence, 'skipped' AS state, reason, 0, 0, 0, 0, NULL, NULL, 0, NULL, NULL, 0, 0, NULL, asset";

/// The ledger of one data directory. Cheap to clone; every call blocks briefly.
#[derive(Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    // Dropped after the connection, with which the database is closed. None where it is only looked at.
    stop: Option<Arc<CleanStop>>,
    path: PathBuf,
    /// Whose windows it speaks of; empty where the tag list names no asset.
    asset: Arc<str>,
    /// Opened in an earlier format, to be looked at.
    earlier: bool,
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
        let format = format_of(&connection).map_err(fail)?;
        match format {
            0 => return Ok(None),
            1 => read_as_2(&connection).map_err(fail)?,
            FORMAT => {}
            found => return Err(LedgerError::Newer { path, found }),
        }
        Ok(Some(Self {
            connection: Arc::new(Mutex::new(connection)),
            stop: None,
            path,
            asset: "".into(),
            earlier: format != FORMAT,
        }))
    }

    fn open_file(path: &Path) -> Result<Self, LedgerError> {
        let fail = |source| LedgerError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let clean = CleanStop::was(path);
        let connection = Connection::open(path).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -256;",
            )
            .map_err(fail)?;
        if !clean {
            let check: String = connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(fail)?;
            if check != "ok" {
                return Err(LedgerError::Content {
                    path: path.to_owned(),
                    what: check,
                });
            }
        }
        let format = format_of(&connection).map_err(fail)?;
        match format {
            0 => create(&connection).map_err(fail)?,
            1 | FORMAT => {}
            found => {
                return Err(LedgerError::Newer {
                    path: path.to_owned(),
                    found,
                });
            }
        }
        let odd = match clean && format == FORMAT {
            true => 0,
            false => odd_rows(&connection).map_err(fail)?,
        };
        if odd > 0 {
            return Err(LedgerError::Content {
                path: path.to_owned(),
                what: format!("{odd} rows hold values that were never written"),
            });
        }
        if format == 1 {
            let copy = migrate(&connection, path)?;
            info!(copy = %copy.display(), "the ledger was brought from format 1 to {FORMAT}; the copy is kept");
        }
        tally::keep(&connection, !clean).map_err(fail)?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            stop: Some(Arc::new(CleanStop::of(path))),
            path: path.to_owned(),
            asset: "".into(),
            earlier: false,
        })
    }

    /// The same ledger, for the windows of the asset of this name.
    pub fn of(&self, asset: &str) -> Self {
        Self {
            asset: asset.into(),
            ..self.clone()
        }
    }

    /// Whose windows it speaks of.
    pub fn asset(&self) -> &str {
        &self.asset
    }

    /// Every asset that something is recorded of.
    pub fn assets(&self) -> Result<Vec<String>, LedgerError> {
        self.run(|connection| {
            connection
                .prepare(
                    // One seek for each asset.
                    "WITH RECURSIVE step (name) AS (
                         SELECT min(asset) FROM window
                         UNION ALL
                         SELECT (SELECT min(asset) FROM window WHERE asset > step.name) FROM step WHERE name IS NOT NULL)
                     SELECT name FROM step WHERE name IS NOT NULL",
                )?
                .query_map([], |row| row.get(0))?
                .collect()
        })
    }

    /// Records that the ledger knows what spool and bucket hold, so that it need not be rebuilt at the next start.
    pub fn rebuilt(&self) -> Result<(), LedgerError> {
        self.change(|connection| connection.pragma_update(None, "application_id", COMPLETE))
    }

    fn is_complete(&self) -> Result<bool, LedgerError> {
        let id: i64 = self.run(|connection| {
            connection.query_row("PRAGMA application_id", [], |row| row.get(0))
        })?;
        Ok(id == COMPLETE)
    }

    /// The record of the window that starts at `start`.
    pub fn get(&self, start: DateTime<Utc>) -> Result<Option<Entry>, LedgerError> {
        self.run(|connection| {
            connection
                .query_row(
                    &format!("SELECT {COLUMNS} FROM window WHERE start = ?1 AND asset = ?2"),
                    params![start.timestamp(), self.asset],
                    entry,
                )
                .optional()
        })
    }

    /// The oldest window that is due.
    pub fn oldest_due(&self) -> Result<Option<Window>, LedgerError> {
        Ok(self.oldest_due_but(&[], 1)?.into_iter().next())
    }

    /// The oldest windows that are due and do not start at one of these times, at most `limit`.
    pub fn oldest_due_but(
        &self,
        held: &[DateTime<Utc>],
        limit: usize,
    ) -> Result<Vec<Window>, LedgerError> {
        let due: Vec<(i64, String)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT start, cadence FROM window WHERE asset = ?1 AND state = 'due' ORDER BY start LIMIT ?2",
                )?
                .query_map(params![self.asset, (held.len() + limit) as i64], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect()
        })?;
        let is_free = |start: i64| !held.iter().any(|held| held.timestamp() == start);
        due.into_iter()
            .filter(|(start, _)| is_free(*start))
            .take(limit)
            .map(|(start, cadence)| self.window(start, &cadence))
            .collect()
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
                    "SELECT start, cadence FROM window WHERE asset = ?2 AND state = 'spooled' ORDER BY start LIMIT ?1",
                )?
                .query_map(params![limit, self.asset], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        found
            .into_iter()
            .map(|(start, cadence)| self.window(start, &cadence))
            .collect()
    }

    /// Everything recorded, newest first, skipped ranges among it.
    pub fn list(&self, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        self.run(|connection| {
            connection
                .prepare(&format!(
                    "SELECT {COLUMNS} FROM window WHERE asset = ?2
                     UNION ALL SELECT {SKIPPED_COLUMNS} FROM skipped WHERE asset = ?2 ORDER BY start DESC LIMIT ?1"
                ))?
                .query_map(params![limit as i64, self.asset], entry)?
                .collect()
        })
    }

    /// Counts by state.
    pub fn census(&self) -> Result<Census, LedgerError> {
        let counts = self.run(|connection| tally::of(connection, &self.asset))?;
        let mut census = Census::default();
        for (state, count) in counts {
            *match self.state(&state)? {
                State::Due => &mut census.due,
                State::Spooled => &mut census.spooled,
                State::Shipped => &mut census.shipped,
                State::Partial => &mut census.partial,
                State::Covered => &mut census.covered,
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
        work(&self.lock()).map_err(|source| {
            if let Some(stop) = &self.stop {
                stop.heard(&source);
            }
            LedgerError::Sqlite {
                path: self.path.clone(),
                source,
            }
        })
    }

    /// As `run`, for what changes something.
    fn change<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        if self.earlier {
            return Err(LedgerError::Earlier {
                path: self.path.clone(),
            });
        }
        self.run(work)
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
        blank: names(row.get(13)?),
        infinite: row.get::<_, i64>(14)? as u64,
        doubled: row.get::<_, i64>(15)? as u64,
        journal: row.get(16)?,
        asset: row.get(17)?,
    })
}

/// Names of components as they are stored: none of them has a comma.
fn names(stored: Option<String>) -> Vec<String> {
    stored
        .iter()
        .flat_map(|stored| stored.split(','))
        .map(str::to_owned)
        .collect()
}

fn is_damage(error: &LedgerError) -> bool {
    match error {
        LedgerError::Content { .. } => true,
        LedgerError::Newer { .. } | LedgerError::Earlier { .. } | LedgerError::Copy { .. } => false,
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
