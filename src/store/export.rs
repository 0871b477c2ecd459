//! Looking at a store from outside: what it holds, whether it can be read, and all of it as plain files.
//!
//! Guarantees: it only reads, also beside a running process and also what is damaged; what cannot be read is named, and does
//! not keep the rest from being read. Each object is looked up in one snapshot, and no body is removed meanwhile, so that what
//! others write and delete is no damage; no snapshot lasts longer. Files of an export are made anew, below the directory that
//! was asked for and nowhere else, and are on disk and have been read again when it is done.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::bodies::{Files, Reading, Spans};
use super::conditions::no_such_key;
use super::opening::{in_one_snapshot, read_only};
use super::retention::{Prefix, Rule, look};
use super::standing::{Figures, figures};
use super::{BODIES, DATABASE, LOCK, Options, Problem, objects};
use crate::hold::{self, Hold};

/// So often an object is looked at before it is damaged.
const TRIES: u32 = 3;

/// A store that is looked at.
#[derive(Debug)]
pub struct Contents {
    db: Connection,
    files: Arc<Files>,
    _hold: Option<Hold>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Objects that could be read.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong with the others, by bucket and key.
    pub damaged: Vec<String>,
    /// Keys that cannot be the names of files, with the names they got.
    pub renamed: Vec<(String, String)>,
}

impl Contents {
    /// Looks at the store in `root`.
    pub fn open(root: &Path) -> Result<Self, Problem> {
        Self::open_with(root, &Options::default())
    }

