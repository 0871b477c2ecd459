//! Opening the store: what must hold before it is served, and the connections.
//!
//! Guarantees: a database that is gone while bodies lie beside it, that is damaged, that was copied without its log, that
//! another process has, or that lies where SQLite's locks do not hold is refused before anything is changed, and the refusal
//! says how to go on. The pragmas that durability stands on are read back. The log keeps room on the disk, so that what only
//! takes away can be written when nothing is free.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::bodies::Files;
use super::{BODIES, DATABASE, LOCK, Options, Problem, takeover};

/// The schema's number.
const VERSION: i64 = 1;
/// SQLite's smallest page; over what is shorter it begins an empty database.
const LEAST: u64 = 512;
/// A database up to this size is looked through at the start; of a larger one all but the bodies in their rows, which have
/// checksums of their own: the start takes no longer however much lies there.
const LOOKED_THROUGH: u64 = 32 << 20;
/// Every table but that of the bodies.
const TABLES: [&str; 7] = [
    "meta",
    "buckets",
    "objects",
    "pieces",
    "uploads",
    "parts",
    "completed",
];
/// Stands in the table `meta` while a process writes: what it wrote last is in the log alone.
const IN_USE: &str = "in-use";
const UNMARK: &str = "DELETE FROM meta WHERE name = ?1";
/// What the log has of the disk at all times.
const RESERVE: u64 = 8 << 20;
/// So long a lock of somebody else is waited for; then the client is told to come again.
const BUSY: Duration = Duration::from_secs(2);
/// What every file system has that a process serves.
const FUSE: u32 = 0x6573_5546;
/// Connections that are kept for reading.
const KEPT: usize = 8;
/// So long a store that is being closed is waited for.
const CLOSING: (u32, Duration) = (250, Duration::from_millis(20));

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There was one.
    #[error(
        "the store's database {path} is gone, but what belongs to it is there ({bodies} bodies in {beside}): put the database \
         back from a backup of its directory; or, if the objects are not needed, move {root} away and start with an empty store"
    )]
    Lost {
        /// Where it was.
        path: PathBuf,
        /// The bodies' directory.
        beside: PathBuf,
        /// How many.
        bodies: usize,
        /// The store's directory.
        root: PathBuf,
    },
    /// It is not what was written.
    #[error(
        "the store's database {path} is damaged ({what}): `lookoutd store verify` shows what can still be read, \
         `lookoutd store export DIR` saves it; then restore a backup, or move {path} and what begins with its name away and \
         start with an empty store"
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite found.
        what: String,
    },
    /// A copy that was made while it was in use, without what belongs to it.
    #[error(
        "the store's database {path} was copied while it was in use, and its log {log} is not beside it: what was written last \
         is missing. Put the log of the same copy beside it, or restore a backup (`lookoutd backup` makes them whole); or take \
         it without its last writes: `lookoutd store accept`"
    )]
    WithoutLog {
        /// The database.
        path: PathBuf,
        /// Where its log would be.
        log: PathBuf,
    },
    /// Somebody else has it.
    #[error("another process uses the store in {path}: stop it, or choose another data_dir")]
    Held {
        /// The store's directory.
        path: PathBuf,
    },
    /// Where locks do not hold.
    #[error(
        "the store in {path} would lie on {kind}, where the locks of a database do not hold: set data_dir to a disk of this \
         machine; or, where no other machine ever uses it, store.shared_disk = true, which is slower"
    )]
    SharedDisk {
        /// The store's directory.
        path: PathBuf,
        /// The kind of file system.
        kind: &'static str,
    },
    /// Written by a newer build.
    #[error(
        "the store's database {path} has version {found}, this lookoutd knows {known}: install the version that wrote it, or \
         a newer one"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The disk refused.
    #[error(
        "the store in {path} cannot be used: {source}; make the disk work for this user, or set data_dir"
    )]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error("the store's database {path}: {source}")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// What an older version left cannot be read.
    #[error(
        "the objects of an older version in {path} cannot be taken over: {what}; nothing was removed"
    )]
    TakeOver {
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// An open database and what belongs to it.
pub(super) struct Opened {
    pub connection: Owned,
    pub files: Arc<Files>,
    pub lock: File,
}

/// The one connection that writes. Until it is dropped the database says that it is in use.
pub(super) struct Owned(Connection);

impl std::ops::Deref for Owned {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.0.is_autocommit() {
            let _ = self.0.execute_batch("ROLLBACK");
        }
        let forget = self.0.execute("DELETE FROM meta WHERE name = ?1", [IN_USE]);
        if forget.is_ok() {
            let put = "PRAGMA wal_checkpoint(TRUNCATE)";
            let _ = self.0.query_row(put, [], |_| Ok(()));
        } else {
            // Then the log stays, and is there at the next start.
            let _ = self
                .0
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }
}

/// Connections for reading.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    kept: Mutex<Vec<Connection>>,
    by_the_writer: bool,
}

