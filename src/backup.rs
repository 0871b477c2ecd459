//! A copy of a data directory, also of one that is in use: every database, every object, every file, as one consistent set.
//!
//! ```text
//!  deletion held off ─► databases, whoever refers first ─► spool ─► the store's database ─► all files ─► verified ─► backup.json
//! ```
//!
//! Guarantees: what a database of the copy refers to is in the copy, because a database is copied before what it refers to and
//! nothing is removed meanwhile. `backup.json` is written last, after every database of the copy has been opened and checked,
//! every object read and every model compared with its name: a directory without it is no backup. The data directory is not
//! changed, and who uses it waits for nothing.

mod restoring;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use crate::feed::is_of_asset;
use crate::hold::{self, Hold};
use crate::ops::lock::RESTORING;
use crate::service;
use crate::store::export::Contents;
pub use restoring::restore;

/// What says that a backup is whole, and what is in it.
pub const MANIFEST: &str = "backup.json";
/// The format of [`MANIFEST`].
const FORMAT: u32 = 1;
/// Databases, whoever refers first; others go with the first.
const LAST: [&str; 2] = ["ledger.db", STORE];
const STORE: &str = "s3/store.db";
const SPOOL: &str = "spool";
/// Directories out of which something is removed while they are used.
const HELD: [&str; 2] = ["s3", "service"];
/// A database that somebody is writing is waited for.
const BUSY: Duration = Duration::from_secs(30);

/// What a backup holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this file.
    pub format: u32,
    /// Of the lookoutd that wrote it.
    pub version: String,
    /// When it was begun, UTC.
    pub at: DateTime<Utc>,
    /// The data directory that it is of.
    pub data_dir: String,
    /// Objects of the embedded store.
    pub objects: u64,
    /// What could not be read there, and so is damaged here.
    pub damaged: Vec<String>,
    /// Every file.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Below the directory.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of what is in it.
    pub hash: String,
    /// Its permissions.
    pub mode: u32,
}

impl Manifest {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Copies `data_dir` into `target`, a directory that is empty or absent.
pub fn backup(data_dir: &Path, target: &Path, at: DateTime<Utc>) -> Result<Manifest> {
    let from = data_dir
        .canonicalize()
        .with_context(|| format!("looking for the data directory {}", data_dir.display()))?;
    make_empty(target)?;
    let to = target.canonicalize()?;
    if to.starts_with(&from) {
        bail!(
            "{} lies in the data directory: name one elsewhere, best on another disk",
            target.display()
        );
    }
    let _held = hold_all(&from)?;
    let mut seen = Seen::default();
    look(&from, Path::new(""), &mut seen)?;
    let (last, first): (Vec<_>, Vec<_>) = seen
        .databases
        .iter()
        .cloned()
        .partition(|path| LAST.iter().any(|last| path == Path::new(last)));
    let copy = Copy { from, to };
    for path in first
        .iter()
        .chain(last.iter().filter(|path| *path != Path::new(STORE)))
    {
        copy.database(path)?;
    }
    // What was shipped since is in the store, which comes after it.
    copy.spool()?;
    if last.iter().any(|path| path == Path::new(STORE)) {
        copy.database(Path::new(STORE))?;
    }
    let mut files = Seen::default();
    look(&copy.from, Path::new(""), &mut files)?;
    for path in &files.files {
        copy.file(path)?;
    }
    let mut manifest = copy.verified(at)?;
    manifest.data_dir = copy.from.display().to_string();
    let text = serde_json::to_vec_pretty(&manifest)?;
    let new = copy.to.join(".backup.json.new");
    write_synced(&new, &text)?;
    fs::rename(&new, copy.to.join(MANIFEST))?;
    File::open(&copy.to)?.sync_all()?;
    Ok(manifest)
}

/// What lies in a data directory.
#[derive(Default)]
struct Seen {
    databases: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
}

/// From where to where.
struct Copy {
    from: PathBuf,
    to: PathBuf,
}

fn hold_all(data_dir: &Path) -> Result<Vec<Hold>> {
    let mut held = Vec::new();
    for directory in HELD.map(|name| data_dir.join(name)) {
        if directory.is_dir() {
            let hold = hold::take(&directory);
            held.push(
                hold.with_context(|| format!("holding deletion off in {}", directory.display()))?,
            );
        }
    }
    Ok(held)
}

/// Everything below `at` that belongs to a backup, except the spool.
fn look(root: &Path, at: &Path, seen: &mut Seen) -> Result<()> {
    let directory = root.join(at);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        // A directory may go while it is looked at.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !at.as_os_str().is_empty() => {
            return Ok(());
        }
        Err(error) => {
            return Err(error).with_context(|| format!("reading {}", directory.display()));
        }
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = at.join(&name);
        let Ok(about) = fs::metadata(entry.path()) else {
            continue;
        };
        if left_out(at, &name) || about.file_type().is_socket() {
            continue;
        }
        if about.is_dir() {
            look(root, &path, seen)?;
        } else if name.ends_with(".db") {
            seen.databases.insert(path);
        } else if about.is_file() {
            seen.files.push(path);
        }
    }
    seen.files.sort();
    Ok(())
}

