//! What was told and what is still to be sent, durable: one SQLite file, `notify.db` in the data directory.
//!
//! Guarantees: that a fact is told and that its message is queued are one transaction, so neither a crash nor a restart
//! tells it twice or forgets it; committed means on disk. A target's messages go out in the order in which they came. At
//! most [`MOST`] wait for a target: then the oldest is given up, with an ERROR, and counted in the next message. The
//! newest [`KEPT`] that were sent stay to be looked at. It reads no clock.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use serde::Serialize;
use tracing::error;
use uuid::Uuid;

use super::rules::{EVENT, Fact, Told, held_back_message};

/// Messages that wait for one target, at most.
const MOST: i64 = 500;
/// Messages that stay after they were sent.
const KEPT: i64 = 200;
/// How long an event that is over is remembered after it was last spoken of, longer than anybody looks back.
const REMEMBERED: TimeDelta = TimeDelta::days(3);
/// So many of the newest are remembered longer, which a clock that is ahead cannot forget.
const REMEMBERED_ANYWAY: i64 = 1_000;
/// That one is still spoken of is noted this often.
const SPOKEN_OF: TimeDelta = TimeDelta::hours(1);

const FORMAT: i64 = 1;
const SCHEMA: &str = "
-- What is the case and was told, or is to be; an event that is over stays for a while, so that it is not told again: closed
-- is when it was last said to be over, in microseconds, or 1 where an earlier version closed it.
CREATE TABLE standing (
    kind     TEXT NOT NULL,
    subject  TEXT NOT NULL,
    episode  INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    fact     TEXT NOT NULL,
    told     INTEGER NOT NULL DEFAULT 0,
    gone     INTEGER NOT NULL DEFAULT 0,
    closed   INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, subject, episode)
) STRICT, WITHOUT ROWID;
CREATE TABLE message (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    body       TEXT NOT NULL
) STRICT;
CREATE TABLE delivery (
    seq      INTEGER NOT NULL REFERENCES message (seq) ON DELETE CASCADE,
    target   TEXT NOT NULL,
    state    TEXT NOT NULL DEFAULT 'waiting',
    attempts INTEGER NOT NULL DEFAULT 0,
    error    TEXT,
    PRIMARY KEY (target, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX waiting ON delivery (target, seq) WHERE state = 'waiting';
CREATE TABLE number (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// The queue. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Queue {
    connection: Arc<Mutex<Connection>>,
    path: PathBuf,
    targets: Vec<&'static str>,
    replaced: Option<PathBuf>,
}

/// The queue could not be used.
#[derive(Debug, thiserror::Error)]
#[error("notifications {}: {source}", path.display())]
pub struct QueueError {
    path: PathBuf,
    source: rusqlite::Error,
}

impl QueueError {
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(
            self.source.sqlite_error_code(),
            Some(DatabaseCorrupt | NotADatabase)
        )
    }
}

/// A message that waits for a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its place in the queue.
    pub seq: i64,
    /// Its identity.
    pub id: String,
    /// The JSON.
    pub body: String,
    /// Attempts that failed.
    pub attempts: u32,
}

/// One message and one target, to look at.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// Its identity.
    pub id: String,
    /// When it was queued.
    pub created: DateTime<Utc>,
    /// webhook or command.
    pub target: String,
    /// waiting, sent or given-up.
    pub state: String,
    /// Attempts that failed.
    pub attempts: u32,
    /// What the last one came to.
    pub error: Option<String>,
    /// The message.
    pub message: serde_json::Value,
}

