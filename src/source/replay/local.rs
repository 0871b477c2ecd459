//! A history in files of this machine, or of a share that it has mounted: one file, those under a directory, those that match
//! a pattern.
//!
//! Guarantees: nothing waits to be told of a change; each look asks the file system. A directory is read again when its times
//! have changed, or had when they were too young to tell; what is no file of a history is passed over and listed. Names
//! are ordered byte by byte, whatever the file system gives.

mod glob;

use std::collections::{HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::follow::{Identity, Listed, Listing, Place};
use crate::source::{Progress, SourceError};

/// Directories within directories that are looked into.
const DEPTH: usize = 24;
/// After so long a second look tells whether something was changed within one tick of a file system's clock.
const TICK: Duration = Duration::from_secs(10);
/// How the names of a history's files end.
pub(super) const PARQUET_ENDS: [&str; 3] = [".parquet", ".parq", ".pq"];
const CSV_ENDS: [&str; 2] = [".csv", ".csv.gz"];
/// What is said of others.
const NOT_CALLED: &str = "is not called .parquet, .parq, .pq, .csv or .csv.gz";
/// Passed-over names that are kept to be shown.
const SHOWN: usize = 20;

/// The files at a place: a path, a directory, or a pattern such as `/data/*/2026-*.parquet`.
pub struct LocalFiles {
    place: PathBuf,
    name: String,
    directories: HashMap<PathBuf, Directory>,
}

/// A directory as it was read last.
struct Directory {
    identity: Identity,
    /// When it was read first as it is; `None` once a later reading found the same.
    young: Option<Instant>,
    entries: Vec<(String, Entry)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    File,
    Directory,
}

/// What is being found in one look.
#[derive(Default)]
struct Walk {
    listing: Listing,
    /// Directories on the way, by device and inode: a link must not lead back.
    inside: HashSet<(u64, u64)>,
    read: HashSet<PathBuf>,
}

impl LocalFiles {
    /// The files at `place`, which need not be there.
    pub fn at(place: &Path) -> Self {
        Self {
            place: place.to_owned(),
            name: place.display().to_string(),
            directories: HashMap::new(),
        }
    }

    /// Whether there may be any number of files at the place: a directory, or a pattern.
    pub fn may_be_many(&self) -> bool {
        match std::fs::metadata(&self.place) {
            Ok(found) => found.is_dir(),
            Err(_) => glob::is_pattern(&self.name),
        }
    }

    fn absent(&self) -> SourceError {
        SourceError::Unavailable {
            name: self.name.clone(),
            source: "no such file: check source.history, and whether its share is mounted".into(),
        }
    }

    fn unavailable(&self, error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::NotFound => self.absent(),
            io::ErrorKind::PermissionDenied => SourceError::Invalid {
                name: self.name.clone(),
                problems: vec![format!(
                    "{error}: let the user that lookoutd runs as read it"
                )],
            },
            _ => SourceError::Unavailable {
                name: self.name.clone(),
                source: error.into(),
            },
        }
    }

    /// The files under a directory that match what is left of a pattern; without one, those that are called like a history.
    fn walk(
        &mut self,
        directory: &Path,
        pattern: Option<&[&str]>,
        walk: &mut Walk,
    ) -> io::Result<()> {
        let found = std::fs::metadata(directory)?;
        let inode = (found.dev(), found.ino());
        if walk.inside.len() >= DEPTH || !walk.inside.insert(inode) {
            return Ok(());
        }
        let entries = self.entries(directory, identity(&found))?;
        walk.read.insert(directory.to_owned());
        for (name, entry) in entries {
            let path = directory.join(&name);
            if let Some(why) = passed_over(&name) {
                walk.listing.skip(&path, why);
                continue;
            }
            match (entry, pattern) {
                (Entry::Directory, None) => self.enter(&path, None, walk)?,
                (Entry::Directory, Some(["**", rest @ ..])) => {
                    self.enter(&path, pattern, walk)?;
                    if let [first, rest @ ..] = rest
                        && glob::matches(first, &name)
                        && !rest.is_empty()
                    {
                        self.enter(&path, Some(rest), walk)?;
                    }
                }
                (Entry::Directory, Some([first, rest @ ..]))
                    if glob::matches(first, &name) && !rest.is_empty() =>
                {
                    self.enter(&path, Some(rest), walk)?;
                }
                (Entry::File, None) if !is_called_like_one(&name) => {
                    walk.listing.skip(&path, NOT_CALLED);
                }
                (Entry::File, None) => walk.listing.add(&path),
                (Entry::File, Some(["**", last] | [last])) if glob::matches(last, &name) => {
                    walk.listing.add(&path);
                }
                (Entry::File, Some(["**"])) => walk.listing.add(&path),
                _ => {}
            }
        }
        walk.inside.remove(&inode);
        Ok(())
    }

    /// Walks a directory that was found; one that is gone meanwhile has nothing.
    fn enter(&mut self, path: &Path, pattern: Option<&[&str]>, walk: &mut Walk) -> io::Result<()> {
        match self.walk(path, pattern, walk) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// What is in a directory: from memory where it has not changed.
    fn entries(&mut self, path: &Path, identity: Identity) -> io::Result<Vec<(String, Entry)>> {
        let known = self.directories.get(path);
        let same = known.filter(|known| known.identity == identity);
        if let Some(known) = same
            && known.young.is_none()
        {
            return Ok(known.entries.clone());
        }
        let young = match same.map(|known| known.young) {
            Some(Some(since)) if since.elapsed() > TICK => None,
            Some(young) => young,
            None => Some(Instant::now()),
        };
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|error| named(path, &error))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let is_directory = kind.is_dir()
                || (kind.is_symlink()
                    && std::fs::metadata(entry.path()).is_ok_and(|found| found.is_dir()));
            let what = if is_directory {
                Entry::Directory
            } else {
                Entry::File
            };
            entries.push((entry.file_name().to_string_lossy().into_owned(), what));
        }
        let directory = Directory {
            identity,
            young,
            entries: entries.clone(),
        };
        self.directories.insert(path.to_owned(), directory);
        Ok(entries)
    }

    /// The files that match the pattern that the place is.
    fn matching(&mut self, walk: &mut Walk) -> io::Result<()> {
        let place = self.name.clone();
        let mut fixed = PathBuf::new();
        let mut rest: Vec<&str> = Vec::new();
        for (at, part) in place.split('/').enumerate() {
            match rest.is_empty() && !glob::is_pattern(part) {
                true if at == 0 && part.is_empty() => fixed.push("/"),
                true => fixed.push(part),
                false if part.is_empty() => {}
                false => rest.push(part),
            }
        }
        if fixed.as_os_str().is_empty() {
            fixed.push(".");
        }
        self.walk(&fixed, Some(&rest), walk)
    }
}

