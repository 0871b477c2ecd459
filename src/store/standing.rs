//! How a store stands: what it holds, what it keeps for how long, how long its disk lasts, and what is wrong with it.
//!
//! Guarantees: a look reads no more than a page of rows in one snapshot; whoever reads the latest look reads no disk. What is
//! damaged is a trouble until it is whole again, written anew or gone, and each is looked at again.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tracing::error;

use super::retention::Prefix;
use super::{Problem, Store, bodies, objects};
use crate::vitals::{Code, Trouble, Troubles};

/// Rows of one snapshot.
const PAGE: usize = 2_000;
/// Objects that are known to be damaged, at most; the rest are counted.
const KNOWN: usize = 100;
/// What a damaged database is called among the troubles.
const DATABASE: &str = "store.db";

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the database and the bodies' files.
    pub file_bytes: u64,
    /// Of which nothing is in.
    pub free_bytes: u64,
    /// Uploads that were begun and not completed.
    pub uploads: u64,
    /// Their bytes.
    pub upload_bytes: u64,
    /// When the oldest of them was begun, in milliseconds since 1970.
    pub oldest_upload_ms: Option<i64>,
}

/// How a store stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// What it holds.
    #[serde(flatten)]
    pub figures: Figures,
    /// Bytes that its disk has left.
    pub disk_free_bytes: Option<u64>,
    /// Days until the disk is full, at the rate the store grew lately; none while it does not grow.
    pub days_to_full: Option<f64>,
    /// Objects that could not be read as they were stored, since the start.
    pub damaged: u64,
    /// What is kept for how long.
    pub kept: Vec<Prefix>,
    /// When what is old was last looked for and deleted.
    pub last_pass: Option<DateTime<Utc>>,
}