impl Queue {
    /// Opens or creates the queue under `data_dir` for these targets. What waits for others is given up. A damaged file is
    /// set aside: what stands is then told anew.
    pub fn open(data_dir: &Path, targets: &[&'static str]) -> Result<Self, QueueError> {
        let path = data_dir.join("notify.db");
        match Self::create(&path, targets) {
            Err(error) if error.is_damage() => {
                let aside = path.with_extension("damaged");
                error!(%error, aside = %aside.display(), "the queue of notifications is damaged and set aside: what waited in it is lost");
                for suffix in ["db-wal", "db-shm"] {
                    // What the damaged file had not taken over is of no use to a new one.
                    let _ = std::fs::remove_file(path.with_extension(suffix));
                }
                std::fs::rename(&path, &aside).map_err(|_| error)?;
                Ok(Self {
                    replaced: Some(aside),
                    ..Self::create(&path, targets)?
                })
            }
            other => other,
        }
    }

    fn create(path: &Path, targets: &[&'static str]) -> Result<Self, QueueError> {
        let queue = Self::connect(path, OpenFlags::default(), targets)?;
        queue.transact(|db| {
            let format: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if format == 0 {
                db.execute_batch(SCHEMA)?;
                db.pragma_update(None, "user_version", FORMAT)?;
            } else if format != FORMAT {
                return Err(unknown(format));
            }
            db.execute(
                "UPDATE delivery SET state = 'given-up', error = 'no longer configured'
                 WHERE state = 'waiting' AND NOT EXISTS (SELECT 1 FROM json_each(?1) WHERE value = target)",
                [serde_json::to_string(targets).unwrap_or_default()],
            )?;
            Ok(())
        })?;
        Ok(queue)
    }

    /// The queue beside a running daemon, to look at; `None` where there is none.
    pub fn open_existing(data_dir: &Path) -> Result<Option<Self>, QueueError> {
        let path = data_dir.join("notify.db");
        if !path.exists() {
            return Ok(None);
        }
        Self::connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE, &[]).map(Some)
    }

    /// When this queue was first asked, `now` the first time: what was over before is nobody's news.
    pub fn began(&self, now: DateTime<Utc>) -> Result<DateTime<Utc>, QueueError> {
        self.transact(|db| {
            db.execute(
                "INSERT OR IGNORE INTO number (name, value) VALUES ('began', ?1)",
                [now.timestamp_micros()],
            )?;
            let began = number(db, "began")?;
            Ok(DateTime::from_timestamp_micros(began).unwrap_or(now))
        })
    }

    /// Events that were told and are not over yet.
    pub fn events(&self) -> Result<Vec<Told>, QueueError> {
        self.transact(|db| {
            db.prepare_cached(
                "SELECT subject, episode FROM standing WHERE kind = ?1 AND closed = 0 AND gone = 0",
            )?
            .query_map([EVENT], |row| {
                let start = DateTime::from_timestamp_micros(row.get(1)?);
                Ok((row.get(0)?, start.unwrap_or_default()))
            })?
            .collect()
        })
    }

    /// Compares what is the case with what was told and queues the difference; how many messages that are. Unless
    /// it `lasts` all the same: what is not among the facts may only not have been seen yet.
    pub fn reconcile(
        &self,
        facts: &[Fact],
        lasts: impl Fn(&Fact) -> bool,
        gateway: &str,
        per_hour: u32,
        now: DateTime<Utc>,
    ) -> Result<usize, QueueError> {
        let mut lost = 0;
        let queued = self.transact(|db| {
            let mut held_back = see(db, facts, &lasts, now)?;
            held_back += number(db, "held-back")?;
            let hour_ago = (now - TimeDelta::hours(1)).timestamp_micros();
            let lately: i64 = db.query_row(
                "SELECT count(*) FROM message WHERE created_us > ?1 AND created_us <= ?2",
                [hour_ago, now.timestamp_micros()],
                |row| row.get(0),
            )?;
            let mut left = i64::from(per_hour) - lately;
            let mut queued = 0;
            for (fact, mut told, gone) in open(db)? {
                if left > 0 && !told {
                    let id = Uuid::new_v4().to_string();
                    let body = fact.message(&id, gateway, false, held_back as u64, now);
                    (held_back, lost) = (0, lost + self.push(db, &id, &body, now)?);
                    (told, left, queued) = (true, left - 1, queued + 1);
                    mark(db, &fact, "told = 1")?;
                }
                if left > 0 && told && gone {
                    let id = Uuid::new_v4().to_string();
                    let body = fact.message(&id, gateway, true, held_back as u64, now);
                    (held_back, lost) = (0, lost + self.push(db, &id, &body, now)?);
                    (left, queued) = (left - 1, queued + 1);
                    close(db, &fact, now)?;
                }
            }
            if held_back > 0 && left > 0 && queued == 0 {
                let id = Uuid::new_v4().to_string();
                let body = held_back_message(&id, gateway, held_back as u64, now);
                (held_back, lost) = (0, lost + self.push(db, &id, &body, now)?);
                queued = 1;
            }
            set(db, "held-back", held_back + lost)?;
            db.execute(
                "DELETE FROM standing WHERE closed <> 0 AND CASE closed WHEN 1 THEN since_us ELSE closed END < ?1 AND since_us <
                     (SELECT since_us FROM standing WHERE closed <> 0 ORDER BY since_us DESC LIMIT 1 OFFSET ?2)",
                [(now - REMEMBERED).timestamp_micros(), REMEMBERED_ANYWAY],
            )?;
            Ok(queued)
        })?;
        if lost > 0 {
            error!(
                lost,
                "the queue of notifications is full: the oldest are given up"
            );
        }
        Ok(queued)
    }

    /// The oldest message that waits for a target.
    pub fn next(&self, target: &str) -> Result<Option<Next>, QueueError> {
        self.transact(|db| {
            db.prepare_cached(
                "SELECT d.seq, m.id, m.body, d.attempts FROM delivery d JOIN message m ON m.seq = d.seq
                 WHERE d.target = ?1 AND d.state = 'waiting' ORDER BY d.seq LIMIT 1",
            )?
            .query_row([target], |row| {
                Ok(Next {
                    seq: row.get(0)?,
                    id: row.get(1)?,
                    body: row.get(2)?,
                    attempts: row.get(3)?,
                })
            })
            .optional()
        })
    }

    /// A target has taken a message.
    pub fn done(&self, seq: i64, target: &str) -> Result<(), QueueError> {
        self.transact(|db| {
            db.execute(
                "UPDATE delivery SET state = 'sent', error = NULL WHERE seq = ?1 AND target = ?2",
                params![seq, target],
            )?;
            // Those of the last hour are what the rate is counted by, and are few.
            db.execute(
                "DELETE FROM message WHERE seq <= (SELECT max(seq) FROM message) - ?1
                 AND created_us < (SELECT max(created_us) FROM message) - 3600000000
                 AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.seq = message.seq AND d.state = 'waiting')",
                [KEPT],
            )?;
            Ok(())
        })
    }