impl Place for LocalFiles {
    type Reader = File;

    fn name(&self) -> &str {
        &self.name
    }

    fn list(&mut self) -> Result<Listing, SourceError> {
        let mut walk = Walk::default();
        let place = self.place.clone();
        let found = match std::fs::metadata(&place) {
            Ok(found) if found.is_dir() => self.walk(&place, None, &mut walk),
            Ok(_) => return Ok(Listing::one(&self.name, None)),
            Err(error)
                if glob::is_pattern(&self.name) && error.kind() == io::ErrorKind::NotFound =>
            {
                self.matching(&mut walk)
            }
            Err(error) => Err(error),
        };
        found.map_err(|error| self.unavailable(error))?;
        self.directories.retain(|path, _| walk.read.contains(path));
        Ok(walk.listing.in_order())
    }

    fn look(&self, file: &str) -> Result<Option<Identity>, SourceError> {
        match std::fs::metadata(file) {
            Ok(found) => Ok(Some(identity(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unavailable(named(Path::new(file), &error))),
        }
    }

    fn open(&self, file: &str, _: &Progress) -> Result<(File, Identity), SourceError> {
        let opened = open(Path::new(file));
        opened
            .and_then(|opened| {
                let found = opened.metadata()?;
                Ok((opened, identity(&found)))
            })
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => self.absent(),
                _ => self.unavailable(named(Path::new(file), &error)),
            })
    }

    fn changes_at_once(&self) -> bool {
        false
    }
}

/// An error that says where.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Why a name is never that of a file of a history, nor of a directory with some.
fn passed_over(name: &str) -> Option<&'static str> {
    // Spark keeps values of a column that is called `_x` in directories `_x=1`.
    let hidden = name.starts_with('.') || (name.starts_with('_') && !name.contains('='));
    let passing = [".tmp", ".temp", ".part", ".partial", ".crdownload", "~"];
    let lower = name.to_ascii_lowercase();
    if name == "lost+found" {
        return Some("is the file system's own");
    }
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return Some("its name is not UTF-8");
    }
    if hidden {
        return Some("its name begins with a dot or an underscore");
    }
    let unfinished = passing.iter().any(|end| lower.ends_with(end));
    unfinished.then_some("its name is that of a file in the making")
}

fn is_called_like_one(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let ends = PARQUET_ENDS.iter().chain(&CSV_ENDS);
    ends.into_iter().any(|end| lower.ends_with(end))
}

impl Listing {
    /// The file at the place itself.
    pub fn one(name: &str, identity: Option<Identity>) -> Listing {
        Listing {
            files: vec![Listed {
                name: name.into(),
                identity,
            }],
            many: false,
            ..Listing::default()
        }
    }

    fn add(&mut self, path: &Path) {
        self.files.push(Listed {
            name: path.to_string_lossy().into(),
            identity: None,
        });
    }

    /// Notes what was passed over.
    pub fn skip(&mut self, path: &Path, why: &str) {
        self.skipped += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(format!("{} {why}", path.display()));
        }
    }

    /// Whether an object's name is that of a file of a history; what is not is noted.
    pub fn wants(&mut self, prefix: &str, key: &str) -> bool {
        let below = key.strip_prefix(prefix).unwrap_or(key);
        let mut parts = below.split('/').filter(|part| !part.is_empty());
        let mut why = parts.find_map(passed_over);
        if why.is_none() && !is_called_like_one(below) {
            why = Some(NOT_CALLED);
        }
        if let Some(why) = why
            && !below.is_empty()
        {
            self.skip(Path::new(key), why);
        }
        why.is_none()
    }

    /// With the files in the order of their names, each once.
    pub fn in_order(mut self) -> Listing {
        self.files.sort_by(|one, other| one.name.cmp(&other.name));
        self.files.dedup_by(|one, other| one.name == other.name);
        self.shown.sort();
        Listing { many: true, ..self }
    }
}

/// Opens a file to be read, and nothing else that may lie at its path.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let found = std::fs::metadata(path)?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Opening a pipe would wait for somebody who writes into it.
    if !found.is_file() {
        return Err(io::Error::other("is no file but a pipe, socket or device"));
    }
    File::open(path)
}

/// What is wrong with a directory where a file is expected, and what to do.
pub(super) fn directory_remedy(path: &Path) -> String {
    let part = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "parquet"))
        .min();
    let such_as = part.map_or_else(String::new, |part| format!(", such as {}", part.display()));
    format!(
        "is a directory; here a history is one file: name a single file{such_as}, or write the parts into one"
    )
}

fn identity(found: &Metadata) -> Identity {
    Identity::File {
        inode: (found.dev(), found.ino()),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    }
}