    /// As [`Contents::open`], of a store that is opened so.
    pub fn open_with(root: &Path, options: &Options) -> Result<Self, Problem> {
        let path = root.join(DATABASE);
        if !path.is_file() {
            let text = format!("there is no store in {}", root.display());
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, text).into());
        }
        let db = match options.shared_disk {
            true => alone(&path)?,
            false => read_only(&path)?,
        };
        Ok(Self {
            db,
            files: Arc::new(Files::look(&root.join(BODIES))),
            // Where nobody uses it nobody removes anything, and where nothing may be written nothing is.
            _hold: is_used(root).then(|| hold::take(root).ok()).flatten(),
        })
    }

    /// The names of its buckets.
    pub fn buckets(&self) -> Result<Vec<String>, Problem> {
        let buckets = objects::buckets(&self.db)?;
        Ok(buckets.into_iter().map(|bucket| bucket.name).collect())
    }

    /// The keys of one.
    pub fn keys(&self, bucket: &str) -> Result<Vec<String>, Problem> {
        objects::keys(&self.db, bucket)
    }

    /// An object's verified bytes.
    pub fn read(&self, bucket: &str, key: &str) -> Result<Vec<u8>, Problem> {
        let bucket = objects::bucket(&self.db, bucket)?;
        self.reading_in(bucket, key)?.read_all()
    }

    fn reading_in(&self, bucket: i64, key: &str) -> Result<Reading, Problem> {
        let spans = in_one_snapshot(&self.db, |db| {
            let object = objects::find(db, bucket, key)?.ok_or_else(no_such_key)?;
            Spans::of(db, object.body, 0..object.size)
        })?;
        Ok(Reading::new(&self.files, spans))
    }

    /// Reads everything.
    pub fn verify(&self) -> Result<Report, Problem> {
        let mut report = Report::default();
        let check = self
            .db
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
        let found = check.unwrap_or_else(|error| error.to_string());
        if found != "ok" {
            report.damaged.push(format!("{DATABASE}: {found}"));
        }
        self.each(&mut report, |_, _, mut reading| {
            let mut bytes = 0;
            while let Some(next) = reading.read_on()? {
                bytes += next.len() as u64;
            }
            Ok(bytes)
        })?;
        Ok(report)
    }

    /// Writes every object below `target` as `BUCKET/KEY`. A key that is no path there gets another name, which is told.
    pub fn export(&self, target: &Path) -> Result<Report, Problem> {
        let mut report = Report::default();
        let (mut renamed, mut made) = (Vec::new(), BTreeSet::new());
        self.each(&mut report, |bucket, key, reading| {
            let (path, other) = place(target, bucket, key);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
                made.extend(parent.ancestors().map(Path::to_owned));
            }
            let bytes = write_out(&path, reading).inspect_err(|_| {
                // What is not whole is not there.
                let _ = fs::remove_file(&path);
            })?;
            if other {
                let name = path.strip_prefix(target).unwrap_or(&path);
                renamed.push((format!("{bucket}/{key}"), name.display().to_string()));
            }
            Ok(bytes)
        })?;
        // Those above were there.
        for directory in made.iter().filter(|made| made.starts_with(target)) {
            fs::File::open(directory)?.sync_all()?;
        }
        report.renamed = renamed;
        Ok(report)
    }

    /// What is kept by rules, and what would go now.
    pub fn due(
        &self,
        rules: &[Rule],
        now: DateTime<Utc>,
        horizon: Option<DateTime<Utc>>,
    ) -> Result<Vec<Prefix>, Problem> {
        let (prefixes, _) = look(&self.db, rules, now.timestamp_millis(), horizon)?;
        Ok(prefixes)
    }

    /// What it holds.
    pub fn figures(&self) -> Result<Figures, Problem> {
        figures(&self.db, self.files.bytes()?)
    }

    fn each(
        &self,
        report: &mut Report,
        mut work: impl FnMut(&str, &str, Reading) -> Result<u64, Problem>,
    ) -> Result<(), Problem> {
        for (id, bucket) in self.buckets_as_far(report)? {
            let (keys, damage) = objects::keys_as_far(&self.db, id);
            if let Some(damage) = damage {
                report.damaged.push(format!(
                    "{DATABASE}: keys of {bucket} are missing in the middle: {damage}"
                ));
            }
            for key in keys {
                let mut tried = 0;
                let done = loop {
                    let done = self
                        .reading_in(id, &key)
                        .and_then(|reading| work(&bucket, &key, reading));
                    tried += 1;
                    // Where deletion could not be held off, what was looked up may be gone by now.
                    if !matches!(done, Err(Problem::Damaged(_))) || tried == TRIES {
                        break done;
                    }
                };
                match done {
                    Ok(bytes) => {
                        report.objects += 1;
                        report.bytes += bytes;
                    }
                    // Deleted since it was listed.
                    Err(Problem::Refused(_)) => {}
                    Err(Problem::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                        return Err(error.into());
                    }
                    Err(problem) => report.damaged.push(format!("{bucket}/{key}: {problem}")),
                }
            }
        }
        Ok(())
    }

    /// Every bucket; where their table is damaged, those that objects are in.
    fn buckets_as_far(&self, report: &mut Report) -> Result<Vec<(i64, String)>, Problem> {
        match objects::buckets(&self.db) {
            Ok(buckets) => Ok(buckets
                .into_iter()
                .map(|bucket| (bucket.id, bucket.name))
                .collect()),
            Err(Problem::Sqlite(error)) if error.sqlite_error_code() == Some(DatabaseCorrupt) => {
                report
                    .damaged
                    .push(format!("{DATABASE}: the names of buckets: {error}"));
                let ids = objects::bucket_ids(&self.db)?;
                Ok(ids
                    .into_iter()
                    .map(|id| (id, format!("bucket-{id}")))
                    .collect())
            }
            Err(problem) => Err(problem),
        }
    }
}

/// Whether a process has the store open.
fn is_used(root: &Path) -> bool {
    let lock = fs::File::open(root.join(LOCK));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// The one connection that there may be to a database on a disk that others share.
fn alone(path: &Path) -> Result<Connection, Problem> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    db.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY;")?;
    let tried = db.query_row("PRAGMA user_version", [], |_| Ok(()));
    tried.map_err(|error| match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => std::io::Error::other(
            "lookoutd runs, and on a disk that others share (store.shared_disk) it has the database for itself: stop it first",
        )
        .into(),
        _ => Problem::from(error),
    })?;
    Ok(db)
}

