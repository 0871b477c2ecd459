//! The store behind the embedded S3: objects are rows of one SQLite database, small bodies lie in it, larger ones in files
//! that are named by their content.
//!
//! ```text
//!  PUT ─► checksums verified ─► (over 64 KiB: file, fsync, rename, fsync of the directory) ─► row ─► commit, fsync ─► 200
//! ```
//!
//! Guarantees: what was acknowledged is durable; what was not is absent or whole. There is one writer, and writes that come
//! together are one commit ([`commit`]). Conditions are judged in the transaction that writes. Reads have connections of their
//! own, whose snapshots last one lookup or one page; bodies are read after it, and verified block by block ([`bodies`]).
//! Keys, prefixes and "directories" are text; no key is a name on disk.
//!
//! It knows no HTTP: [`service`] has the protocol above it, and `embedded` the listeners.

pub mod bodies;
pub mod checksums;
pub mod commit;
pub mod conditions;
pub mod export;
mod facts;
mod listing;
mod multipart;
mod objects;
pub mod opening;
mod ranges;
pub mod retention;
pub mod service;
pub mod standing;
mod tags;
pub mod takeover;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use s3s::S3Error;

use crate::clock::Clock;
use crate::disk::{Disk as _, LocalDisk};
use commit::{Turn, Writer};
pub use opening::OpenError;

/// The longest key, as S3 has it.
pub const LONGEST_KEY: usize = 1024;
/// The database's name in the store's directory.
pub const DATABASE: &str = "store.db";
/// Locked by the process that has it.
pub const LOCK: &str = "lock";
/// Where the larger bodies lie.
pub const BODIES: &str = "bodies";

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The answer that the client gets.
    #[error("{0}")]
    Refused(#[from] S3Error),
    /// The database said no.
    #[error("the store's database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The disk said no.
    #[error("the store's disk: {0}")]
    Io(#[from] std::io::Error),
    /// What is stored is not what was stored.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// It was closed.
    #[error("the store is being closed")]
    Closed,
}

/// What is done before something becomes durable, for tests: an error is what the disk would have said.
pub type Fault = Arc<dyn Fn(Step) -> std::io::Result<()> + Send + Sync>;

/// The durable steps, in the order of a large PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes into a file.
    Write,
    /// The file's bytes to the disk.
    SyncFile,
    /// The file to its name.
    Rename,
    /// The name to the disk.
    SyncDirectory,
    /// The rows to the disk.
    Commit,
    /// A file that nothing names any more.
    Remove,
}

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Whose time objects get.
    pub clock: Clock,
    /// Faults of a test's disk.
    pub fault: Option<Fault>,
    /// A disk that others share: one connection, without shared memory.
    pub shared_disk: bool,
    /// Tells the kind of a file system that others share, or none.
    pub kind_of: fn(&Path) -> Option<&'static str>,
    /// Tells what a file system has left.
    pub free_of: fn(&Path) -> Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            fault: None,
            shared_disk: false,
            kind_of: opening::shared_kind,
            free_of: |path| LocalDisk.free(path).ok(),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").finish_non_exhaustive()
    }
}

/// An open store, cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: Writer,
    readers: opening::Readers,
    files: Arc<bodies::Files>,
    clock: Clock,
    root: PathBuf,
    harm: Arc<standing::Harm>,
    _lock: std::fs::File,
}

impl Store {
    /// Opens the store in `root`, or begins one; takes over what an older version left there.
    pub fn open(root: &Path, options: &Options) -> Result<Self, OpenError> {
        let opened = opening::open(root, options)?;
        let files = opened.files;
        let harm = Arc::new(standing::Harm::default());
        let (clock, told) = (options.clock.clone(), harm.clone());
        let writer = Writer::start(opened.connection, files.clone(), clock, told);
        let readers = opening::Readers::new(root.join(DATABASE), options.shared_disk);
        Ok(Self {
            inner: Arc::new(Inner {
                writer,
                readers,
                files,
                clock: options.clock.clone(),
                root: root.to_owned(),
                harm,
                _lock: opened.lock,
            }),
        })
    }

    /// The directory it lies in.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// What is wrong with it is told there.
    pub fn tell(&self, troubles: crate::vitals::Troubles) {
        self.inner.harm.tell(troubles);
    }

