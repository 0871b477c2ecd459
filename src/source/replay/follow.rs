//! A history that lives on: appended to, written again, replaced by a rename, rolled, away for a while.
//!
//! Guarantees: before a window is read, and before the history is called over, what lies at its place is compared with what
//! was opened; what has changed is opened and indexed anew, once it has come to rest. A window is never put together of two
//! versions. What cannot be read now is an error that may be tried again, whatever it is: a share that is away, a file that
//! is being written, columns that are missing; only a fault inside a file that does not change is one of its content.
//! Where a looped history has grown, the turn that is playing goes on to its new end.
//! Deliberately absent: what lies where; a [`Place`] knows.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parquet::file::reader::ChunkReader;
use tokio::time::Instant;
use tracing::info;

use super::{History, Replay};
use crate::signal::{Cadence, Mapping, RowRule, TagList, Window};
use crate::source::{Progress, Reading, Source, SourceError};

/// Where a history lies. There are two: a file of this machine, and an object in a bucket.
pub trait Place: Send {
    /// What its bytes are read with.
    type Reader: ChunkReader + 'static;

    /// Its name, for messages.
    fn name(&self) -> &str;

    /// What lies there now.
    fn look(&self) -> Result<Identity, SourceError>;

    /// Opens what lies there now.
    fn open(&self, progress: &Progress) -> Result<(Self::Reader, Identity), SourceError>;

    /// Whether what lies there changes only as a whole, at one instant.
    fn changes_at_once(&self) -> bool;
}

/// What tells one version of a history from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A file.
    File {
        /// Device and inode.
        inode: (u64, u64),
        /// Its length.
        size: u64,
        /// When its content changed, in seconds and nanoseconds.
        modified: (i64, i64),
        /// When anything of it changed, which nobody can set.
        changed: (i64, i64),
    },
    /// An object.
    Object {
        /// Its ETag.
        etag: Option<String>,
        /// Its length.
        size: u64,
    },
}

/// How long a file must stay as it is before it is opened anew, and how long that is waited for.
const REST: Duration = Duration::from_millis(400);
const REST_AT_MOST: Duration = Duration::from_millis(1_600);
/// How often a window is read again because the history changed meanwhile.
const READINGS: usize = 3;

/// Writes down a mapping that has changed; it is used only once it is kept.
pub type Keep = Box<dyn FnMut(&Mapping) -> io::Result<()> + Send>;

/// The source of a history that is followed.
pub struct Follow<P: Place> {
    place: P,
    tags: TagList,
    mapping: Mapping,
    cadence: Cadence,
    keep: Keep,
    progress: Progress,
    scratch: PathBuf,
    current: Option<Current<P::Reader>>,
}

/// What is open.
struct Current<R: ChunkReader> {
    identity: Identity,
    replay: Replay<R>,
    /// Whether the mapping is that of this version.
    fitted: bool,
}

/// A history that is open, and its version.
pub struct Opened<R: ChunkReader> {
    /// The history.
    pub history: History<R>,
    identity: Identity,
}

/// Opens what lies at `place`. What is not complete may be so later, and can be tried again.
pub fn open<P: Place>(
    place: &P,
    tags: &TagList,
    progress: &Progress,
) -> Result<Opened<P::Reader>, SourceError> {
    let (reader, identity) = place.open(progress)?;
    let unfinished = is_unfinished(&reader);
    match History::open(reader, place.name(), tags) {
        Ok(history) => Ok(Opened { history, identity }),
        Err(error) if unfinished => Err(not_now(
            place.name(),
            &format!("it is not complete: it is being written, or was cut short ({error})"),
        )),
        Err(error) => Err(error),
    }
}

impl<P: Place> Follow<P> {
    /// Follows what was opened at `place`, mapped by `mapping`; `keep` writes a changed mapping down.
    pub fn new(
        place: P,
        opened: Opened<P::Reader>,
        mapping: Mapping,
        cadence: Cadence,
        progress: Progress,
        keep: Keep,
    ) -> Self {
        Self {
            place,
            tags: opened.history.tags().clone(),
            cadence,
            keep,
            current: Some(Current {
                identity: opened.identity,
                replay: Replay::new(opened.history, mapping.now).reporting(progress.clone()),
                fitted: false,
            }),
            mapping,
            progress,
            scratch: std::env::temp_dir(),
        }
    }

