//! The journal: one record of what the plant said, durable before anyone is told that we have it.
//!
//! ```text
//! append ─► log (one write, one sync for all who wait) ─► acknowledged ─► segment, sorted by signal and time ─► hour in Parquet
//! ```
//!
//! Guarantees: [`Journal::append`] returns once its samples survive a power cut. A sample is (signal, time, kind): what comes again
//! with the same value changes nothing and is counted, another value is a new version, the last counts. What is read up to a
//! [`Position`] is the same for ever, until retention has removed it. A torn tail is cut off; anything else that is damaged is set
//! aside and named, and the rest goes on. Memory is bounded; without room samples are refused, none is dropped. After a fault
//! of the disk it goes on by itself.
//! Deliberately absent: what a time or a value means; who may write (one process, by the data directory's lock); the clock.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use crate::disk::Disk;

mod coding;
mod commit;
mod history;
mod hour;
mod log;
mod names;
mod opening;
mod reading;
mod segment;
mod table;
mod verify;

#[cfg(test)]
mod tests;

pub use history::{HISTORY, Leaving, Swept};
pub use hour::HourFile;
use names::Names;
use segment::Segment;
use table::Table;
pub use verify::Verified;

/// Where the journal lies in the data directory.
pub const DIRECTORY: &str = "journal";
/// Samples that are written at once, and that may wait to be.
const AT_ONCE: usize = 1 << 14;
const WAITING: usize = 1 << 17;

/// A tag of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u32);

/// What the plant said of a signal at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Of what.
    pub signal: Signal,
    /// When: nanoseconds since 1970 in UTC, as finely as its source has it.
    pub time: i64,
    /// How much; NaN where it is missing.
    pub value: f64,
    /// What its source thinks of it; a bad one is missing, whatever its value.
    pub quality: Quality,
    /// Whose time it is.
    pub timed: Timed,
    /// Whether its source had kept it back, so that it is none of the present.
    pub historical: bool,
    /// Whether it is a value at all.
    pub kind: Kind,
}

/// What a sample is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value, or that there was none.
    #[default]
    Value,
    /// A sign of life: what was said last still holds.
    Alive,
}

/// What a source thinks of its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quality {
    /// It is right.
    #[default]
    Good,
    /// It may be.
    Uncertain,
    /// It is not.
    Bad,
}

/// Whose time a sample has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Timed {
    /// That of its source.
    #[default]
    Source,
    /// That of a server between.
    Server,
    /// That of its arrival here.
    Arrival,
}

/// A place in the order in which samples were appended; what was appended before it is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// How many versions of samples are before it: a number to write down.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The position that was written down.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// What became of what was appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// All of it is before this position.
    pub position: Position,
    /// Samples that said what was known of their signal and time.
    pub collapsed: u64,
    /// Samples that said something else than was known of their signal and time.
    pub differing: u64,
}

/// The samples of one signal, by time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Whose.
    pub signal: Signal,
    /// At one time the value stands before the sign of life.
    pub samples: Vec<Sample>,
}

/// How the journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Below so many free bytes nothing is taken.
    pub floor: u64,
    /// Samples of a segment; in memory are up to twice as many, at about 50 bytes each.
    pub segment: usize,
    /// How long a segment stays after the time of its last sample.
    pub keep: Duration,
    /// How many bytes the segments may have; what is not shipped stays beyond it.
    pub max_bytes: u64,
    /// How long after its end an hour is written into the history.
    pub settle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            floor: 64 << 20,
            segment: 1 << 19,
            keep: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 10 << 30,
            settle: Duration::from_secs(900),
        }
    }
}

/// What is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what became of it.
    pub text: String,
}

/// Why the journal cannot do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no room: nothing was taken, and what time can cure is tried again.
    #[error(
        "the disk is full ({free} bytes free, {floor} are kept): nothing is taken until there is room"
    )]
    Full {
        /// Bytes free.
        free: u64,
        /// Bytes that stay free.
        floor: u64,
    },
    /// The disk has failed; nothing is known to be durable, and it is tried again.
    #[error("{} cannot be {doing}: {source}", path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What was done with it.
        doing: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No such signal was handed out.
    #[error("signal {0} has no name in this journal")]
    UnknownSignal(u32),
    /// A name that no tag has.
    #[error("the name of tag {tag:?} of asset {asset:?} is too long")]
    Name {
        /// The asset.
        asset: String,
        /// The tag.
        tag: String,
    },
    /// It was opened to be read.
    #[error("the journal was opened to be read only")]
    ReadOnly,
    /// It is ending.
    #[error("the journal is closing")]
    Closed,
}

/// The journal of a data directory. Clones are the same journal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

/// What is written, and by whom it is read.
struct Shared {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    options: Options,
    is_read_only: bool,
    names: RwLock<Names>,
    live: RwLock<Live>,
    writer: Mutex<commit::Writer>,
    queue: Mutex<Queue>,
    room: Arc<Semaphore>,
    indexes: Mutex<reading::Indexes>,
    damage: Mutex<Vec<Damage>>,
    hours: Mutex<history::Hours>,
    /// Windows that end before are shipped.
    released: AtomicI64,
}

/// What there is to read. Only who holds the writer changes it.
#[derive(Default)]
struct Live {
    /// From the end of the last segment on; what is at or behind `position` is not durable yet.
    table: Table,
    first: u64,
    position: u64,
    segments: Vec<Arc<Segment>>,
}

/// Who waits to be written.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Somebody writes, and will write what comes meanwhile.
    is_led: bool,
}

struct Waiting {
    batch: Vec<Sample>,
    answer: oneshot::Sender<Result<Receipt, JournalError>>,
    _room: tokio::sync::OwnedSemaphorePermit,
}