    /// Writes: `work` runs in a transaction of the one writer, and is answered when it is durable.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        if let Some(problem) = self.inner.harm.refuses() {
            return Err(problem);
        }
        let (sender, answer) = tokio::sync::oneshot::channel();
        let reply = move |done| drop(sender.send(done));
        self.inner.writer.submit(work, reply);
        answer.await.unwrap_or(Err(Problem::Closed))
    }

    /// As [`Store::write`], for threads that may wait.
    pub fn write_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        if let Some(problem) = self.inner.harm.refuses() {
            return Err(problem);
        }
        self.by_the_writer(work)
    }

    fn by_the_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Turn<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let (sender, answer) = std::sync::mpsc::channel();
        let reply = move |done| drop(sender.send(done));
        self.inner.writer.submit(work, reply);
        answer.recv().unwrap_or(Err(Problem::Closed))
    }

    /// Reads in one snapshot, on a thread that may wait.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || store.read_blocking(work));
        done.await.unwrap_or(Err(Problem::Closed))
    }

    /// As [`Store::read`], on this thread.
    pub fn read_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        if self.inner.readers.by_the_writer() {
            return self.by_the_writer(|turn| work(turn.db));
        }
        let done = self.inner.readers.read(work);
        if let Err(problem @ Problem::Sqlite(_)) = &done {
            self.inner.harm.refused(problem, self.inner.clock.now());
        }
        done
    }

    /// Makes sure a bucket exists.
    pub fn create_bucket(&self, name: &str) -> Result<(), Problem> {
        let name = name.to_owned();
        self.write_blocking(move |turn| objects::make_bucket(turn, &name, None).map(drop))
    }

    /// Every object of a bucket with its bytes; for exports and tests.
    pub fn contents(&self, bucket: &str) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
        let mut contents = BTreeMap::new();
        let name = bucket.to_owned();
        let keys = self.read_blocking(move |db| objects::keys(db, &name))?;
        for key in keys {
            let (name, at) = (bucket.to_owned(), key.clone());
            let found = self.lookup(move |db| {
                let Some(object) = objects::find(db, objects::bucket(db, &name)?, &at)? else {
                    return Ok(None);
                };
                let size = object.size;
                Ok(Some(bodies::Spans::of(db, object.body, 0..size)?))
            })?;
            if let Some(reading) = found {
                contents.insert(key, reading.read_all()?);
            }
        }
        Ok(contents)
    }

    /// Puts an object there, on a thread that may wait; for imports and tests.
    pub fn put_blocking(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        let mut intake = bodies::Intake::new(&self.inner.files, checksums::hasher(&[]));
        intake.write(bytes)?;
        let draft = intake.finish()?;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.write_blocking(move |turn| {
            let (labels, always) = Default::default();
            objects::put(turn, &bucket, &key, draft, &labels, &always)
        })
    }

    /// Takes an object away, on a thread that may wait.
    pub fn remove_blocking(&self, bucket: &str, key: &str) -> Result<(), Problem> {
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.write_blocking(move |turn| {
            let bucket = objects::bucket(turn.db, &bucket)?;
            objects::remove(turn, bucket, &key, |_| Ok(()))
        })
    }

    /// Looks bodies up and keeps their files from being removed while they are read.
    fn lookup(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> Result<Option<bodies::Spans>, Problem>
        + Send
        + 'static,
    ) -> Result<Option<bodies::Reading>, Problem> {
        let files = self.inner.files.clone();
        self.read_blocking(move |db| {
            // Whoever removes files waits for lookups, and then sees what they have pinned.
            let _gate = files.gate();
            let spans = opening::in_one_snapshot(db, work)?;
            Ok(spans.map(|spans| bodies::Reading::new(&files, spans)))
        })
    }

    fn now_ms(&self) -> i64 {
        self.inner.clock.now().timestamp_millis()
    }

    /// Says that the disk refused something.
    fn note_refusal(&self, problem: &Problem) {
        self.inner.harm.refused(problem, self.inner.clock.now());
    }

    /// Says that an object cannot be read as it was stored.
    fn note_damage(&self, bucket: &str, key: &str, problem: &Problem) {
        let now = self.inner.clock.now();
        self.inner.harm.object(bucket, key, problem, now);
    }
}
