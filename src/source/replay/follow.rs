//! A history that lives on: appended to, written again, replaced by a rename, rolled, away for a while.
//!
//! Guarantees: before a window is read, and before the history is called over, what lies at its place is compared with what
//! was opened; what has changed is opened and indexed anew, once it has come to rest. A window is never put together of two
//! versions of a file. What cannot be read now is an error that may be tried again, whatever it is: a share that is away, a file
//! that is being written, columns that are missing; only a fault inside a file that does not change is one of its content.
//! Where a looped history has grown, the turn that is playing goes on to its new end.
//! Deliberately absent: what lies where, a [`Place`] knows; and which file has which rows (see `parts`).

use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::ChunkReader;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::parts::{Inventory, Parts};
use super::{Extent, Shelf, is_over};
use crate::signal::{Cadence, Mapping, RowRule, TagList, Window};
use crate::source::shape::Shape;
use crate::source::{Progress, Reading, Source, SourceError};

/// Where a history lies. There are two: files of this machine, and objects in a bucket.
pub trait Place: Send {
    /// What a file's bytes are read with.
    type Reader: ChunkReader + 'static;

    /// Its name, for messages.
    fn name(&self) -> &str;

    /// The files that lie there now.
    fn list(&mut self) -> Result<Listing, SourceError>;

    /// Which version of a file lies there now; `None` where it is gone.
    fn look(&self, file: &str) -> Result<Option<Identity>, SourceError>;

    /// Opens what is called `file` now.
    fn open(
        &self,
        file: &str,
        progress: &Progress,
    ) -> Result<(Self::Reader, Identity), SourceError>;

    /// Whether what lies there changes only as a whole, at one instant.
    fn changes_at_once(&self) -> bool;

    /// How many parts of a file are read at once: several where it is not the bytes but the way to them that takes the time.
    fn lanes(&self) -> usize {
        1
    }
}

/// What lies at a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The files, in the order of their names.
    pub files: Vec<Listed>,
    /// Whether the place may have any number of files; one that is a file itself has that.
    pub many: bool,
    /// How many names were passed over.
    pub skipped: usize,
    /// Some of them, each with the reason.
    pub shown: Vec<String>,
}

/// One file of a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its name, by which it is opened.
    pub name: Arc<str>,
    /// Which version it is, where the listing tells.
    pub identity: Option<Identity>,
}

/// What tells one version of a file from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Identity {
    /// Whether it is the same file with more in it, by its length.
    pub fn has_grown_from(&self, before: &Identity) -> bool {
        match (before, self) {
            (
                Identity::File { inode, size, .. },
                Identity::File {
                    inode: same,
                    size: length,
                    ..
                },
            ) => inode == same && length > size,
            _ => false,
        }
    }
}

/// How often a window is read again because the history changed meanwhile.
const READINGS: usize = 3;

/// Writes down a mapping that has changed; it is used only once it is kept.
pub type Keep = Box<dyn FnMut(&Mapping) -> io::Result<()> + Send>;

/// The source of a history that is followed.
pub struct Follow<P: Place> {
    parts: Parts<P>,
    mapping: Mapping,
    cadence: Cadence,
    keep: Keep,
    progress: Progress,
    /// Whether the mapping is that of this version.
    fitted: bool,
    /// Whether each reading asks what has changed.
    looks: bool,
}

/// A history that is open.
pub struct Opened<P: Place> {
    parts: Parts<P>,
    progress: Progress,
}

impl<P: Place> Opened<P> {
    /// How far it reaches.
    pub fn extent(&self) -> &Extent {
        self.parts.extent()
    }

    /// Which files it has.
    pub fn inventory(&self) -> Inventory {
        self.parts.inventory()
    }
}

/// Opens what lies at `place`. What is not complete may be so later, and can be tried again. What is found out about the files
/// is kept on the `shelf`.
pub fn open<P: Place>(
    place: P,
    tags: &TagList,
    shape: &Shape,
    progress: &Progress,
    shelf: Option<Shelf>,
) -> Result<Opened<P>, SourceError> {
    Ok(Opened {
        parts: Parts::open(place, (tags, shape), progress, shelf)?,
        progress: progress.clone(),
    })
}

impl<P: Place> Follow<P> {
    /// Follows what was opened, mapped by `mapping`; `keep` writes a changed mapping down.
    pub fn new(opened: Opened<P>, mapping: Mapping, cadence: Cadence, keep: Keep) -> Self {
        Self {
            parts: opened.parts,
            mapping,
            cadence,
            keep,
            progress: opened.progress,
            fitted: false,
            looks: true,
        }
    }

    /// Takes the history as it is, until reading it fails.
    pub fn as_it_is(self) -> Self {
        Self {
            looks: false,
            ..self
        }
    }

    /// Keeps the rows of an unsorted history in `directory` while it is open, not in the system's temporary one.
    pub fn with_scratch(mut self, directory: &Path) -> Self {
        self.parts.put_scratch(directory);
        self
    }

    /// The first recorded time at or after `from`, in micros; none after the last.
    pub fn next_time(&mut self, from: i64) -> Result<Option<i64>, SourceError> {
        self.parts.next_time(from)
    }

    /// Fits the mapping to the length of this version: the turn that `window` is in goes on to the new end. Where a file
    /// cannot be read now the length is not known.
    fn fit(&mut self, window: &Window) -> Result<(), SourceError> {
        if self.fitted || self.parts.is_waiting() {
            return Ok(());
        }
        let extent = self.parts.extent();
        let wall = window.start().timestamp_micros();
        let fitted = self
            .mapping
            .fitted(extent.first(), extent.last(), wall, self.cadence);
        if let Some(fitted) = fitted {
            (self.keep)(&fitted).map_err(|source| SourceError::Unavailable {
                name: "the mapping of recorded time".to_owned(),
                source: source.into(),
            })?;
            info!(
                history = self.parts.name(),
                "the history has another length: it is looped at its new end"
            );
            self.mapping = fitted;
        }
        self.fitted = true;
        Ok(())
    }
}

impl<P: Place> Source for Follow<P> {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        for reading in 1..=READINGS {
            let segments = self.mapping.of(window).segments(window, rows);
            if (self.looks || reading > 1) && self.parts.freshen(&segments)? {
                self.fitted = false;
            }
            self.fit(window)?;
            let rebase = self.mapping.of(window);
            let segments = rebase.segments(window, rows);
            let found = match self.parts.read(&segments) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                // Another file has taken its place on the share, which opening it by its name finds.
                Err(error) if is_stale(&error) && reading < READINGS => continue,
                Err(error) => return Err(error),
            };
            let extent = self.parts.extent();
            return Ok(Reading {
                expected_rows: extent.expected_rows(window.cadence()),
                ended: is_over(rebase, &segments, extent.last()),
                ..found
            });
        }
        Err(not_now(self.parts.name(), "it changes while it is read"))
    }

    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// Whether a file is gone from under its handle.
fn is_stale(error: &SourceError) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::StaleNetworkFileHandle) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error of what cannot be read now, and may be later.
pub(super) fn not_now(name: &str, why: &str) -> SourceError {
    SourceError::Unavailable {
        name: name.to_owned(),
        source: why.into(),
    }
}