/// Writes one object's file, and reads it again.
fn write_out(path: &Path, mut reading: Reading) -> Result<u64, Problem> {
    let mut file = fs::File::create_new(path)?;
    let (mut written, mut bytes) = (blake3::Hasher::new(), 0);
    while let Some(next) = reading.read_on()? {
        std::io::Write::write_all(&mut file, &next)?;
        written.update(&next);
        bytes += next.len() as u64;
    }
    file.sync_all()?;
    drop(file);
    let mut found = blake3::Hasher::new();
    found.update_reader(fs::File::open(path)?)?;
    if found.finalize() != written.finalize() {
        let text = format!("{} does not hold what was written", path.display());
        return Err(std::io::Error::other(text).into());
    }
    Ok(bytes)
}

/// Where an object's file goes, and whether its name is another than its key.
fn place(target: &Path, bucket: &str, key: &str) -> (PathBuf, bool) {
    let plain = key
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
        && !key.contains('\0');
    let path = target.join(bucket).join(key);
    // A key that is also the directory of others cannot be both.
    if plain
        && !path.exists()
        && path
            .ancestors()
            .skip(1)
            .take_while(|above| *above != target)
            .all(|above| !above.is_file())
    {
        return (path, false);
    }
    let name = blake3::hash(key.as_bytes()).to_hex()[..32].to_owned();
    (target.join("_other-names").join(bucket).join(name), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn what_is_written_over_while_it_is_looked_at_is_no_damage_and_goes_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &Options::default()).unwrap();
        store.create_bucket("b").unwrap();
        store.put_blocking("b", "large", &[1; 300_000]).unwrap();
        let contents = Contents::open(directory.path()).unwrap();
        let bucket = objects::bucket(&contents.db, "b").unwrap();
        let reading = contents.reading_in(bucket, "large").unwrap();
        store.put_blocking("b", "large", &[2; 300_000]).unwrap();
        // What went with a commit is removed before the next is answered.
        store.put_blocking("b", "other", b"x").unwrap();
        assert!(reading.read_all().unwrap() == [1; 300_000]);
        assert_eq!(contents.verify().unwrap().damaged, Vec::<String>::new());
        drop(contents);
        for _ in 0..2 {
            store.put_blocking("b", "other", b"y").unwrap();
        }
        let bodies = fs::read_dir(directory.path().join(BODIES)).unwrap();
        assert_eq!(bodies.count(), 1);
    }

    #[test]
    fn where_the_names_of_buckets_are_lost_their_objects_are_exported_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("s3");
        let store = Store::open(&root, &Options::default()).unwrap();
        for bucket in ["a", "b"] {
            store.create_bucket(bucket).unwrap();
            store.put_blocking(bucket, "k", bucket.as_bytes()).unwrap();
        }
        let page: i64 = store
            .read_blocking(|db| {
                let find = "SELECT rootpage FROM sqlite_schema WHERE name = 'buckets'";
                Ok(db.query_row(find, [], |row| row.get(0))?)
            })
            .unwrap();
        drop(store);
        let database = root.join(DATABASE);
        let mut harmed = fs::read(&database).unwrap();
        let at = (page as usize - 1) * 4096;
        harmed[at..at + 64].fill(0xa5);
        fs::write(&database, &harmed).unwrap();
        let target = directory.path().join("out");
        let report = Contents::open(&root).unwrap().export(&target).unwrap();
        assert_eq!(report.objects, 2);
        assert!(report.damaged[0].contains("the names of buckets"));
        assert_eq!(fs::read(target.join("bucket-2/k")).unwrap(), b"b");
    }
}
