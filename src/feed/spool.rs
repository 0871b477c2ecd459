//! The spool: the durable directory of input files awaiting upload. The directory is the queue.
//!
//! ```text
//! <data dir>/spool/20260101T000500Z-PT5M/     one sealed window; names sort oldest first
//!     subsystem-01_20260101000500.csv         one input file per component that had rows
//!     manifest.json                           keys, lengths, SHA-256, rows; the last line is its own SHA-256
//! <data dir>/spool/.cut-...                   being written; swept at start
//! <data dir>/quarantine/<same name>           set aside: another file is at a key, or the entry is damaged
//! <data dir>/spool/asset-<name>/              the same of an asset with a name; quarantine likewise
//! ```
//!
//! A window's files appear together, by one rename after everything is synced. An entry leaves only through
//! [`Spool::remove`], after the store acknowledged every file and the ledger says so. What is read is verified against
//! the manifest. It keeps nothing in memory: its cost does not grow with the backlog.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::disk::{Disk, Room, STAGING, seal_directory};
use crate::signal::{Cadence, Window};

const MANIFEST: &str = "manifest.json";
/// The directories of assets with names begin with this, which no entry does.
const OF_ASSET: &str = "asset-";

/// Whether an entry of the spool's directory holds the windows of an asset with a name.
pub fn is_of_asset(entry: &OsStr) -> bool {
    entry.to_string_lossy().starts_with(OF_ASSET)
}

/// One input file of a sealed window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// The component it belongs to.
    pub component: String,
    /// File name inside the entry, which is also the last part of the key.
    pub name: String,
    /// Key in the bucket.
    pub key: String,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes, lower-case hex.
    pub sha256: String,
    /// Data rows.
    pub rows: u64,
}

/// What a sealed window holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version of this file.
    pub version: u32,
    /// Start of the window, UTC.
    pub start: DateTime<Utc>,
    /// Its cadence.
    pub cadence: Cadence,
    /// When it was cut.
    pub cut_at: DateTime<Utc>,
    /// Components of the tag list, with or without rows.
    pub components: u32,
    /// What was found beside the files.
    #[serde(flatten)]
    pub found: Found,
    /// The files.
    pub files: Vec<InputFile>,
}

