//! The files that a history is made of, in the order of their names.
//!
//! Guarantees: together they give the rows of one file with the rows of all, the later name's where two have one time; a column
//! that a file lacks has no value in its rows. Only files that hold rows of a window are opened for it, a few at a time; what is
//! known of the others is when their rows happened, and stays known while they do not change, over restarts too. A file that
//! cannot be read now holds the windows that it could have rows of, by its name, and no others.
//! Deliberately absent: where files lie (see `follow`), and recorded time's way to the wall's.

mod look;
mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};

use super::columns::Form;
use super::follow::{Identity, Place, not_now};
use super::history::Index;
use super::layout::{Absent, Kind, describe_missing};
use super::shelf::{Known, Shelf};
use super::widen::{Wanted, Wide, column_names, wide};
use super::{Extent, History, Replay};
use crate::signal::{Rebase, TagList};
use crate::source::shape::Shape;
use crate::source::{Progress, SourceError};

/// Files that are open at once.
const OPEN: usize = 4;
/// Files that something was made of, which is kept: to make it again costs a reading of the whole file.
const MADE: usize = 64;
/// Bytes of a file's end, its footer or the end of it, that tell versions apart.
const TAIL: u64 = 64 * 1024;

/// A file that is open, by its name.
type Open<R> = (Arc<str>, Replay<Wide<R>>);

/// The files of a history.
pub(super) struct Parts<P: Place> {
    place: P,
    tags: TagList,
    shape: Shape,
    progress: Progress,
    scratch: PathBuf,
    shelf: Option<Shelf>,
    /// In the order of their names.
    files: Vec<File>,
    /// Whether there may be any number of them, each with some of the columns.
    many: bool,
    skipped: (usize, Vec<String>),
    kinds: Vec<Arc<[Option<Kind>]>>,
    forms: Vec<Form>,
    extent: Extent,
    names: Names,
    open: Vec<Open<P::Reader>>,
    turn: usize,
    /// When files that wait were tried last.
    tried: Option<Instant>,
}

struct File {
    name: Arc<str>,
    state: State,
    /// When it was found to be so.
    since: Instant,
}

enum State {
    Known(Known),
    /// It cannot be read now.
    Waiting {
        /// What it was when that was found; `None` where the next look may find another thing anyway.
        identity: Option<Identity>,
        why: String,
        /// When its rows happened, as it was known before.
        span: Option<(i64, i64)>,
    },
}

/// How the names of files go with their times.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Each begins after the one before has ended.
    Apart,
    /// Each begins and ends no earlier than the one before.
    Ascending,
    /// Not at all.
    Mixed,
}

/// Which files a history has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Files with rows.
    pub files: usize,
    /// Files that lack a column of the tag list; it is without a value there.
    pub lacking: usize,
    /// Files that cannot be read now, each with the reason.
    pub waiting: Vec<String>,
    /// How many names are passed over.
    pub skipped: usize,
    /// Some of them, each with the reason.
    pub shown: Vec<String>,
}

impl File {
    /// Its rows, where they are known.
    fn rows(&self) -> Option<&(Arc<[Option<Kind>]>, Index)> {
        match &self.state {
            State::Known(known) => known.rows.as_ref(),
            State::Waiting { .. } => None,
        }
    }

    fn index(&self) -> Option<&Index> {
        self.rows().map(|(_, index)| index)
    }

    fn identity(&self) -> Option<&Identity> {
        match &self.state {
            State::Known(known) => Some(&known.identity),
            State::Waiting { identity, .. } => identity.as_ref(),
        }
    }

    /// When its rows happened, as far as that was ever known.
    fn span(&self) -> Option<(i64, i64)> {
        match &self.state {
            State::Known(known) => known.span(),
            State::Waiting { span, .. } => *span,
        }
    }
}