/// Locks, logs of databases, what is being made, and what is copied in its own way.
fn left_out(at: &Path, name: &str) -> bool {
    let top = at.as_os_str().is_empty();
    // Schedulers name directories of the archive, and may be called like one of these: each counts where it is made. What
    // ends behind a dot cannot be such a name.
    let making = (at.starts_with("s3") && name.starts_with("making-"))
        || (at.starts_with("service") && name.starts_with(".making-"));
    let log = [".db-wal", ".db-shm", ".db-journal"];
    making
        || name.ends_with(".new")
        || log.iter().any(|end| name.ends_with(end))
        || (name == hold::FILE && HELD.iter().any(|held| at == Path::new(held)))
        || (top && ["lock", SPOOL, "s3.old", MANIFEST, RESTORING].contains(&name))
}

impl Copy {
    fn make_parent(&self, path: &Path) -> Result<PathBuf> {
        let to = self.to.join(path);
        if let Some(parent) = to.parent() {
            make_private(parent)?;
        }
        Ok(to)
    }

    /// One snapshot of a database, through the engine: with what is in its log, and without what is not committed.
    fn database(&self, path: &Path) -> Result<()> {
        let (from, to) = (self.from.join(path), self.make_parent(path)?);
        let name = to
            .to_str()
            .with_context(|| format!("{} is no text", to.display()))?;
        let copied = || -> rusqlite::Result<()> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags(&from, flags)?;
            db.busy_timeout(BUSY)?;
            db.execute("VACUUM INTO ?1", [name])?;
            Ok(())
        };
        copied().with_context(|| format!("copying the database {}", from.display()))?;
        let about = fs::metadata(&from)?;
        fs::set_permissions(&to, about.permissions())?;
        File::open(&to)?.sync_all()?;
        Ok(())
    }

    /// Whole windows of the spool, those of each asset; one that is delivered meanwhile is in the store.
    fn spool(&self) -> Result<()> {
        self.windows(Path::new(SPOOL))
    }

    fn windows(&self, at: &Path) -> Result<()> {
        let place = self.from.join(at);
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", place.display()));
            }
        };
        for entry in entries {
            let entry = entry?;
            let path = at.join(entry.file_name());
            if is_of_asset(&entry.file_name()) && at == Path::new(SPOOL) {
                make_private(&self.to.join(&path))?;
                self.windows(&path)?;
                continue;
            }
            let whole = self.tree(&path).and_then(|()| {
                // It is renamed before its files go.
                Ok(fs::symlink_metadata(entry.path()).map(drop)?)
            });
            if let Err(error) = whole {
                let to = self.to.join(&path);
                if to.is_dir() {
                    fs::remove_dir_all(&to)?;
                } else if to.exists() {
                    fs::remove_file(&to)?;
                }
                if !vanished(&error) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn tree(&self, path: &Path) -> Result<()> {
        if !self.from.join(path).is_dir() {
            return self.take(path);
        }
        make_private(&self.to.join(path))?;
        for entry in fs::read_dir(self.from.join(path))? {
            self.tree(&path.join(entry?.file_name()))?;
        }
        Ok(())
    }

    /// A file; one that goes meanwhile is not missed before it is verified who refers to it.
    fn file(&self, path: &Path) -> Result<()> {
        match self.take(path) {
            Err(error) if vanished(&error) => {
                let _ = fs::remove_file(self.to.join(path));
                Ok(())
            }
            taken => taken,
        }
    }

    fn take(&self, path: &Path) -> Result<()> {
        let (from, to) = (self.from.join(path), self.make_parent(path)?);
        let taken = fs::copy(&from, &to).and_then(|_| File::open(&to)?.sync_all());
        taken.with_context(|| format!("copying {} to {}", from.display(), to.display()))
    }

    /// Opens, reads and compares all that was copied.
    fn verified(&self, at: DateTime<Utc>) -> Result<Manifest> {
        let mut manifest = Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at,
            data_dir: String::new(),
            objects: 0,
            damaged: Vec::new(),
            files: Vec::new(),
        };
        let mut copied = Vec::new();
        all_files(&self.to, Path::new(""), &mut copied)?;
        for path in copied
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "db"))
        {
            let to = self.to.join(path);
            let check = || -> rusqlite::Result<String> {
                let db = Connection::open_with_flags(&to, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            };
            let found = check().with_context(|| format!("opening the copy {}", to.display()))?;
            if found != "ok" {
                bail!("the copy {} is damaged: {found}", to.display());
            }
        }
        if self.to.join(STORE).exists() {
            let report = Contents::open(&self.to.join("s3"))
                .and_then(|contents| contents.verify())
                .context("reading the copy of the store")?;
            manifest.objects = report.objects;
            manifest.damaged = report.damaged;
        }
        let state = self.to.join("service");
        if state.join("state.db").exists() {
            service::store::examine(&state).context("reading the copy of the service's state")?;
            let damaged = service::store::unlike(&state)
                .context("reading the copies of models and datasets")?;
            manifest.damaged.extend(damaged);
        }
        // Reading a database may have left something beside it.
        copied.clear();
        all_files(&self.to, Path::new(""), &mut copied)?;
        for path in copied {
            let to = self.to.join(&path);
            let (hash, bytes) = hash(&to)?;
            let mode = fs::metadata(&to)?.permissions().mode() & 0o7777;
            manifest.files.push(Entry {
                path,
                bytes,
                hash,
                mode,
            });
        }
        sync_directories(&self.to)?;
        Ok(manifest)
    }
}

/// The files below a copy, without what belongs to nobody.
fn all_files(root: &Path, at: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root.join(at))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = at.join(&name);
        if entry.file_type()?.is_dir() {
            all_files(root, &path, files)?;
        } else if name.ends_with(".db-wal") || name.ends_with(".db-shm") {
            fs::remove_file(entry.path())?;
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

fn vanished(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

fn make_empty(target: &Path) -> Result<()> {
    make_private(target).with_context(|| format!("creating {}", target.display()))?;
    if fs::read_dir(target)?.next().is_some() {
        bail!(
            "{} is not empty: name a directory that is empty or absent",
            target.display()
        );
    }
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    File::open(directory)?.sync_all()
}

/// BLAKE3 of a file, and its length.
fn hash(path: &Path) -> Result<(String, u64)> {
    let read = || -> io::Result<(String, u64)> {
        let (mut file, mut hasher) = (File::open(path)?, blake3::Hasher::new());
        let (mut piece, mut bytes) = (vec![0; 256 << 10], 0);
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok((hasher.finalize().to_hex().to_string(), bytes));
            }
            hasher.update(piece.get(..read).unwrap_or_default());
            bytes += read as u64;
        }
    };
    read().with_context(|| format!("reading {}", path.display()))
}
