//! The replay source: a recorded Parquet history, played against the wall clock.
//!
//! Guarantees: a window's rows keep their true offset from the window's start, so a gap in the history stays a gap (the
//! sample notebook renumbers rows by position and closes it up); of rows with one time the last wins, as pandas' own
//! de-duplication does, and the others are counted; unsorted histories are sorted within the window.
//! Memory does not grow with the file: 32 bytes are kept per 1,024 rows and 16 per row group, and the decoded chunk that the
//! last window ended in stays resident, so consecutive windows cost next to nothing. An unsorted history is put in order once
//! (see `ordered`).
//! Deliberately absent: Arrow, and anything about S3; an `s3://` history is any [`ChunkReader`].

mod columns;
mod compact;
mod contain;
mod decode;
mod extent;
pub mod follow;
mod footer;
mod history;
mod layout;
mod local;
mod ordered;
mod pages;
mod parts;
mod shelf;
mod steps;
mod strays;
mod widen;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use parquet::file::reader::ChunkReader;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use extent::Extent;
pub use follow::Follow;
pub use history::History;
pub use local::LocalFiles;
pub use parts::Inventory;
pub use shelf::Shelf;
pub use strays::Strays;

use self::columns::{append, frames, sort_and_keep_last};
use self::history::Chunk;
use self::ordered::Ordered;
use super::shape::Shape;
use super::{Progress, Reading, Source, SourceError};
use crate::signal::{Rebase, RowRule, Segment, TagList, Values, Window};

/// What follows the last recorded row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AtEnd {
    /// The history's first window.
    #[default]
    Loop,
    /// Nothing: the source has ended.
    Stop,
}

/// A history that is played by a rebase.
pub struct Replay<R: ChunkReader> {
    history: History<R>,
    rebase: Rebase,
    /// The chunks decoded last, the most recent one at the end.
    resident: Vec<(usize, Chunk)>,
    order: Order,
    scratch: PathBuf,
    progress: Progress,
}

/// How the rows of a window are found.
enum Order {
    /// In the chunks that overlap it.
    Chunks,
    /// As [`Order::Chunks`], until the first reading of an unsorted history has put its rows in order.
    Unsorted,
    /// In the rows in order.
    Rows(Ordered),
}

/// Chunks that may be resident while a window is read: more than one where an unsorted history has its rows in several.
const RESIDENT_CHUNKS: usize = 2;

impl Replay<File> {
    /// Opens the history in the local file `path`; see [`Replay::open`].
    pub fn open_file(
        path: &Path,
        tags: &TagList,
        shape: &Shape,
    ) -> Result<History<File>, SourceError> {
        let name = path.display().to_string();
        match local::open(path) {
            Ok(file) => Replay::open(file, &name, tags, shape),
            Err(error) => Err(cannot_open(path, name, error)),
        }
    }
}

fn cannot_open(path: &Path, name: String, error: io::Error) -> SourceError {
    if error.kind() == io::ErrorKind::IsADirectory {
        return SourceError::Invalid {
            name,
            problems: vec![local::directory_remedy(path)],
        };
    }
    SourceError::Unavailable {
        name,
        source: error.into(),
    }
}

/// The names of the columns of the file `path`, in their order, the time column among them.
pub fn column_names(path: &Path) -> Result<Vec<String>, SourceError> {
    let name = path.display().to_string();
    match local::open(path) {
        Ok(file) => widen::column_names(file, &name),
        Err(error) => Err(cannot_open(path, name, error)),
    }
}

