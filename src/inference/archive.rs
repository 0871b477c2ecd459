//! The archive: one write-once record of every execution and its results, as plain files.
//!
//! ```text
//!  archive/<scheduler>/<yyyy>/<MM>/<dd>/<HHmmss>.jsonl        the results, byte for byte
//!  archive/<scheduler>/<yyyy>/<MM>/<dd>/<HHmmss>.json         the execution, and the checksum of its results
//!                                       <HHmmss>.late.json(l)  a window that failed first and was scored later
//!                                       <HHmmss>.conflict-*    bytes that differ from what was archived before
//!                                       <HHmmss>.*.damaged*    a file that did not hold what was written, set aside
//! ```
//!
//! The time is the data start, UTC. Guarantees: the `.json` comes last and makes a record; each file is written beside its
//! place, synced, renamed and its directory synced; a record that is there is compared and never written again. Both files
//! of a record are checked by their SHA-256 whenever they are read; damage stays with its record. Only the watcher writes, under the data directory's lock; anyone may read.

mod patrol;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::execution::Execution;
use super::is_name;

pub use patrol::Checked;

/// The archive under one directory.
#[derive(Clone, Debug)]
pub struct Archive {
    root: PathBuf,
}

/// What a `.json` file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Of this layout: 1.
    pub format: u32,
    /// The execution.
    pub execution: Execution,
    /// Its results, where it has some.
    pub results: Option<Checksum>,
    /// SHA-256 of the rest of this record, as JSON without white space. Records of older builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What the results' bytes must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Length.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// How keeping an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Written now.
    Written,
    /// Exactly this was there.
    AlreadyThere,
    /// The window had failed before; this is written beside it.
    Late,
    /// Something else was there, which stays; what came now lies in this file.
    Conflict(PathBuf),
}

/// Why a record could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("archive {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A record does not hold what it once held.
    #[error(
        "archive {}: {what}; the running daemon sets it aside and fetches it again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A name that would lead out of the archive, as an answer of a service that is not what it should be may hold.
    #[error("\"{0}\" is not the name of a scheduler: nothing is archived for it")]
    Name(String),
}

const FORMAT: u32 = 1;
/// What Linux says of a bad sector, and of a directory that is read.
const EIO: i32 = 5;
const EISDIR: i32 = 21;

impl Archive {
    /// The archive under `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a record of `execution` lies, without extension, relative to the archive and with forward slashes.
    pub fn place(execution: &Execution) -> String {
        format!(
            "{}/{}",
            execution.scheduler,
            execution.data_start.format("%Y/%m/%d/%H%M%S")
        )
    }

    /// Where the results of a window lie, the late ones where there are some.
    pub fn results_file(&self, scheduler: &str, data_start: DateTime<Utc>) -> PathBuf {
        let place = format!("{scheduler}/{}", data_start.format("%Y/%m/%d/%H%M%S"));
        let late = self.root.join(format!("{place}.late.jsonl"));
        if late.exists() {
            late
        } else {
            self.root.join(format!("{place}.jsonl"))
        }
    }