/// What a store holds, page by page; `bodies` are the bytes of the files beside the database.
pub fn figures(db: &Connection, bodies: u64) -> Result<Figures, Problem> {
    let mut figures = Figures::default();
    let mut after = (i64::MIN, String::new());
    let mut page = db.prepare_cached(
        "SELECT bucket, key, size FROM objects WHERE (bucket, key) > (?1, ?2) ORDER BY bucket, key LIMIT ?3",
    )?;
    loop {
        let mut rows = page.query(params![after.0, after.1, PAGE as i64])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            figures.bytes += row.get::<_, i64>(2)? as u64;
            seen += 1;
            if seen == PAGE {
                after = (row.get(0)?, row.get(1)?);
            }
        }
        figures.objects += seen as u64;
        if seen < PAGE {
            break;
        }
    }
    let (uploads, oldest_upload_ms): (i64, Option<i64>) =
        db.query_row("SELECT count(*), min(begun_ms) FROM uploads", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let upload_bytes: i64 =
        db.query_row("SELECT coalesce(sum(size), 0) FROM parts", [], |row| {
            row.get(0)
        })?;
    let pragma = |name: &str| -> rusqlite::Result<i64> {
        db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    let size = pragma("page_size")?;
    figures.file_bytes = (size * pragma("page_count")?) as u64 + bodies;
    figures.free_bytes = (size * pragma("freelist_count")?) as u64;
    figures.uploads = uploads as u64;
    figures.upload_bytes = upload_bytes as u64;
    figures.oldest_upload_ms = oldest_upload_ms;
    Ok(figures)
}

/// What is wrong with a store, as far as anybody has met it.
#[derive(Debug, Default)]
pub(super) struct Harm {
    damaged: AtomicU64,
    known: Mutex<BTreeSet<(String, String)>>,
    /// Whether a write was refused by the disk or the database, and none went since.
    refused: Mutex<Option<Code>>,
    troubles: OnceLock<Troubles>,
}

impl Harm {
    /// Where it is told.
    pub fn tell(&self, troubles: Troubles) {
        let _ = self.troubles.set(troubles);
    }

    /// Objects that could not be read since the start.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// An object could not be read.
    pub fn object(&self, bucket: &str, key: &str, problem: &Problem, now: DateTime<Utc>) {
        if !matches!(problem, Problem::Damaged(_) | Problem::Io(_)) {
            return;
        }
        self.damaged.fetch_add(1, Ordering::Relaxed);
        error!(
            bucket,
            key,
            %problem,
            "an object in the store cannot be read: put it back from a copy, `lookoutd store verify` lists all such"
        );
        let mut known = lock(&self.known);
        if known.len() < KNOWN {
            known.insert((bucket.to_owned(), key.to_owned()));
        }
        self.say(&known, &problem.to_string(), now);
    }

    fn say(&self, known: &BTreeSet<(String, String)>, what: &str, now: DateTime<Utc>) {
        let Some(troubles) = self.troubles.get() else {
            return;
        };
        let Some((bucket, key)) = known.first() else {
            troubles.over(Code::StoreDamaged, "");
            return;
        };
        let text = match known.len() {
            1 => format!("{bucket}/{key} cannot be read as it was stored: {what}"),
            n => format!(
                "{n} objects cannot be read as they were stored, {bucket}/{key} first: {what}"
            ),
        };
        let remedy = "lookoutd store verify lists all of them; upload each again from a copy, or delete it, and it is over within a \
                      minute; then look after the disk";
        troubles.raise(Trouble::new(Code::StoreDamaged, now, text, remedy));
    }

    /// Looks again at what was damaged.
    pub fn recheck(&self, store: &Store, now: DateTime<Utc>) {
        let known: Vec<_> = lock(&self.known).iter().cloned().collect();
        for (bucket, key) in known {
            let (of, at) = (bucket.clone(), key.clone());
            let found = store.lookup(move |db| {
                let object = objects::get(db, &of, &at)?;
                Ok(Some(bodies::Spans::of(db, object.body, 0..object.size)?))
            });
            let read = found.and_then(|reading| reading.map_or(Ok(()), bodies::Reading::check));
            // Gone is as well as whole.
            if matches!(read, Ok(()) | Err(Problem::Refused(_))) {
                let mut known = lock(&self.known);
                known.remove(&(bucket, key));
                self.say(&known, "see the log", now);
            }
        }
    }

    /// The database or the disk refused something.
    pub fn refused(&self, problem: &Problem, now: DateTime<Utc>) {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase, SystemIoFailure};
        let code = match problem {
            Problem::Sqlite(error) => match error.sqlite_error_code() {
                Some(DatabaseCorrupt | NotADatabase) => Code::StateUnreadable,
                Some(DiskFull | SystemIoFailure) => Code::StoreRefuses,
                _ => return,
            },
            Problem::Io(_) => Code::StoreRefuses,
            _ => return,
        };
        let mut refused = lock(&self.refused);
        if *refused == Some(Code::StateUnreadable) {
            return;
        }
        *refused = Some(code);
        if code == Code::StateUnreadable {
            error!(%problem, "the store's database is damaged: writes are refused until it is put back from a backup");
        }
        let Some(troubles) = self.troubles.get() else {
            return;
        };
        let remedy = match code {
            Code::StateUnreadable => {
                "lookoutd store verify shows what can be read, lookoutd store export DIR saves it; then stop lookoutd and put \
                 the database back from a backup (docs/store.md)"
            }
            _ => {
                "make room on the disk of the data directory, or see what is wrong with it: writes go on by themselves; \
                  lookoutd store retention shows what could go"
            }
        };
        let text = format!("the embedded store refuses writes: {problem}");
        troubles.raise(Trouble::new(code, now, text, remedy).about(DATABASE));
    }

    /// Why nothing may be written: a database that is damaged takes nothing more, wherever in it that would go.
    pub fn refuses(&self) -> Option<Problem> {
        if *lock(&self.refused) != Some(Code::StateUnreadable) {
            return None;
        }
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        let text =
            "it was found damaged, and nothing is written until it is put back from a backup";
        let error = rusqlite::Error::SqliteFailure(code, Some(text.to_owned()));
        Some(Problem::Sqlite(error))
    }

    /// New bytes are durable.
    pub fn wrote(&self) {
        let mut refused = lock(&self.refused);
        // What is damaged stays so although some of it can be written.
        if *refused == Some(Code::StoreRefuses) {
            *refused = None;
            if let Some(troubles) = self.troubles.get() {
                troubles.over(Code::StoreRefuses, DATABASE);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