impl<R: ChunkReader + 'static> Replay<R> {
    /// Checks a history against the tag list and indexes its time column in one streaming pass.
    ///
    /// `name` names the history in errors. A reader over a network reports its failures as `std::io::Error` inside
    /// `ParquetError::External`; those are retryable, everything else is a broken file.
    pub fn open(
        reader: R,
        name: &str,
        tags: &TagList,
        shape: &Shape,
    ) -> Result<History<R>, SourceError> {
        History::open(reader, name, tags, shape)
    }

    /// Plays `history` by `rebase`.
    pub fn new(history: History<R>, rebase: Rebase) -> Replay<R> {
        Replay {
            order: if history.is_sorted() {
                Order::Chunks
            } else {
                Order::Unsorted
            },
            history,
            rebase,
            resident: Vec::new(),
            scratch: std::env::temp_dir(),
            progress: Progress::default(),
        }
    }

    /// Keeps the rows of an unsorted history in `directory` while it is open, not in the system's temporary one.
    pub fn with_scratch(self, directory: &Path) -> Replay<R> {
        Replay {
            scratch: directory.to_owned(),
            ..self
        }
    }

    /// Notes there that a reading goes on.
    pub fn reporting(self, progress: Progress) -> Replay<R> {
        Replay { progress, ..self }
    }

    /// The history.
    pub fn history(&self) -> &History<R> {
        &self.history
    }

    /// The mapping of recorded time to wall time.
    pub fn rebase(&self) -> Rebase {
        self.rebase
    }

    /// The first recorded time at or after `from`, in micros; none after the last. Reads only the chunks that begin before
    /// that time, so a stretch without rows costs nothing, however long it is.
    pub fn next_time(&mut self, from: i64) -> Result<Option<i64>, SourceError> {
        if let Order::Rows(ordered) = &self.order {
            return ordered
                .next_time(from)
                .map_err(|source| SourceError::Unavailable {
                    name: self.history.name().to_owned(),
                    source: source.into(),
                });
        }
        let mut next = self.history.first_beginning(from);
        for index in self.history.overlapping(from, from) {
            let chunk = self.chunk(index)?;
            let rows = chunk.rows_between(from, i64::MAX);
            let least = rows.map(|row| chunk.times[row]).min();
            next = [next, least].into_iter().flatten().min();
        }
        Ok(next)
    }

    fn chunk(&mut self, index: usize) -> Result<&Chunk, SourceError> {
        if let Some(at) = self
            .resident
            .iter()
            .position(|(resident, _)| *resident == index)
        {
            let found = self.resident.remove(at);
            self.resident.push(found);
        } else {
            if self.resident.len() >= RESIDENT_CHUNKS {
                self.resident.remove(0);
            }
            let chunk = self.history.load(index)?;
            self.progress.made(1);
            self.resident.push((index, chunk));
        }
        match self.resident.last() {
            Some((_, chunk)) => Ok(chunk),
            None => Err(self.history.invalid("no chunk is resident".to_owned())),
        }
    }
}

impl<R: ChunkReader + 'static> Source for Replay<R> {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        self.read_by(self.rebase, window, rows)
    }

    fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

impl<R: ChunkReader + 'static> Replay<R> {
    /// As [`Source::read`], by another mapping than its own.
    pub fn read_by(
        &mut self,
        rebase: Rebase,
        window: &Window,
        rows: RowRule,
    ) -> Result<Reading, SourceError> {
        let segments = rebase.segments(window, rows);
        let mut times: Vec<i64> = Vec::new();
        let mut columns: Vec<Values> = self.history.empty_columns();
        for segment in &segments {
            self.rows_of(segment, &mut times, &mut columns)?;
        }
        self.leave_behind();
        let duplicates = sort_and_keep_last(&mut times, &mut columns);
        Ok(Reading {
            infinite: columns.iter().map(Values::infinite).sum(),
            words: columns.iter().map(Values::words).sum(),
            bad: columns.iter().map(Values::bad).sum(),
            frames: frames(self.history.tags(), &times, columns),
            expected_rows: self.history.expected_rows(window.cadence()),
            duplicates,
            ended: is_over(rebase, &segments, self.history.last()),
            position: None,
        })
    }

    /// Appends the rows of a segment, in the order in which they are found, with the times at which they are played.
    fn rows_of(
        &mut self,
        segment: &Segment,
        times: &mut Vec<i64>,
        columns: &mut [Values],
    ) -> Result<(), SourceError> {
        if let Order::Unsorted = self.order {
            // Where that cannot be, each window reads the chunks that overlap it.
            let ordered = Ordered::of(&self.history, &self.scratch, &self.progress)?;
            self.order = ordered.map_or(Order::Chunks, Order::Rows);
        }
        if let Order::Rows(ordered) = &self.order {
            return ordered.read(segment, times, columns).map_err(|source| {
                SourceError::Unavailable {
                    name: self.history.name().to_owned(),
                    source: source.into(),
                }
            });
        }
        let mut selected: Vec<usize> = Vec::new();
        for index in self.history.overlapping(segment.first, segment.last) {
            let chunk = self.chunk(index)?;
            selected.clear();
            selected.extend(chunk.rows_between(segment.first, segment.last));
            times.extend(selected.iter().map(|row| chunk.times[*row] + segment.shift));
            for (column, values) in columns.iter_mut().zip(&chunk.columns) {
                append(column, values, &selected);
            }
        }
        Ok(())
    }

    /// What a sorted history has left behind is not asked for again.
    fn leave_behind(&mut self) {
        if self.history.is_sorted() && self.resident.len() > 1 {
            self.resident.drain(..self.resident.len() - 1);
        }
    }
}

/// Whether a history that ends at `last` has neither rows for these segments nor for later ones.
fn is_over(rebase: Rebase, segments: &[Segment], last: i64) -> bool {
    rebase.period.is_none() && segments.iter().all(|segment| segment.first > last)
}

#[cfg(test)]
mod tests;