/// Opens or begins the store in `root`.
pub(super) fn open(root: &Path, options: &Options) -> Result<Opened, OpenError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    // Before anything is moved or made.
    refuse_shared(root, options)?;
    takeover::set_aside(root)?;
    std::fs::create_dir_all(root).map_err(io(root))?;
    let lock = lock(root)?;
    let path = root.join(DATABASE);
    let beside = root.join(BODIES);
    if !std::fs::metadata(&path).is_ok_and(|file| file.len() >= LEAST) {
        // The directory of the bodies is made when the database is on disk: wherever it is, there was one.
        if beside.exists() || has_log(&path) {
            let bodies = std::fs::read_dir(&beside).map_or(0, |entries| entries.flatten().count());
            return Err(OpenError::Lost {
                path,
                beside,
                bodies,
                root: root.to_owned(),
            });
        }
    }
    let sync = |directory: &Path| {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(io(directory))
    };
    let connection = connect(&path, options.shared_disk)?;
    sync(root)?;
    if let Some(above) = root.parent().filter(|above| !above.as_os_str().is_empty()) {
        sync(above)?;
    }
    let files = Files::open(&beside, options).map_err(io(&beside))?;
    sync(root)?;
    let files = Arc::new(files);
    takeover::take_over(root, &connection, &files, &options.clock)?;
    files
        .sweep(&connection)
        .map_err(|problem| of_problem(&path, problem))?;
    Ok(Opened {
        connection,
        files,
        lock,
    })
}

/// The log of a database.
fn log_of(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

fn has_log(path: &Path) -> bool {
    std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0)
}

/// Whether the file is one that has a log, by its header; a copy that SQLite made, as `VACUUM INTO` and `.backup` do, has none.
fn is_logged(path: &Path) -> bool {
    use std::os::unix::fs::FileExt;
    let mut versions = [0; 2];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut versions, 18));
    read.is_ok() && versions == [2, 2]
}

/// Whether the file is one that has a log, and that log is not there.
fn lacks_log(path: &Path) -> bool {
    is_logged(path) && !has_log(path)
}

/// The one connection that writes.
fn connect(path: &Path, shared_disk: bool) -> Result<Owned, OpenError> {
    let sqlite = |source| of_sqlite(path, source);
    let (logged, lacks_log) = (is_logged(path), lacks_log(path));
    let mut db = Connection::open(path).map_err(sqlite)?;
    // Whatever is refused below stays as it is, its log beside it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(sqlite)?;
    db.busy_timeout(BUSY).map_err(sqlite)?;
    if shared_disk {
        db.execute_batch("PRAGMA locking_mode = EXCLUSIVE")
            .map_err(sqlite)?;
    }
    look_through(&db, path)?;
    let version: i64 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sqlite)?;
    if version > VERSION {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: version,
            known: VERSION,
        });
    }
    if lacks_log && version > 0 && in_use(&db).map_err(sqlite)? {
        return Err(OpenError::WithoutLog {
            path: path.to_owned(),
            log: log_of(path),
        });
    }
    if !logged && version > 0 {
        // A whole copy: the mark came along from where it was made, and would outlive a log that is yet to be begun.
        db.execute(UNMARK, [IN_USE]).map_err(sqlite)?;
    }
    // Before the first table: so that what is deleted can be given back to the disk piece by piece.
    db.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192;
         PRAGMA foreign_keys = OFF; PRAGMA trusted_schema = OFF;",
    )
    .map_err(sqlite)?;
    let mode: String = db
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(sqlite)?;
    db.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 16777216; PRAGMA wal_autocheckpoint = 0;",
    )
    .map_err(sqlite)?;
    let synchronous: i64 = db
        .query_row("PRAGMA synchronous", [], |row| row.get(0))
        .map_err(sqlite)?;
    if mode != "wal" || synchronous != 2 {
        return Err(OpenError::Io {
            path: path.to_owned(),
            source: std::io::Error::other(format!(
                "SQLite would not be durable here (journal {mode}, synchronous {synchronous})"
            )),
        });
    }
    if version == 0 {
        let made = db.transaction().and_then(|begun| {
            begun.execute_batch(include_str!("schema.sql"))?;
            begun.pragma_update(None, "user_version", VERSION)?;
            begun.commit()
        });
        made.map_err(sqlite)?;
    }
    db.set_prepared_statement_cache_capacity(64);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
        .map_err(sqlite)?;
    let db = Owned(db);
    mark(&db, path).map_err(sqlite)?;
    Ok(db)
}