impl<P: Place> Parts<P> {
    /// Opens and indexes what lies at `place`.
    pub fn open(
        mut place: P,
        (tags, shape): (&TagList, &Shape),
        progress: &Progress,
        shelf: Option<Shelf>,
    ) -> Result<Self, SourceError> {
        let listing = place.list()?;
        let kept = shelf
            .as_ref()
            .map(|shelf| shelf.read(place.name(), tags, shape))
            .unwrap_or_default();
        let mut parts = Parts {
            place,
            tags: tags.clone(),
            shape: shape.clone(),
            progress: progress.clone(),
            scratch: shelf
                .as_ref()
                .map_or_else(std::env::temp_dir, |shelf| shelf.directory().to_owned()),
            shelf,
            files: Vec::new(),
            many: listing.many,
            skipped: (listing.skipped, listing.shown),
            kinds: Vec::new(),
            forms: Vec::new(),
            extent: Extent::default(),
            names: Names::Apart,
            open: Vec::new(),
            turn: 0,
            tried: None,
        };
        for listed in listing.files {
            let known = kept.get(&*listed.name).cloned();
            let span = known.as_ref().and_then(Known::span);
            match known.filter(|known| parts.is_still(&listed.name, listed.identity, known)) {
                Some(known) => parts.put(listed.name, State::Known(known)),
                None => parts.take(&listed.name, span)?,
            }
        }
        parts.settle();
        parts.refuse_incomplete()?;
        parts.tell();
        Ok(parts)
    }

    pub fn name(&self) -> &str {
        self.place.name()
    }

    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    pub fn put_scratch(&mut self, directory: &Path) {
        if self.scratch != directory {
            self.scratch = directory.to_owned();
            self.open.clear();
        }
    }

    /// Whether there is a file that cannot be read now.
    pub fn is_waiting(&self) -> bool {
        self.waiting().next().is_some()
    }

    fn waiting(&self) -> impl Iterator<Item = (usize, &File, &str)> {
        self.files
            .iter()
            .enumerate()
            .filter_map(|(at, file)| match &file.state {
                State::Waiting { why, .. } => Some((at, file, why.as_str())),
                State::Known(_) => None,
            })
    }

    /// Which files there are.
    pub fn inventory(&self) -> Inventory {
        let rows = || self.files.iter().filter_map(File::rows);
        let waiting = self.waiting();
        Inventory {
            files: rows().count(),
            lacking: rows().filter(|(kinds, _)| kinds.contains(&None)).count(),
            waiting: waiting
                .map(|(_, file, why)| format!("{}: {why}", file.name))
                .collect(),
            skipped: self.skipped.0,
            shown: self.skipped.1.clone(),
        }
    }

    /// Whether a file is what is kept of it.
    fn is_still(&self, name: &str, listed: Option<Identity>, known: &Known) -> bool {
        let looked = || self.place.look(name).ok().flatten();
        if listed.or_else(looked).as_ref() != Some(&known.identity) {
            return false;
        }
        let Some(hash) = known.unsettled else {
            return true;
        };
        let opened = self.place.open(name, &self.progress);
        opened.is_ok_and(|(reader, identity)| {
            identity == known.identity && tail(&reader, reader.len()).is_ok_and(|tail| tail == hash)
        })
    }

    fn put(&mut self, name: Arc<str>, state: State) {
        let file = File {
            name,
            state,
            since: Instant::now(),
        };
        match self
            .files
            .binary_search_by(|known| known.name.cmp(&file.name))
        {
            Ok(at) => self.files[at] = file,
            Err(at) => self.files.insert(at, file),
        }
    }

    /// Opens and indexes one file. Where it is the only one, what is wrong with it is an error; otherwise it waits. `kept` is when
    /// its rows happened, as the last run knew it.
    fn take(&mut self, name: &Arc<str>, kept: Option<(i64, i64)>) -> Result<(), SourceError> {
        self.open.retain(|(open, _)| open != name);
        self.progress.made(1);
        let (identity, error) = match self.place.open(name, &self.progress) {
            Err(error) => match self.place.look(name) {
                Ok(None) if self.many => {
                    self.files.retain(|file| file.name != *name);
                    return Ok(());
                }
                _ => (None, error),
            },
            Ok((reader, identity)) => match self.index(name, reader, &identity) {
                Ok(known) => {
                    self.put(name.clone(), State::Known(known));
                    return Ok(());
                }
                Err(error) if error.is_retryable() => (None, error),
                Err(error) => (Some(identity), error),
            },
        };
        if !self.many {
            return Err(error);
        }
        let before = self.files.iter().find(|file| file.name == *name);
        let span = before.and_then(File::span).or(kept);
        let why = reason(&error);
        warn!(
            file = &**name,
            why, "a file of the history cannot be read now: windows that it may have rows of wait"
        );
        self.put(
            name.clone(),
            State::Waiting {
                identity,
                why,
                span,
            },
        );
        Ok(())
    }