    /// Keeps an execution and its results, durably. May be repeated.
    pub fn keep(
        &self,
        execution: &Execution,
        results: Option<&[u8]>,
    ) -> Result<Kept, ArchiveError> {
        if !is_name(&execution.scheduler) {
            return Err(ArchiveError::Name(execution.scheduler.clone()));
        }
        let place = Self::place(execution);
        let late = self.record(&place).ok().flatten().is_some_and(|before| {
            before.execution.status == "FAILED" && execution.status == "SUCCESS"
        });
        let place = if late { format!("{place}.late") } else { place };
        let mut record = Record {
            format: FORMAT,
            execution: execution.clone(),
            results: results.map(Checksum::of),
            sha256: None,
        };
        record.sha256 = Some(record.sum());
        let json = serde_json::to_vec_pretty(&record).map_err(|error| ArchiveError::Io {
            path: self.root.join(&place),
            source: error.into(),
        })?;
        let mut written = false;
        let before = match self.record(&place) {
            Ok(before) => before,
            // What is there is no record any more: it gives way to one.
            Err(ArchiveError::Damaged { path, .. }) => {
                self.set_aside(&path)?;
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(bytes) = results {
            // Results that are not those of their record are damaged, and these are the ones.
            let lost = before.as_ref().is_some_and(|before| {
                before.results == record.results && self.checked(&place, before).is_err()
            });
            if lost {
                self.set_aside(&self.root.join(format!("{place}.jsonl")))?;
            }
            match self.put(&format!("{place}.jsonl"), bytes)? {
                Put::Conflict(aside) => return Ok(Kept::Conflict(aside)),
                put => written |= put == Put::Written,
            }
        }
        // A record of an older build says the same without its own checksum.
        let said = before.is_some_and(|before| {
            (before.execution, before.results) == (record.execution, record.results)
        });
        if said {
            return Ok(if written {
                Kept::Written
            } else {
                Kept::AlreadyThere
            });
        }
        match self.put(&format!("{place}.json"), &json)? {
            Put::Conflict(aside) => return Ok(Kept::Conflict(aside)),
            put => written |= put == Put::Written,
        }
        Ok(match (written, late) {
            (false, _) => Kept::AlreadyThere,
            (true, false) => Kept::Written,
            (true, true) => Kept::Late,
        })
    }

    /// The files of a record, name relative to the archive and bytes, as they are to be copied.
    pub fn files(&self, execution: &Execution) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let place = Self::place(execution);
        let mut files = Vec::new();
        for name in [".jsonl", ".json", ".late.jsonl", ".late.json"] {
            let name = format!("{place}{name}");
            if let Some(bytes) = read(&self.root.join(&name))? {
                files.push((name, bytes));
            }
        }
        Ok(files)
    }

    /// The record at `place`, the latest of it; `None` where there is none.
    pub fn record(&self, place: &str) -> Result<Option<Record>, ArchiveError> {
        let path = self.root.join(format!("{place}.json"));
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let damaged = |what: String| ArchiveError::Damaged {
            path: path.clone(),
            what,
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if record.format != FORMAT {
            let what = format!("has format {}, this build reads {FORMAT}", record.format);
            return Err(damaged(what));
        }
        if record
            .sha256
            .as_ref()
            .is_some_and(|sum| *sum != record.sum())
        {
            return Err(damaged("does not match its own SHA-256".into()));
        }
        if Self::place(&record.execution) != place.trim_end_matches(".late") {
            return Err(damaged("is the record of another window".into()));
        }
        Ok(Some(record))
    }

    /// The results of `execution`, checked; `None` where none are archived.
    pub fn results(&self, execution: &Execution) -> Result<Option<Vec<u8>>, ArchiveError> {
        let place = Self::place(execution);
        let late = format!("{place}.late");
        let at = if self.record(&late)?.is_some() {
            late
        } else {
            place
        };
        match self.record(&at)? {
            Some(record) => self.checked(&at, &record),
            None => Ok(None),
        }
    }

    /// The results of a record, if they are what the record says.
    fn checked(&self, place: &str, record: &Record) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(expected) = &record.results else {
            return Ok(None);
        };
        let path = self.root.join(format!("{place}.jsonl"));
        let damaged = |what: String| ArchiveError::Damaged {
            path: path.clone(),
            what,
        };
        let bytes = read(&path)?.ok_or_else(|| damaged("is gone".into()))?;
        let found = Checksum::of(&bytes);
        if found != *expected {
            return Err(damaged(format!(
                "has {} bytes and SHA-256 {}, the record says {} and {}",
                found.bytes, found.sha256, expected.bytes, expected.sha256
            )));
        }
        Ok(Some(bytes))
    }

    /// Writes a file that may be there, but then with these bytes.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<Put, ArchiveError> {
        let path = self.root.join(name);
        if let Some(before) = read(&path)? {
            if before == bytes {
                return Ok(Put::AlreadyThere);
            }
            let sum = Checksum::of(bytes).sha256;
            let aside = path.with_added_extension(format!("conflict-{}", &sum[..12]));
            write_durably(&aside, bytes)?;
            return Ok(Put::Conflict(aside));
        }
        write_durably(&path, bytes)?;
        Ok(Put::Written)
    }
}

impl Record {
    fn sum(&self) -> String {
        let bare = Self {
            sha256: None,
            ..self.clone()
        };
        // Plain texts, times and numbers always have a JSON.
        hex(&serde_json::to_vec(&bare).unwrap_or_default())
    }
}

impl Checksum {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha256: hex(bytes),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, PartialEq)]
enum Put {
    Written,
    AlreadyThere,
    Conflict(PathBuf),
}

fn at(path: &Path) -> impl Fn(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io {
        path: path.clone(),
        source,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ArchiveError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A bad sector, or a directory in its place: damage of this file, not of the disk as a whole.
        Err(error) if matches!(error.raw_os_error(), Some(EIO | EISDIR)) => {
            Err(ArchiveError::Damaged {
                path: path.to_owned(),
                what: format!("cannot be read: {error}"),
            })
        }
        Err(error) => Err(at(path)(error)),
    }
}

/// The entries of a directory by name; none where it is no directory.
fn entries(path: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    let listed = match fs::read_dir(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        other => other.map_err(at(path))?,
    };
    let mut entries = listed
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(at(path))?;
    entries.sort();
    Ok(entries)
}