/// What is wrong with a database, as far as a start may take the time to look.
fn look_through(db: &Connection, path: &Path) -> Result<(), OpenError> {
    let small = std::fs::metadata(path).map_or(0, |file| file.len()) <= LOOKED_THROUGH;
    let there = "SELECT 1 FROM sqlite_schema WHERE name = ?1";
    let look = |what: &str| -> rusqlite::Result<String> {
        db.query_row(&format!("PRAGMA quick_check({what})"), [], |row| row.get(0))
    };
    let found = || -> rusqlite::Result<Option<String>> {
        let mut there = db.prepare(there)?;
        for what in if small { &["1"][..] } else { &TABLES[..] } {
            if small || there.exists([what])? {
                let found = look(what)?;
                if found != "ok" {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    };
    match found().map_err(|source| of_sqlite(path, source))? {
        None => Ok(()),
        Some(what) => Err(OpenError::Damaged {
            path: path.to_owned(),
            what,
        }),
    }
}

fn in_use(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare("SELECT 1 FROM meta WHERE name = ?1")?
        .exists([IN_USE])
}

/// Says in the file itself that its log belongs to it, and gives the log its room.
fn mark(db: &Connection, path: &Path) -> rusqlite::Result<()> {
    let mark = "INSERT OR REPLACE INTO meta (name, value) VALUES (?1, '')";
    db.execute(mark, [IN_USE])?;
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    // Not every file system can; then a full one refuses deletions as well.
    if let Ok(log) = OpenOptions::new().write(true).open(log_of(path)) {
        let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(&log, keep, 0, RESERVE);
    }
    Ok(())
}

/// Takes the database in `root` as it is although its log is missing. False if nothing is missing.
pub fn accept(root: &Path) -> Result<bool, OpenError> {
    let path = root.join(DATABASE);
    let _lock = lock(root)?;
    let forget = || -> rusqlite::Result<bool> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let db = Connection::open_with_flags(&path, flags)?;
        db.busy_timeout(BUSY)?;
        let gone = db.execute(UNMARK, [IN_USE])?;
        Ok(gone > 0)
    };
    if !lacks_log(&path) {
        return Ok(false);
    }
    forget().map_err(|source| of_sqlite(&path, source))
}

/// A connection that only reads, also of a store that is damaged or that somebody else has open.
pub fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY)?;
    db.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -4096;")?;
    Ok(db)
}

/// Reads that see one state of the database; inside a transaction they do anyway.
pub(super) fn in_one_snapshot<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Problem>,
) -> Result<T, Problem> {
    if !db.is_autocommit() {
        return work(db);
    }
    let snapshot = db.unchecked_transaction()?;
    let done = work(&snapshot)?;
    snapshot.finish()?;
    Ok(done)
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join(LOCK);
    let io = |source| OpenError::Io {
        path: path.clone(),
        source,
    };
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false);
    let file = file.open(&path).map_err(io)?;
    for _ in 0..CLOSING.0 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(CLOSING.1),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
    Err(OpenError::Held {
        path: root.to_owned(),
    })
}

/// Refuses a place where the locks of a database do not hold, unless it is wanted; what is not there yet will lie where its
/// parent does.
pub fn refuse_shared(root: &Path, options: &Options) -> Result<(), OpenError> {
    let there = root.ancestors().find(|path| path.exists());
    match there.and_then(options.kind_of) {
        Some(kind) if !options.shared_disk => Err(OpenError::SharedDisk {
            path: root.to_owned(),
            kind,
        }),
        _ => Ok(()),
    }
}

/// The kind of a file system that others share, if it is one.
pub(super) fn shared_kind(path: &Path) -> Option<&'static str> {
    let number = rustix::fs::statfs(path).ok()?.f_type as u32;
    if number != FUSE {
        return kind_of_number(number);
    }
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    kind_of_fuse(&mounts, device)
}

/// All that a process of its own serves has one number; the list of what is mounted tells them apart.
fn kind_of_fuse(mounts: &str, device: (u32, u32)) -> Option<&'static str> {
    let device = format!("{}:{}", device.0, device.1);
    let kind = mounts.lines().find_map(|line| {
        // 36 35 98:0 /root /mounted/at options - TYPE source options
        let (mounted, rest) = line.split_once(" - ")?;
        let is_it = mounted.split(' ').nth(2) == Some(device.as_str());
        is_it.then(|| rest.split(' ').next()).flatten()
    });
    match kind.unwrap_or_default() {
        // On a disk of this machine, or on top of a file system of it.
        "fuseblk" => None,
        "fuse.fuse-overlayfs" | "fuse.unionfs" | "fuse.mergerfs" | "fuse.bindfs" => None,
        "fuse.encfs" | "fuse.gocryptfs" | "fuse.cryfs" => None,
        "virtiofs" => Some("a shared folder (virtiofs)"),
        "fuse.sshfs" => Some("sshfs"),
        "fuse.glusterfs" => Some("GlusterFS"),
        "fuse.s3fs" | "fuse.rclone" | "fuse.goofys" | "fuse.mount-s3" | "fuse.gcsfuse" => {
            Some("a bucket (FUSE)")
        }
        _ => Some("a file system that another process serves (FUSE)"),
    }
}