    /// A target did not take a message; `give_up`: it is not tried again.
    pub fn failed(
        &self,
        seq: i64,
        target: &str,
        error: &str,
        give_up: bool,
    ) -> Result<(), QueueError> {
        self.transact(|db| {
            db.execute(
                "UPDATE delivery SET attempts = attempts + 1, error = ?3, state = CASE WHEN ?4 THEN 'given-up' ELSE state END
                 WHERE seq = ?1 AND target = ?2",
                params![seq, target, error, give_up],
            )?;
            if give_up {
                let lost = number(db, "held-back")? + 1;
                set(db, "held-back", lost)?;
            }
            Ok(())
        })
    }

    /// The newest messages, newest first.
    pub fn list(&self, limit: usize) -> Result<Vec<Delivery>, QueueError> {
        self.transact(|db| {
            db.prepare_cached(
                "SELECT m.id, m.created_us, d.target, d.state, d.attempts, d.error, m.body
                 FROM delivery d JOIN message m ON m.seq = d.seq ORDER BY d.seq DESC, d.target LIMIT ?1",
            )?
            .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                let created = DateTime::from_timestamp_micros(row.get(1)?);
                let body: String = row.get(6)?;
                Ok(Delivery {
                    id: row.get(0)?,
                    created: created.unwrap_or_default(),
                    target: row.get(2)?,
                    state: row.get(3)?,
                    attempts: row.get(4)?,
                    error: row.get(5)?,
                    message: serde_json::from_str(&body).unwrap_or_default(),
                })
            })?
            .collect()
        })
    }

    /// How many messages wait, and how many were held back since the last one.
    pub fn waiting(&self) -> Result<(u64, u64), QueueError> {
        self.transact(|db| {
            let sql = "SELECT count(*) FROM delivery WHERE state = 'waiting'";
            let waiting: i64 = db.query_row(sql, [], |row| row.get(0))?;
            Ok((waiting as u64, number(db, "held-back")? as u64))
        })
    }

    /// Queues a message for every target; how many were given up to make room.
    fn push(
        &self,
        db: &Connection,
        id: &str,
        body: &str,
        now: DateTime<Utc>,
    ) -> rusqlite::Result<i64> {
        db.prepare_cached("INSERT INTO message (id, created_us, body) VALUES (?1, ?2, ?3)")?
            .execute(params![id, now.timestamp_micros(), body])?;
        let seq = db.last_insert_rowid();
        let mut lost = 0;
        for target in &self.targets {
            db.prepare_cached("INSERT INTO delivery (seq, target) VALUES (?1, ?2)")?
                .execute(params![seq, target])?;
            lost += db.execute(
                "UPDATE delivery SET state = 'given-up', error = 'the queue was full'
                 WHERE target = ?1 AND state = 'waiting' AND seq <=
                     (SELECT seq FROM delivery WHERE target = ?1 AND state = 'waiting' ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
                params![target, MOST],
            )? as i64;
        }
        Ok(lost)
    }

    fn connect(
        path: &Path,
        flags: OpenFlags,
        targets: &[&'static str],
    ) -> Result<Self, QueueError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.execute_batch(
                "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 PRAGMA cache_size = -256;",
            )?;
            Ok(connection)
        };
        let connection = open().map_err(|source| QueueError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            path: path.to_owned(),
            targets: targets.to_vec(),
            replaced: None,
        })
    }

    /// Where a damaged queue lies that this one was begun for.
    pub fn replaced(&self) -> Option<&Path> {
        self.replaced.as_deref()
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, QueueError> {
        let mut connection = self.lock();
        connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            })
            .map_err(|source| QueueError {
                path: self.path.clone(),
                source,
            })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what is the case and what no longer is. How many messages are not sent because it came and went, or went and