/// Temporary file, fsync, rename, fsync of the directory, and of its parents where it is new.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(at(path)(io::Error::other("has no directory")));
    };
    if !directory.exists() {
        fs::create_dir_all(directory).map_err(at(directory))?;
        // Scheduler, year, month, day: each may be new.
        for parent in directory.ancestors().skip(1).take(4) {
            sync(parent)?;
        }
    }
    let staging = directory.join(format!(".{}.new", name.to_string_lossy()));
    let written = fs::File::create(&staging).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(at(&staging))?;
    fs::rename(&staging, path).map_err(at(path))?;
    sync(directory)
}

fn sync(directory: &Path) -> Result<(), ArchiveError> {
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(at(directory))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::inference::execution::ResultObject;

    pub fn execution(start: &str, status: &str) -> Execution {
        let start: chrono::DateTime<chrono::Utc> = start.parse().unwrap();
        Execution {
            scheduler: "s".into(),
            model: "m".into(),
            model_version: Some(1),
            scheduled: Some(start + chrono::TimeDelta::minutes(5)),
            data_start: start,
            data_end: start + chrono::TimeDelta::minutes(5),
            status: status.into(),
            failed_reason: (status == "FAILED").then(|| "Could not find data file".into()),
            result: (status == "SUCCESS").then(|| ResultObject {
                bucket: "b".into(),
                key: "k".into(),
            }),
            input: "s3://b/in/".into(),
        }
    }

    const RESULTS: &[u8] = b"{\"timestamp\": \"2026-03-01T10:05:00.000000\", \"prediction\": 0}\n";

    #[test]
    fn a_record_is_written_once_and_other_bytes_are_kept_aside() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let one = execution("2026-03-01T10:00:00Z", "SUCCESS");
        assert_eq!(archive.keep(&one, Some(RESULTS)).unwrap(), Kept::Written);
        assert_eq!(
            archive.keep(&one, Some(RESULTS)).unwrap(),
            Kept::AlreadyThere
        );
        let Kept::Conflict(aside) = archive.keep(&one, Some(b"other\n")).unwrap() else {
            panic!("other bytes were taken");
        };
        assert_eq!(fs::read(&aside).unwrap(), b"other\n");
        assert_eq!(archive.results(&one).unwrap().as_deref(), Some(RESULTS));
        let names: Vec<_> = entries(&directory.path().join("s/2026/03/01"))
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(
            names[0] == "100000.json"
                && names[1] == "100000.jsonl"
                && names[2].starts_with("100000.jsonl.conflict-")
        );
    }

    #[test]
    fn a_window_scored_late_stands_beside_its_failure() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let failed = execution("2026-03-01T10:00:00Z", "FAILED");
        let scored = execution("2026-03-01T10:00:00Z", "SUCCESS");
        assert_eq!(archive.keep(&failed, None).unwrap(), Kept::Written);
        assert_eq!(archive.keep(&scored, Some(RESULTS)).unwrap(), Kept::Late);
        assert_eq!(
            archive.keep(&scored, Some(RESULTS)).unwrap(),
            Kept::AlreadyThere
        );
        assert_eq!(archive.results(&scored).unwrap().as_deref(), Some(RESULTS));
        assert_eq!(archive.walk().unwrap().len(), 2);
        assert_eq!(archive.files(&scored).unwrap().len(), 3);
    }

    #[test]
    fn a_crash_before_the_record_is_finished_by_repeating() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let one = execution("2026-03-01T10:00:00Z", "SUCCESS");
        let place = directory.path().join(Archive::place(&one));
        // Only the results were renamed into place, and a staging file was left.
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place.with_added_extension("jsonl"), RESULTS).unwrap();
        fs::write(place.parent().unwrap().join(".100000.json.new"), b"{").unwrap();
        assert!(archive.walk().unwrap().is_empty());
        assert_eq!(archive.keep(&one, Some(RESULTS)).unwrap(), Kept::Written);
        assert_eq!(archive.walk().unwrap().len(), 1);
    }

    #[test]
    fn damage_is_found_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        let one = execution("2026-03-01T10:00:00Z", "SUCCESS");
        archive.keep(&one, Some(RESULTS)).unwrap();
        let path = directory.path().join("s/2026/03/01/100000.jsonl");
        fs::write(&path, &RESULTS[..20]).unwrap();
        let error = archive.results(&one).unwrap_err();
        assert!(
            error.to_string().contains("100000.jsonl") && error.to_string().contains("SHA-256"),
            "{error}"
        );
        assert!(archive.walk().unwrap()[0].is_err());
        let aside = archive.set_aside(&path).unwrap().unwrap();
        assert_eq!(fs::read(&aside).unwrap(), &RESULTS[..20]);
        // Its record is whole and says what is missing.
        assert!(archive.walk().unwrap()[0].is_err());
        assert_eq!(archive.keep(&one, Some(RESULTS)).unwrap(), Kept::Written);
    }
}