fn kind_of_number(number: u32) -> Option<&'static str> {
    match number {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("an SMB share"),
        0x0102_1997 => Some("a shared folder (9p)"),
        0x786f_4256 => Some("a shared folder (vboxsf)"),
        0xbacb_acbc => Some("a shared folder (vmhgfs)"),
        0x00c3_6400 => Some("CephFS"),
        0x5346_414f | 0x6b41_4653 => Some("AFS"),
        0x0bd0_0bd0 => Some("Lustre"),
        0x4750_4653 => Some("GPFS"),
        0x0116_1970 => Some("GFS2"),
        0x7461_636f => Some("OCFS2"),
        0x1983_0326 => Some("BeeGFS"),
        0x2003_0528 => Some("OrangeFS"),
        0x7c7c_6673 => Some("a shared folder (prl_fs)"),
        _ => None,
    }
}

impl Readers {
    pub fn new(path: PathBuf, by_the_writer: bool) -> Self {
        Self {
            path,
            kept: Mutex::default(),
            by_the_writer,
        }
    }

    /// Whether there may be no second connection.
    pub fn by_the_writer(&self) -> bool {
        self.by_the_writer
    }

    pub fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let kept = self.kept().pop();
        let db = match kept {
            Some(db) => db,
            None => read_only(&self.path)?,
        };
        let done = work(&db);
        let mut kept = self.kept();
        if kept.len() < KEPT && db.is_autocommit() {
            kept.push(db);
        }
        done
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What SQLite said, where somebody can do something about it.
pub(super) fn of_sqlite(path: &Path, source: rusqlite::Error) -> OpenError {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, NotADatabase};
    match source.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => OpenError::Damaged {
            path: path.to_owned(),
            what: source.to_string(),
        },
        Some(DatabaseBusy) => OpenError::Held {
            path: path.to_owned(),
        },
        _ => OpenError::Sqlite {
            path: path.to_owned(),
            source,
        },
    }
}

pub(super) fn of_problem(path: &Path, problem: Problem) -> OpenError {
    match problem {
        Problem::Sqlite(source) => of_sqlite(path, source),
        Problem::Io(source) => OpenError::Io {
            path: path.to_owned(),
            source,
        },
        other => OpenError::Damaged {
            path: path.to_owned(),
            what: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_others_share_are_told_by_their_kind_and_those_of_a_machine_are_not() {
        // NFS, CIFS, SMB2, 9p, VirtualBox, VMware, Lustre, GPFS, GFS2, OCFS2.
        for number in [
            0x6969,
            0xff53_4d42,
            0xfe53_4d42,
            0x0102_1997,
            0x786f_4256,
            0xbacb_acbc,
            0x0bd0_0bd0,
            0x4750_4653,
            0x0116_1970,
            0x7461_636f,
        ] {
            assert!(kind_of_number(number).is_some(), "{number:x}");
        }
        // ext4, xfs, btrfs, tmpfs, overlay.
        for number in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630] {
            assert_eq!(kind_of_number(number), None, "{number:x}");
        }
    }
    #[test]
    fn what_a_process_serves_is_told_by_what_is_mounted() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
             30 22 0:44 / /mnt/a\\040b rw shared:2 master:1 - fuse.sshfs me@there:/ rw\n\
             31 22 0:45 / /mnt/share rw - virtiofs share rw\n\
             32 22 8:17 / /mnt/stick rw - fuseblk /dev/sdb1 rw\n\
             33 22 0:47 / / rw - fuse.fuse-overlayfs fuse-overlayfs rw\n\
             34 22 0:48 / /mnt/x rw - fuse.somethingelse x rw\n";
        let of = |major, minor| kind_of_fuse(mounts, (major, minor));
        assert_eq!(of(0, 44), Some("sshfs"));
        assert_eq!(of(0, 45), Some("a shared folder (virtiofs)"));
        assert_eq!((of(8, 17), of(0, 47)), (None, None));
        let other = Some("a file system that another process serves (FUSE)");
        assert_eq!((of(0, 48), of(0, 4)), (other, other));
    }
}