/// What was found of a window's samples when it was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Components without a value, in the tag list's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blank: Vec<String>,
    /// Values that are infinite, and written as missing.
    #[serde(skip_serializing_if = "is_zero")]
    pub infinite: u64,
    /// Rows that were dropped because a later one has the same time.
    #[serde(skip_serializing_if = "is_zero")]
    pub doubled: u64,
    /// Where in the journal of a live source they were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<u64>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Manifest {
    /// Data rows of the window: those of the component with most.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).max().unwrap_or(0)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Why an entry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The entry is not what was sealed: the disk lost or changed bytes.
    #[error("spool entry {} is damaged: {what}", path.display())]
    Damaged {
        /// The entry.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

impl SpoolError {
    /// The file system is full or the quota is reached.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// The spool of one data directory. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    quarantine: PathBuf,
}

impl Spool {
    /// Opens the spool of `data_dir`, creating its directories and sweeping what was being written at a crash.
    pub fn open(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Self, SpoolError> {
        let spool = Self::attach(disk, data_dir);
        for directory in [&spool.directory, &spool.quarantine] {
            spool.io(directory, spool.disk.create_dir(directory))?;
        }
        // A directory whose name is lost takes with it what was made durable inside.
        spool.io(data_dir, spool.disk.sync_dir(data_dir))?;
        spool.sweep()?;
        Ok(spool)
    }

    /// The part of the asset of this name, as it is: without a name the spool itself.
    pub fn of(&self, asset: &str) -> Self {
        if asset.is_empty() {
            return self.clone();
        }
        let name = format!("{OF_ASSET}{asset}");
        Self {
            disk: self.disk.clone(),
            directory: self.directory.join(&name),
            quarantine: self.quarantine.join(&name),
        }
    }

    /// As [`Spool::of`], creating its directories and sweeping what was being written at a crash.
    pub fn open_of(&self, asset: &str) -> Result<Self, SpoolError> {
        let spool = self.of(asset);
        if !asset.is_empty() {
            for (directory, above) in [
                (&spool.directory, &self.directory),
                (&spool.quarantine, &self.quarantine),
            ] {
                self.io(directory, self.disk.create_dir(directory))?;
                self.io(above, self.disk.sync_dir(above))?;
            }
        }
        spool.sweep()?;
        Ok(spool)
    }

    /// The assets with names that have a part of it.
    pub fn assets(&self) -> Result<Vec<String>, SpoolError> {
        let entries = self.io(&self.directory, self.disk.list(&self.directory))?;
        Ok(entries
            .iter()
            .filter_map(|path| Some(file_name(path).strip_prefix(OF_ASSET)?.to_owned()))
            .collect())
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn sweep(&self) -> Result<(), SpoolError> {
        for path in self.io(&self.directory, self.disk.list(&self.directory))? {
            if file_name(&path).starts_with(STAGING) {
                self.io(&path, self.disk.remove_dir(&path))?;
            }
        }
        Ok(())
    }

    /// The spool of `data_dir` as it is, beside a running daemon; creates and sweeps nothing.
    pub fn attach(disk: Arc<dyn Disk>, data_dir: &Path) -> Self {
        Self {
            disk,
            directory: data_dir.join("spool"),
            quarantine: data_dir.join("quarantine"),
        }
    }

    /// Seals a window: durable when it returns. `files` are (component, name, key, rows, bytes).
    pub fn seal(
        &self,
        window: &Window,
        components: usize,
        found: Found,
        files: Vec<(InputFile, Vec<u8>)>,
        now: DateTime<Utc>,
    ) -> Result<Manifest, SpoolError> {
        let target = self.directory.join(entry_name(window));
        let mut contents = Vec::with_capacity(files.len() + 1);
        let mut listed = Vec::with_capacity(files.len());
        for (mut file, bytes) in files {
            file.bytes = bytes.len() as u64;
            file.sha256 = hex(&Sha256::digest(&bytes));
            contents.push((file.name.clone(), bytes));
            listed.push(file);
        }
        let manifest = Manifest {
            version: 1,
            start: window.start(),
            cadence: window.cadence(),
            cut_at: now,
            components: components as u32,
            found,
            files: listed,
        };
        contents.push((MANIFEST.to_owned(), encode_manifest(&manifest)));
        // A damaged or half-known entry of the same window would make the rename fail.
        self.io(&target, self.disk.remove_dir(&target))?;
        self.io(&target, seal_directory(&*self.disk, &target, &contents))?;
        Ok(manifest)
    }

    /// The sealed windows, oldest first. Reads names only.
    pub fn windows(&self) -> Result<Vec<Window>, SpoolError> {
        let entries = self.io(&self.directory, self.disk.list(&self.directory))?;
        Ok(entries
            .iter()
            .filter_map(|path| parse_entry_name(&file_name(path)))
            .collect())
    }

    /// The manifest of a window that is sealed here, if all of it is as it was sealed.
    pub fn sealed(&self, window: &Window) -> Result<Option<Manifest>, SpoolError> {
        let whole = self.manifest(window).and_then(|manifest| {
            for file in &manifest.files {
                self.read(window, file)?;
            }
            Ok(manifest)
        });
        match whole {
            Ok(manifest) => Ok(Some(manifest)),
            Err(SpoolError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest of a sealed window.
    pub fn manifest(&self, window: &Window) -> Result<Manifest, SpoolError> {
        let entry = self.directory.join(entry_name(window));
        let path = entry.join(MANIFEST);
        match self.disk.read(&path) {
            Ok(bytes) => decode_manifest(&bytes).ok_or_else(|| SpoolError::Damaged {
                path: entry,
                what: "manifest.json does not match its checksum".into(),
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(SpoolError::Damaged {
                path: entry,
                what: "manifest.json is missing".into(),
            }),
            Err(source) => Err(SpoolError::Io { path, source }),
        }
    }

    /// The bytes of one input file, verified.
    pub fn read(&self, window: &Window, file: &InputFile) -> Result<Vec<u8>, SpoolError> {
        let entry = self.directory.join(entry_name(window));
        let path = entry.join(&file.name);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(SpoolError::Damaged {
                    path: entry,
                    what: format!("{} is missing", file.name),
                });
            }
            Err(source) => return Err(SpoolError::Io { path, source }),
        };
        if bytes.len() as u64 != file.bytes || hex(&Sha256::digest(&bytes)) != file.sha256 {
            return Err(SpoolError::Damaged {
                path: entry,
                what: format!("{} does not match its SHA-256", file.name),
            });
        }
        Ok(bytes)
    }

    /// Removes a window that the store has and the ledger says so.
    pub fn remove(&self, window: &Window) -> Result<(), SpoolError> {
        let entry = self.directory.join(entry_name(window));
        // Renamed first, so that a crash leaves either the whole entry or something the next start sweeps.
        let trash = self
            .directory
            .join(format!("{STAGING}{}", entry_name(window)));
        self.io(&trash, self.disk.remove_dir(&trash))?;
        match self.disk.rename(&entry, &trash) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => self.io(&entry, other)?,
        }
        self.io(&trash, self.disk.remove_dir(&trash))
    }

    /// Sets a window aside for the operator; `None` where it is not there. Nothing is deleted.
    pub fn quarantine(&self, window: &Window) -> Result<Option<PathBuf>, SpoolError> {
        let from = self.directory.join(entry_name(window));
        let mut to = self.quarantine.join(entry_name(window));
        let mut copy = 1;
        while self.disk.list(&to).is_ok() {
            to = self
                .quarantine
                .join(format!("{}.{copy}", entry_name(window)));
            copy += 1;
        }
        match self.disk.rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => self.io(&from, other)?,
        }
        self.io(&self.quarantine, self.disk.sync_dir(&self.quarantine))?;
        self.io(&self.directory, self.disk.sync_dir(&self.directory))?;
        Ok(Some(to))
    }

    /// Puts a quarantined window back into the queue; false where none is set aside.
    pub fn release(&self, window: &Window) -> Result<bool, SpoolError> {
        let from = self.quarantine.join(entry_name(window));
        let to = self.directory.join(entry_name(window));
        match self.disk.rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => self.io(&from, other)?,
        }
        self.io(&self.quarantine, self.disk.sync_dir(&self.quarantine))?;
        self.io(&self.directory, self.disk.sync_dir(&self.directory))?;
        Ok(true)
    }

    /// Bytes free on the spool's file system.
    pub fn free(&self) -> Result<u64, SpoolError> {
        self.io(&self.directory, self.disk.free(&self.directory))
    }

    /// What is free on the spool's file system, and how it is given out.
    pub fn room(&self) -> Result<Room, SpoolError> {
        self.io(&self.directory, self.disk.room(&self.directory))
    }

    fn io<T>(&self, path: &Path, result: io::Result<T>) -> Result<T, SpoolError> {
        result.map_err(|source| SpoolError::Io {
            path: path.to_owned(),
            source,
        })
    }
}

fn entry_name(window: &Window) -> String {
    format!(
        "{}-{}",
        window.start().format("%Y%m%dT%H%M%SZ"),
        window.cadence()
    )
}

fn parse_entry_name(name: &str) -> Option<Window> {
    let (stamp, cadence) = name.split_once('-')?;
    let start = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ")
        .ok()?
        .and_utc();
    Window::new(start, cadence.parse().ok()?).ok()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    // Serialising plain strings and numbers to memory cannot fail.
    let mut bytes = serde_json::to_vec(manifest).unwrap_or_default();
    let sum = hex(&Sha256::digest(&bytes));
    bytes.push(b'\n');
    bytes.extend_from_slice(sum.as_bytes());
    bytes.push(b'\n');
    bytes
}

fn decode_manifest(bytes: &[u8]) -> Option<Manifest> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    let (json, sum) = (lines.next()?, lines.next()?);
    if hex(&Sha256::digest(json.as_bytes())) != sum {
        return None;
    }
    let manifest: Manifest = serde_json::from_str(json).ok()?;
    (manifest.version == 1).then_some(manifest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