    /// Keeps the rows of an unsorted history in `directory` while it is open, not in the system's temporary one.
    pub fn with_scratch(mut self, directory: &Path) -> Self {
        self.scratch = directory.to_owned();
        self.current = self.current.map(|current| Current {
            replay: current.replay.with_scratch(directory),
            ..current
        });
        self
    }

    /// Opens the history anew where another version lies at its place.
    fn freshen(&mut self) -> Result<(), SourceError> {
        let mut seen = self.place.look()?;
        if self.is_current(&seen) {
            return Ok(());
        }
        if !self.place.changes_at_once() {
            let since = Instant::now();
            loop {
                std::thread::sleep(REST);
                self.progress.made(1);
                let again = self.place.look()?;
                if again == seen {
                    break;
                }
                if since.elapsed() > REST_AT_MOST {
                    return Err(not_now(self.place.name(), "it is being written"));
                }
                seen = again;
            }
        }
        // Its memory is given back before the next version takes its own.
        self.current = None;
        let opened =
            open(&self.place, &self.tags, &self.progress).map_err(|error| match error {
                SourceError::Invalid { problems, .. } => {
                    not_now(self.place.name(), &problems.join("; "))
                }
                error => error,
            })?;
        info!(
            history = self.place.name(),
            rows = opened.history.rows(),
            "the history has changed and is read anew"
        );
        self.current = Some(Current {
            identity: opened.identity,
            replay: Replay::new(opened.history, self.mapping.now)
                .reporting(self.progress.clone())
                .with_scratch(&self.scratch),
            fitted: false,
        });
        Ok(())
    }

    fn is_current(&self, seen: &Identity) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.identity == *seen)
    }

    /// Fits the mapping to the length of this version: the turn that `window` is in goes on to the new end.
    fn fit(&mut self, window: &Window) -> Result<(), SourceError> {
        let Some(current) = self.current.as_mut().filter(|current| !current.fitted) else {
            return Ok(());
        };
        let history = current.replay.history();
        let (first, last) = (history.first(), history.last());
        let wall = window.start().timestamp_micros();
        if let Some(fitted) = self.mapping.fitted(first, last, wall, self.cadence) {
            (self.keep)(&fitted).map_err(|source| SourceError::Unavailable {
                name: "the mapping of recorded time".to_owned(),
                source: source.into(),
            })?;
            info!(
                history = self.place.name(),
                "the history has another length: it is looped at its new end"
            );
            self.mapping = fitted;
        }
        current.fitted = true;
        Ok(())
    }
}

impl<P: Place> Source for Follow<P> {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        for _ in 0..READINGS {
            self.freshen()?;
            self.fit(window)?;
            let Some(current) = &mut self.current else {
                break;
            };
            let reading = current
                .replay
                .read_by(self.mapping.of(window), window, rows);
            // An object is read by its ETag: what was read without an error is of one version.
            if (reading.is_ok() && self.place.changes_at_once())
                || self.is_current(&self.place.look()?)
            {
                return reading;
            }
        }
        Err(not_now(self.place.name(), "it changes while it is read"))
    }

    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// Whether the reader has the beginning of a Parquet file and not its end.
fn is_unfinished<R: ChunkReader>(reader: &R) -> bool {
    const MAGIC: &[u8] = b"PAR1";
    let length = reader.len();
    let is = |start: u64| {
        reader
            .get_bytes(start, MAGIC.len())
            .is_ok_and(|bytes| bytes == MAGIC)
    };
    let least = MAGIC.len() as u64;
    length == 0 || (length >= least && is(0) && (length < 3 * least || !is(length - least)))
}

fn not_now(name: &str, why: &str) -> SourceError {
    SourceError::Unavailable {
        name: name.to_owned(),
        source: why.into(),
    }
}