/// came, while nothing could be told.
fn see(
    db: &Connection,
    facts: &[Fact],
    lasts: &dyn Fn(&Fact) -> bool,
    now: DateTime<Utc>,
) -> rusqlite::Result<i64> {
    let mut absorbed = 0;
    for fact in facts {
        let known: Option<(bool, i64)> = db
            .prepare_cached(
                "SELECT gone, closed FROM standing WHERE kind = ?1 AND subject = ?2 AND episode = ?3",
            )?
            .query_row(params![fact.kind, fact.key(), fact.episode], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match known {
            // Its end could not be told yet, and it is there again.
            Some((true, 0)) if !fact.over => absorbed += 2,
            None | Some((_, 0)) => {}
            // That an event is over is told once, whatever is found of it later.
            Some((_, closed)) if fact.over => {
                if now - DateTime::from_timestamp_micros(closed).unwrap_or(now) > SPOKEN_OF {
                    close(db, fact, now)?;
                }
                continue;
            }
            // It goes on after all, and is told again with its first beginning: what follows within the reach of an event is
            // of it. A clock that went back to before its end sees nothing new.
            Some((_, closed)) if closed <= now.timestamp_micros() => {
                mark(db, fact, "closed = 0, told = 0")?;
            }
            Some(_) => continue,
        }
        db.prepare_cached(
            "INSERT INTO standing (kind, subject, episode, since_us, fact, gone) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (kind, subject, episode) DO UPDATE SET fact = ?5, gone = ?6",
        )?
        .execute(params![
            fact.kind,
            fact.key(),
            fact.episode,
            fact.since.timestamp_micros(),
            json(fact),
            fact.over
        ])?;
    }
    let there = |known: &Fact| {
        facts.iter().any(|fact| {
            (&fact.kind, fact.key(), fact.episode) == (&known.kind, known.key(), known.episode)
        })
    };
    for (known, told, _) in open(db)? {
        if there(&known) || lasts(&known) {
            continue;
        }
        if told || known.episode != 0 {
            mark(db, &known, "gone = 1")?;
        } else {
            close(db, &known, now)?;
            absorbed += 2;
        }
    }
    Ok(absorbed)
}

/// What is not closed, the oldest first: the fact, whether it was told, whether it is over.
fn open(db: &Connection) -> rusqlite::Result<Vec<(Fact, bool, bool)>> {
    let mut statement = db.prepare_cached(
        "SELECT fact, told, gone, since_us FROM standing WHERE closed = 0 ORDER BY since_us, kind, subject",
    )?;
    let rows = statement.query_map([], |row| {
        let text: String = row.get(0)?;
        let mut fact = serde_json::from_str::<Fact>(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
        })?;
        // What goes on keeps its beginning.
        fact.since = DateTime::from_timestamp_micros(row.get(3)?).unwrap_or(fact.since);
        Ok((fact, row.get(1)?, row.get(2)?))
    })?;
    rows.collect()
}

fn mark(db: &Connection, fact: &Fact, what: &str) -> rusqlite::Result<()> {
    db.prepare_cached(&format!(
        "UPDATE standing SET {what} WHERE kind = ?1 AND subject = ?2 AND episode = ?3"
    ))?
    .execute(params![fact.kind, fact.key(), fact.episode])?;
    Ok(())
}

/// It is over and told; an event is remembered.
fn close(db: &Connection, fact: &Fact, now: DateTime<Utc>) -> rusqlite::Result<()> {
    if fact.episode != 0 {
        // More than 1, whatever a clock shows.
        let closed = now.timestamp_micros().max(2);
        return mark(db, fact, &format!("closed = {closed}"));
    }
    db.prepare_cached("DELETE FROM standing WHERE kind = ?1 AND subject = ?2 AND episode = ?3")?
        .execute(params![fact.kind, fact.key(), fact.episode])?;
    Ok(())
}

fn number(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    let found = db
        .prepare_cached("SELECT value FROM number WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

fn set(db: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO number (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
    )?
    .execute(params![name, value])?;
    Ok(())
}

fn json(fact: &Fact) -> String {
    // Strings and numbers to memory: it cannot fail.
    serde_json::to_string(fact).unwrap_or_default()
}

fn unknown(format: i64) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_MISMATCH),
        Some(format!(
            "format {format}, this build knows {FORMAT}: start the newer lookoutd again, or move the file away"
        )),
    )
}

#[cfg(test)]
mod tests;
