//! The one writer: writes that come together are one commit.
//!
//! Guarantees: each piece of work is a savepoint of its own, so one that is refused takes nothing from the others; none is
//! answered before the commit that holds it is durable, and if that fails all of its batch fail. Files that nothing names any
//! more go after the commit, and not while somebody reads them. The log is put into the database between two batches, when
//! the one before has been answered.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rusqlite::Connection;
use tracing::warn;

use super::bodies::Files;
use super::opening::Owned;
use super::standing::Harm;
use super::{Problem, Step};
use crate::clock::Clock;

/// Most pieces of work in one commit.
const MOST: usize = 256;
/// After so long without work the log is put into the database.
const IDLE: Duration = Duration::from_secs(5);
/// With so many pages it is put there in any case.
const LOG_PAGES: i64 = 1_000;

/// What a piece of work works with.
pub struct Turn<'a> {
    /// The database, in a transaction.
    pub db: &'a Connection,
    /// The larger bodies.
    pub files: &'a Files,
    /// The time of the batch.
    pub now_ms: i64,
    /// Names that may stand for nothing after this.
    pub doomed: &'a mut Vec<String>,
    /// Whether a body was put there, for which the disk had to have room.
    pub kept: bool,
}

/// Where work is handed in; the thread behind it ends when the last handle is gone.
pub struct Writer {
    inbox: Option<Sender<Job>>,
    harm: Arc<Harm>,
    clock: Clock,
    thread: Option<std::thread::JoinHandle<()>>,
}

type Answer = Box<dyn FnOnce(Result<(), Problem>) + Send>;
type Job = Box<dyn FnOnce(Result<&mut Turn<'_>, Problem>) -> (bool, Answer) + Send>;

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the thread that owns the connection.
    pub(super) fn start(db: Owned, files: Arc<Files>, clock: Clock, harm: Arc<Harm>) -> Self {
        let (sender, receiver) = channel::<Job>();
        let (of, told) = (clock.clone(), harm.clone());
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || run(db, &files, &of, &told, &receiver));
        Self {
            inbox: Some(sender),
            harm,
            clock,
            thread: thread.ok(),
        }
    }

    /// Hands work in; `reply` is called when it is durable, or dropped when the writer has ended.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T, Problem> + Send + 'static,
        reply: impl FnOnce(Result<T, Problem>) + Send + 'static,
    ) {
        let (harm, clock) = (self.harm.clone(), self.clock.clone());
        let job: Job = Box::new(move |turn| {
            let done = turn.and_then(work);
            if let Err(problem) = &done {
                harm.refused(problem, clock.now());
            }
            let ok = done.is_ok();
            let answer: Answer = Box::new(move |committed| {
                reply(match committed {
                    Ok(()) => done,
                    Err(problem) => done.and(Err(problem)),
                });
            });
            (ok, answer)
        });
        if let Some(inbox) = &self.inbox {
            // A writer that has ended drops the job, and with it whom it would have answered.
            let _ = inbox.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by work of the thread itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn run(db: Owned, files: &Files, clock: &Clock, harm: &Harm, inbox: &Receiver<Job>) {
    let mut unsettled = false;
    loop {
        let first = if unsettled {
            match inbox.recv_timeout(IDLE) {
                Ok(job) => Ok(job),
                Err(RecvTimeoutError::Timeout) => {
                    unsettled = false;
                    files.remove_doomed(&db);
                    settle(&db, 1);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        } else {
            inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let Ok(first) = first else { break };
        let rest = std::iter::from_fn(|| inbox.try_recv().ok()).take(MOST - 1);
        let batch: Vec<Job> = std::iter::once(first).chain(rest).collect();
        commit(&db, files, clock, harm, batch);
        files.remove_doomed(&db);
        settle(&db, LOG_PAGES);
        unsettled = true;
    }
}

/// Puts a log of so many pages into the database. It keeps its length, and is written over from its beginning.
fn settle(db: &Connection, pages: i64) {
    let length = db.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
        row.get::<_, i64>(1)
    });
    if length.is_ok_and(|length| length >= pages) {
        // What cannot be put there now is so later; the log has it.
        let _ = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }
}

/// One transaction with all that came together.
fn commit(db: &Connection, files: &Files, clock: &Clock, harm: &Harm, batch: Vec<Job>) {
    let mut doomed = Vec::new();
    let mut turn = Turn {
        db,
        files,
        now_ms: clock.now().timestamp_millis(),
        doomed: &mut doomed,
        kept: false,
    };
    let mut wrote = false;
    let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
    let mut outcome = db.execute_batch("BEGIN IMMEDIATE").map_err(Problem::from);
    for job in batch {
        // A full disk may end the whole transaction: then nothing of the batch is kept, and nothing more is begun.
        let begun = match &outcome {
            Ok(()) => db.execute_batch("SAVEPOINT work").map_err(Problem::from),
            Err(problem) => Err(copy(problem)),
        };
        if let Err(problem) = begun {
            outcome = outcome.and_then(|()| Err(copy(&problem)));
            answers.push(job(Err(problem)).1);
            continue;
        }
        turn.kept = false;
        let (ok, answer) = job(Ok(&mut turn));
        wrote |= ok && turn.kept;
        answers.push(answer);
        let ended = if db.is_autocommit() {
            Err(Problem::Io(std::io::ErrorKind::StorageFull.into()))
        } else {
            let end = if ok {
                "RELEASE work"
            } else {
                "ROLLBACK TO work; RELEASE work"
            };
            db.execute_batch(end).map_err(Problem::from)
        };
        outcome = outcome.and(ended);
    }
    outcome = outcome.and_then(|()| {
        files.step(Step::Commit)?;
        Ok(db.execute_batch("COMMIT")?)
    });
    if outcome.is_err() && !db.is_autocommit() {
        let _ = db.execute_batch("ROLLBACK");
    }
    files.doom(doomed);
    match &outcome {
        Ok(()) if wrote => harm.wrote(),
        Ok(()) => {}
        Err(problem) => {
            warn!(%problem, writes = answers.len(), "the store could not commit: the writes are refused and can be repeated");
            harm.refused(problem, clock.now());
        }
    }
    for answer in answers {
        answer(match &outcome {
            Ok(()) => Ok(()),
            Err(problem) => Err(copy(problem)),
        });
    }
}

/// The same problem for each of a batch.
fn copy(problem: &Problem) -> Problem {
    match problem {
        Problem::Sqlite(rusqlite::Error::SqliteFailure(code, message)) => {
            Problem::Sqlite(rusqlite::Error::SqliteFailure(*code, message.clone()))
        }
        Problem::Io(error) => Problem::Io(match error.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => std::io::Error::new(error.kind(), error.to_string()),
        }),
        other => Problem::Damaged(other.to_string()),
    }
}