    fn index(
        &mut self,
        name: &Arc<str>,
        reader: P::Reader,
        identity: &Identity,
    ) -> Result<Known, SourceError> {
        let unfinished = is_unfinished(&reader);
        let failed = |error: ParquetError| not_now(name, &error.to_string());
        let unsettled = match self.place.changes_at_once() {
            true => None,
            false => Some(tail(&reader, reader.len()).map_err(failed)?),
        };
        let end = (reader.len(), unsettled.unwrap_or_default());
        let made = Shape::default();
        let history = wide(reader, name, self.wanted()).and_then(|wide| {
            let Some(wide) = wide else { return Ok(None) };
            if wide.is_made() && !self.has_only_grown(name, identity, end)? {
                return Err(not_now(name, "it changes while it is read"));
            }
            let shape = wide.shape(&self.shape, &made);
            match self.many {
                true => History::open_part(wide, name, &self.tags, shape),
                false => History::open(wide, name, &self.tags, shape).map(Some),
            }
        });
        let history = history.map_err(|error| match unfinished {
            true => not_now(
                name,
                &format!("it is not complete: it is being written, or was cut short ({error})"),
            ),
            false => error,
        })?;
        let rows = history.map(|history| {
            let rows = (
                self.share(history.kinds()),
                history.index_of_times().clone(),
            );
            self.keep_open(name.clone(), history);
            rows
        });
        Ok(Known {
            identity: identity.clone(),
            unsettled,
            rows,
        })
    }