impl Journal {
    /// Opens the journal in `directory`, or begins one. Blocks.
    pub fn open(
        directory: &Path,
        disk: Arc<dyn Disk>,
        options: Options,
    ) -> Result<Journal, JournalError> {
        opening::open(directory, disk, options, false)
    }

    /// Opens a journal to read what it has now, also while another process writes it. Changes nothing. Blocks.
    pub fn look(directory: &Path, disk: Arc<dyn Disk>) -> Result<Journal, JournalError> {
        opening::open(directory, disk, Options::default(), true)
    }

    /// The signal of a tag, for as long as the journal is there. It is durable with its first sample.
    pub fn signal(&self, asset: &str, tag: &str) -> Result<Signal, JournalError> {
        if let Some(signal) = self.find(asset, tag) {
            return Ok(signal);
        }
        if self.shared.is_read_only {
            return Err(JournalError::ReadOnly);
        }
        let number = written(&self.shared.names).number(asset, tag);
        number.map(Signal).ok_or_else(|| JournalError::Name {
            asset: asset.to_owned(),
            tag: tag.to_owned(),
        })
    }

    /// The signal of a tag that has one.
    pub fn find(&self, asset: &str, tag: &str) -> Option<Signal> {
        looked(&self.shared.names).find(asset, tag).map(Signal)
    }

    /// Asset and tag of a signal.
    pub fn name(&self, signal: Signal) -> Option<(String, String)> {
        let names = looked(&self.shared.names);
        let (asset, tag) = names.name(signal.0)?;
        Some((asset.to_owned(), tag.to_owned()))
    }

    /// Every signal that has a name.
    pub fn signals(&self) -> Vec<Signal> {
        let numbers = looked(&self.shared.names).numbers();
        numbers.into_iter().map(Signal).collect()
    }

    /// Appends samples; they are durable when it returns. Those who call it at the same time share one write and one sync.
    /// After an error some of a large batch may be durable: what is appended again is collapsed. Whoever stops waiting for it
    /// does not stop it.
    pub async fn append(&self, batch: Vec<Sample>) -> Result<Receipt, JournalError> {
        if self.shared.is_read_only {
            return Err(JournalError::ReadOnly);
        }
        let mut receipt = Receipt {
            position: self.position(),
            ..Receipt::default()
        };
        if batch.len() <= AT_ONCE {
            return match batch.is_empty() {
                true => Ok(receipt),
                false => self.append_once(batch).await,
            };
        }
        for part in batch.chunks(AT_ONCE) {
            let one = self.append_once(part.to_vec()).await?;
            receipt.position = one.position;
            receipt.collapsed += one.collapsed;
            receipt.differing += one.differing;
        }
        Ok(receipt)
    }

    async fn append_once(&self, batch: Vec<Sample>) -> Result<Receipt, JournalError> {
        let room = self.shared.room.clone();
        let room = room
            .acquire_many_owned(batch.len() as u32)
            .await
            .map_err(|_| JournalError::Closed)?;
        let (answer, told) = oneshot::channel();
        let waiting = Waiting {
            batch,
            answer,
            _room: room,
        };
        let leads = {
            let mut queue = held(&self.shared.queue);
            queue.waiting.push_back(waiting);
            !std::mem::replace(&mut queue.is_led, true)
        };
        if leads {
            let shared = self.shared.clone();
            tokio::task::spawn_blocking(move || shared.lead());
        }
        told.await.map_err(|_| JournalError::Closed)?
    }

    /// Takes nothing more, and returns when what was being written is: another may open the directory then.
    pub async fn close(&self) {
        let room = &self.shared.room;
        drop(room.acquire_many(WAITING as u32).await);
        room.close();
        let shared = self.shared.clone();
        // A segment is made after its samples are acknowledged.
        let rest = tokio::task::spawn_blocking(move || drop(held(&shared.writer)));
        drop(rest.await);
    }

    /// Everything that is durable is before it.
    pub fn position(&self) -> Position {
        Position(looked(&self.shared.live).position)
    }

    /// The samples of these signals from `from` until before `to`, as they were at `upto`: a series for each signal, in the order in
    /// which they are asked for. What else the journal has costs nothing. Blocks.
    pub fn read(
        &self,
        signals: &[Signal],
        from: i64,
        to: i64,
        upto: Position,
    ) -> Result<Vec<Series>, JournalError> {
        self.shared.read(signals, from, to, upto)
    }

    /// Calls `each` with the samples of these signals from `from` until before `to`, signal by signal and by time, however many
    /// they are: a bounded part of them is in memory. Blocks.
    pub fn walk(
        &self,
        signals: &[Signal],
        from: i64,
        to: i64,
        mut each: impl FnMut(&Sample) -> io::Result<()>,
    ) -> Result<(), JournalError> {
        let mut numbers: Vec<u32> = signals.iter().map(|signal| signal.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let positions = (Position(0), self.position());
        let shared = &self.shared;
        shared.walk(&numbers, (from, to), positions, |sample| {
            each(sample).map_err(failed(&shared.directory, "told"))
        })
    }

    /// What was found not to be as it was written, since it was opened.
    pub fn damage(&self) -> Vec<Damage> {
        held(&self.shared.damage).clone()
    }
}

impl Shared {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Notes what is damaged, once.
    fn note(&self, path: &Path, text: String) {
        let damage = Damage {
            path: path.to_owned(),
            text,
        };
        let mut known = held(&self.damage);
        if !known.contains(&damage) {
            tracing::warn!(path = %damage.path.display(), what = %damage.text, "the journal is damaged");
            known.push(damage);
        }
    }
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |error| JournalError::Disk {
        path: path.to_owned(),
        doing,
        source: Arc::new(error),
    }
}

// What a panic has left is as consistent as what an error leaves: each change is made under its lock at once.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn looked<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn written<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
