//! Opening: what a crash has left is brought in order, and what is damaged set aside.
//!
//! Guarantees: everything that was acknowledged is there, unless its bytes are damaged; then it is named, its bytes are kept in
//! `damaged/`, and the rest goes on. Positions and numbers of signals that were given are not given again. A disk that is full or
//! failing costs the bringing in order, not the opening.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::Semaphore;

use super::commit::{NAMES, PARTIAL, Writer, log_named};
use super::names::{Names, Unread};
use super::segment::{self, Segment, Unreadable};
use super::table::{Entry, Table};
use super::{Journal, JournalError, Options, Shared, WAITING};
use super::{failed, held, log, looked, written};
use crate::disk::Disk;

/// Where what is damaged lies.
const ASIDE: &str = "damaged";
/// How often a journal is looked at anew because its writer went on meanwhile.
const AGAIN: usize = 5;

pub(super) fn open(
    directory: &Path,
    disk: Arc<dyn Disk>,
    options: Options,
    is_read_only: bool,
) -> Result<Journal, JournalError> {
    let mut left = AGAIN;
    loop {
        let shared = Shared {
            directory: directory.to_owned(),
            disk: disk.clone(),
            options,
            is_read_only,
            names: RwLock::default(),
            live: RwLock::default(),
            writer: Mutex::default(),
            queue: Mutex::default(),
            room: Arc::new(Semaphore::new(WAITING)),
            indexes: Mutex::default(),
            damage: Mutex::default(),
            hours: Mutex::default(),
            released: AtomicI64::new(i64::MIN),
        };
        left -= 1;
        match shared.load() {
            Ok(()) => {
                return Ok(Journal {
                    shared: Arc::new(shared),
                });
            }
            Err(JournalError::Disk { source, .. })
                if is_read_only && left > 0 && source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// A log, and from where on it does not count.
struct Log {
    path: PathBuf,
    first: u64,
    void_from: u64,
}

impl Shared {
    fn load(&self) -> Result<(), JournalError> {
        if !self.is_read_only {
            self.disk
                .create_dir(&self.directory)
                .map_err(failed(&self.directory, "made"))?;
        }
        let files = self.list(&self.directory)?;
        let mut writer = held(&self.writer);
        self.load_names(&mut writer, &files)?;
        self.load_segments(&files)?;
        self.load_logs(&files)?;
        self.keep_what_was_given();
        if !self.is_read_only {
            for path in files.iter().filter(|path| is_partial(path)) {
                self.discard(path);
            }
            self.settle(&mut writer);
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>, JournalError> {
        self.disk
            .list(directory)
            .map_err(failed(directory, "listed"))
    }

    fn load_names(&self, writer: &mut Writer, files: &[PathBuf]) -> Result<(), JournalError> {
        let path = self.path(NAMES);
        if !files.contains(&path) {
            return Ok(());
        }
        let bytes = self.disk.read(&path).map_err(failed(&path, "read"))?;
        let (names, unread) = Names::read(&bytes);
        *written(&self.names) = names;
        writer.names_are_whole = unread == Unread::default();
        if unread.torn > 0 {
            tracing::info!(
                bytes = unread.torn,
                "the end of the journal's names was torn off"
            );
        }
        if unread.damaged > 0 {
            self.set_aside(&path, &bytes);
            self.note(
                &path,
                format!(
                    "{} name(s) of signals cannot be read: their samples are kept, but not found by name",
                    unread.damaged
                ),
            );
        }
        Ok(())
    }

    fn load_segments(&self, files: &[PathBuf]) -> Result<(), JournalError> {
        let mut found = Vec::new();
        for path in files {
            let Some((first, end)) = segment::named(path) else {
                continue;
            };
            match Segment::open(&*self.disk, path) {
                Ok(segment) => found.push(segment),
                Err(Unreadable::Damaged(what)) => found.extend(self.mend(path, (first, end), what)),
                Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(failed(path, "read")(error));
                }
                Err(Unreadable::Io(error)) => {
                    self.note(path, format!("it cannot be read: {error}"))
                }
            }
        }
        // The larger first among those that begin alike: what lies within it was merged into it.
        found.sort_by_key(|segment| (segment.first, std::cmp::Reverse(segment.end)));
        let mut live = written(&self.live);
        for segment in found {
            if segment.end > live.first || live.segments.is_empty() {
                live.first = live.first.max(segment.end);
                live.segments.push(Arc::new(segment));
            } else if !self.is_read_only {
                self.discard(&segment.path);
            }
        }
        live.position = live.first;
        Ok(())
    }

    /// What can be found of a damaged segment becomes one that is whole.
    fn mend(&self, path: &Path, (first, end): (u64, u64), what: &str) -> Option<Segment> {
        let bytes = match self.disk.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.note(path, format!("{what}, and it cannot be read: {error}"));
                return None;
            }
        };
        let (mut entries, lost) = segment::salvage(&bytes);
        entries.retain(|(key, _)| (first..end).contains(&key.position));
        self.note(
            path,
            format!(
                "{what}: {} samples of it were found, {lost} bytes are none",
                entries.len()
            ),
        );
        let table: Table = entries.into_iter().collect();
        let (mended, mut segment) = segment::encode(first, end, table.entries());
        segment.path = path.to_owned();
        if self.is_read_only {
            let mut live = written(&self.live);
            table
                .entries()
                .for_each(|(key, said)| live.table.insert(key, said));
            return None;
        }
        self.set_aside(path, &bytes);
        match self.publish(path, &mended) {
            Ok(()) => Some(segment),
            Err(error) => {
                self.note(path, format!("it cannot be mended: {error}"));
                None
            }
        }
    }

    fn load_logs(&self, files: &[PathBuf]) -> Result<(), JournalError> {
        let mut logs: Vec<Log> = Vec::new();
        for path in files {
            if let Some(first) = log_named(path) {
                if let Some(before) = logs.last_mut() {
                    before.void_from = first;
                }
                logs.push(Log {
                    path: path.clone(),
                    first,
                    void_from: u64::MAX,
                });
            }
        }
        for log in logs {
            let sealed = looked(&self.live).first;
            if log.first < sealed {
                if !self.is_read_only {
                    self.discard(&log.path);
                }
                continue;
            }
            let entries = self.load_log(&log)?;
            let mut live = written(&self.live);
            live.position = live.position.max(log.first);
            for (key, said) in entries {
                live.position = live.position.max(key.position + 1);
                live.table.insert(key, said);
            }
        }
        Ok(())
    }

    fn load_log(&self, log: &Log) -> Result<Vec<Entry>, JournalError> {
        let bytes = match self.disk.read(&log.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failed(&log.path, "read")(error));
            }
            Err(error) => {
                self.note(&log.path, format!("it cannot be read: {error}"));
                return Ok(Vec::new());
            }
        };
        let mut contents = log::read(&bytes);
        if contents.torn > 0 && !self.is_read_only {
            tracing::info!(path = %log.path.display(), bytes = contents.torn,
                "the journal's end was torn off: it was not acknowledged, and is left out");
        }
        if contents.damaged > 0 {
            self.set_aside(&log.path, &bytes);
            self.note(
                &log.path,
                format!(
                    "{} bytes of it are not as they were written: what they had is lost",
                    contents.damaged
                ),
            );
        }
        contents
            .entries
            .retain(|(key, _)| (log.first..log.void_from).contains(&key.position));
        Ok(contents.entries)
    }

    /// Keeps a copy of what is damaged, as far as that can be done.
    fn set_aside(&self, path: &Path, bytes: &[u8]) {
        let aside = self.path(ASIDE);
        let (Some(name), false) = (path.file_name(), self.is_read_only) else {
            return;
        };
        let copied = self
            .disk
            .create_dir(&aside)
            .and_then(|()| self.publish(&aside.join(name), bytes));
        if let Err(error) = copied {
            tracing::warn!(path = %path.display(), %error, "what is damaged cannot be copied aside");
        }
    }

    /// Positions and numbers that were given are not given again, also where what they were given to is lost.
    fn keep_what_was_given(&self) {
        let mut live = written(&self.live);
        let mut names = written(&self.names);
        for segment in &live.segments {
            names.skip(segment.top_signal);
        }
        let top = live.table.entries().last();
        if let Some((key, _)) = top {
            names.skip(key.signal);
        }
        for directory in [self.directory.clone(), self.path(ASIDE)] {
            for path in self.disk.list(&directory).unwrap_or_default() {
                let end = segment::named(&path).map(|(_, end)| end);
                let given = end.or_else(|| log_named(&path)).unwrap_or(0);
                live.position = live.position.max(given);
            }
        }
    }

    /// What logs have becomes a segment, with the one before where that is small.
    fn settle(&self, writer: &mut Writer) {
        let samples = looked(&self.live).table.len();
        if samples == 0 {
            for path in self.disk.list(&self.directory).unwrap_or_default() {
                if log_named(&path).is_some() {
                    self.discard(&path);
                }
            }
            let mut live = written(&self.live);
            live.first = live.position;
            return;
        }
        let earlier = self.small_before(samples);
        if let Err(error) = self.seal(writer, earlier) {
            tracing::warn!(%error, "no segment can be made of the journal's log");
        }
    }

    fn small_before(&self, samples: usize) -> Option<(Arc<Segment>, Table)> {
        let segment = looked(&self.live).segments.last()?.clone();
        let small = (segment.samples as usize) < self.options.segment / 4;
        let fits = segment.samples as usize + samples <= self.options.segment;
        if !(small && fits) {
            return None;
        }
        let index = self.index(&segment).ok()?;
        let mut entries = Vec::new();
        self.entries(&segment, &index, |entry| entries.push(entry))
            .ok()?;
        let is_whole = entries.len() as u64 == segment.samples;
        is_whole.then(|| (segment, entries.into_iter().collect()))
    }
}

fn is_partial(path: &Path) -> bool {
    path.to_string_lossy().ends_with(PARTIAL)
}