    /// Whether a file is what it was when it was opened, or that with more at its end.
    /// `end` is what it ended with then.
    fn has_only_grown(
        &self,
        name: &str,
        opened: &Identity,
        (length, end): (u64, [u8; 16]),
    ) -> Result<bool, SourceError> {
        // An object is read by its ETag.
        if self.place.changes_at_once() {
            return Ok(true);
        }
        let Some(now) = self.place.look(name)? else {
            return Ok(false);
        };
        if now == *opened {
            return Ok(true);
        }
        let (reader, _) = self.place.open(name, &self.progress)?;
        Ok(now.has_grown_from(opened)
            && reader.len() >= length
            && tail(&reader, length).is_ok_and(|now| now == end))
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            tags: &self.tags,
            shape: &self.shape,
            absent: match self.many {
                true => Absent::Empty,
                false => Absent::Refused,
            },
            finished: self.place.changes_at_once(),
            scratch: &self.scratch,
            progress: &self.progress,
        }
    }

    /// The one copy of what most files have alike.
    fn share(&mut self, kinds: Vec<Option<Kind>>) -> Arc<[Option<Kind>]> {
        if let Some(shared) = self.kinds.iter().find(|shared| shared[..] == kinds[..]) {
            return shared.clone();
        }
        let shared: Arc<[Option<Kind>]> = kinds.into();
        self.kinds.push(shared.clone());
        shared
    }

    fn keep_open(&mut self, name: Arc<str>, history: History<Wide<P::Reader>>) {
        let made = history.reader().is_made();
        let most = if made { MADE } else { OPEN };
        let open = self.open.iter().map(|(_, open)| open.history().reader());
        let alike: Vec<usize> = (0..)
            .zip(open)
            .filter(|(_, open)| open.is_made() == made)
            .map(|(at, _)| at)
            .collect();
        if alike.len() >= most {
            self.open.remove(alike[0]);
        }
        let replay = Replay::new(history.in_lanes(self.place.lanes()), Rebase::once(0, 0))
            .reporting(self.progress.clone())
            .with_scratch(&self.scratch);
        self.open.push((name, replay));
    }

    /// Draws the conclusions from the files that are known now, and keeps what is known.
    fn settle(&mut self) {
        self.forget_what_is_old();
        let mut kinds: Vec<&Arc<[Option<Kind>]>> = Vec::new();
        for (known, _) in self.files.iter().filter_map(File::rows) {
            if !kinds.iter().any(|kinds| Arc::ptr_eq(kinds, known)) {
                kinds.push(known);
            }
        }
        let signals = self.tags.tags().count();
        let form = |at: usize| Form::of(kinds.iter().map(|kinds| kinds[at].map(Kind::form)));
        self.forms = (0..signals)
            .map(|at| form(at).unwrap_or(Form::F64))
            .collect();
        self.kinds = kinds.into_iter().cloned().collect();
        self.extent = Extent::of(self.files.iter().filter_map(File::index));
        // Files of other signals have names of their own kind.
        let apart = |one: &[Option<Kind>], other: &[Option<Kind>]| {
            let both = |pair: (&Option<Kind>, &Option<Kind>)| pair.0.is_some() && pair.1.is_some();
            !one.iter().zip(other).any(both)
        };
        let of_others =
            |kinds: &Arc<[Option<Kind>]>| self.kinds.iter().any(|one| apart(one, kinds));
        self.names = match self.kinds.iter().any(of_others) {
            true => Names::Mixed,
            false => Names::of(self.files.iter().filter_map(File::index)),
        };
        let Some(shelf) = &self.shelf else { return };
        let files = self.files.iter().filter_map(|file| match &file.state {
            State::Known(known) => Some((&*file.name, known.clone())),
            State::Waiting { .. } => None,
        });
        if let Err(error) = shelf.write(self.place.name(), (&self.tags, &self.shape), files) {
            warn!(%error, "the index of the history cannot be kept: it is made anew at the next start");
        }
    }

    /// A file that was changed long before another was has had its time: a version after it would have a later one.
    fn forget_what_is_old(&mut self) {
        let changed = |identity: &Identity| match identity {
            Identity::File { changed, .. } => changed.0,
            Identity::Object { .. } => i64::MIN,
        };
        let newest = self
            .files
            .iter()
            .filter_map(File::identity)
            .map(changed)
            .max();
        for file in &mut self.files {
            if let State::Known(known) = &mut file.state
                && newest.is_some_and(|newest| {
                    changed(&known.identity) < newest.saturating_sub(look::TICK_SECONDS)
                })
            {
                known.unsettled = None;
            }
        }
    }

    /// Refuses a history without rows, or without a column that the tag list has.
    fn refuse_incomplete(&self) -> Result<(), SourceError> {
        let name = self.place.name();
        if let Some((_, file, why)) = self.waiting().next()
            && (self.kinds.is_empty() || !self.missing().is_empty())
        {
            return Err(not_now(&file.name, why));
        }
        let Some(file) = self.files.first() else {
            let nothing = "no file of a history is there: check source.history, and whether its share is mounted";
            return Err(not_now(name, nothing));
        };
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let columns = self.columns()?;
        Err(SourceError::Invalid {
            name: name.to_owned(),
            problems: vec![format!(
                "{}, such as {}, as none of the {} has them",
                describe_missing(&missing, columns.iter().map(String::as_str)),
                file.name,
                self.files.len()
            )],
        })
    }

    /// The names of the columns of the first file.
    pub fn columns(&self) -> Result<Vec<String>, SourceError> {
        let Some(file) = self.files.first() else {
            return Ok(Vec::new());
        };
        let (reader, _) = self.place.open(&file.name, &self.progress)?;
        column_names(reader, &file.name)
    }

    /// Tags that no file has a column for.
    fn missing(&self) -> Vec<&str> {
        let has = |at: usize| self.kinds.iter().any(|kinds| kinds[at].is_some());
        let tags = self.tags.tags().enumerate();
        tags.filter(|(at, _)| !has(*at))
            .map(|(_, (_, tag))| tag)
            .collect()
    }

    /// Says once what a directory has.
    fn tell(&self) {
        if !self.many {
            return;
        }
        let Inventory {
            files,
            lacking,
            waiting,
            skipped,
            shown,
        } = self.inventory();
        info!(
            history = self.name(),
            files,
            rows = self.extent.rows(),
            lacking,
            waiting = waiting.len(),
            skipped,
            passed_over = shown.join("; "),
            "the files of the history are known"
        );
    }
}

impl Names {
    fn of<'a>(files: impl Iterator<Item = &'a Index>) -> Names {
        let mut names = Names::Apart;
        let mut before: Option<(i64, i64)> = None;
        for Index { extent, .. } in files {
            let (first, last) = (extent.first(), extent.last());
            if first > last {
                continue;
            }
            match before.replace((first, last)) {
                Some((began, ended)) if began > first || ended > last => return Names::Mixed,
                Some((_, ended)) if ended >= first => names = Names::Ascending,
                _ => {}
            }
        }
        names
    }
}

/// What is wrong, without the name that is said with it.
fn reason(error: &SourceError) -> String {
    match error {
        SourceError::Invalid { problems, .. } => problems.join("; "),
        SourceError::Unavailable { source, .. } | SourceError::Held { source, .. } => {
            source.to_string()
        }
    }
}

/// A hash of the end of a file's first `length` bytes, where its footer lies.
fn tail<R: ChunkReader>(reader: &R, length: u64) -> Result<[u8; 16], ParquetError> {
    let last = length.min(TAIL);
    let bytes = reader.get_bytes(length - last, last as usize)?;
    let mut tail = [0; 16];
    tail.copy_from_slice(&Sha256::digest(&bytes)[..16]);
    Ok(tail)
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
