//! One daemon per data directory: an advisory lock that the kernel releases when the process ends, however it ends. The
//! file says who holds it, and what its holder wants other processes to know.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often, and how long apart, a held lock is tried again.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(20);

/// What a restore that is not finished has in a data directory.
pub const RESTORING: &str = ".restoring";

/// A held lock on a data directory.
#[derive(Debug)]
pub struct DataDirLock {
    file: File,
}

/// Who holds a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// What it wants to be known, see [`DataDirLock::say`].
    pub note: String,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another lookoutd (process {pid}) uses {}: stop it, or choose another data_dir", path.display())]
    Held {
        /// The data directory.
        path: PathBuf,
        /// Its process id, as far as known.
        pid: String,
    },
    /// It cannot be created or written.
    #[error("data directory {} cannot be used: {source}; create it and make it writable for this user, or set data_dir", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Creates a directory that its owner alone may enter; one that is there stays as it is.
pub fn create_private(directory: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// A new directory under the system's temporary one, for its owner alone. What is there already is never taken: anybody may
/// have made it.
pub fn create_scratch(name: &str) -> std::io::Result<PathBuf> {
    let mut tried = 0;
    loop {
        let unlike = uuid::Uuid::new_v4().simple().to_string();
        let made = std::env::temp_dir().join(format!("{name}-{}", &unlike[..12]));
        match std::fs::DirBuilder::new().mode(0o700).create(&made) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && tried < LOOKS => {
                tried += 1;
            }
            created => return created.map(|()| made),
        }
    }
}

/// Creates the data directory if need be, for its owner alone, and locks it.
pub fn lock(data_dir: &Path) -> Result<DataDirLock, LockError> {
    if data_dir.join(RESTORING).exists() {
        let text = "a backup was being restored and that was cut short: empty the directory and restore again";
        return Err(LockError::Unusable {
            path: data_dir.to_owned(),
            source: std::io::Error::other(text),
        });
    }
    lock_to_restore(data_dir)
}

/// As [`lock`], also where a restore was cut short.
pub fn lock_to_restore(data_dir: &Path) -> Result<DataDirLock, LockError> {
    let unusable = |source| LockError::Unusable {
        path: data_dir.to_owned(),
        source,
    };
    create_private(data_dir).map_err(unusable)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(data_dir.join("lock"))
        .map_err(unusable)?;
    // A look at the holder takes the lock for an instant, so one refusal is not the last word.
    let mut tried = file.try_lock();
    for _ in 0..LOOKS {
        if !matches!(tried, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOOK);
        tried = file.try_lock();
    }
    match tried {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // What cannot be read names nobody.
            let _ = file.read_to_string(&mut text);
            let pid = text.lines().next().map(str::trim).unwrap_or_default();
            return Err(LockError::Held {
                path: data_dir.to_owned(),
                pid: if pid.is_empty() { "unknown" } else { pid }.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    let mut lock = DataDirLock { file };
    lock.say("").map_err(unusable)?;
    Ok(lock)
}

impl DataDirLock {
    /// Lets other processes know one line, in place of the one before.
    pub fn say(&mut self, note: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        // One write: who reads meanwhile sees all of it, or that it is not there yet.
        self.file
            .write_all(format!("{}\n{note}\n", std::process::id()).as_bytes())
    }
}

/// The process that holds the data directory, if one does.
pub fn holder(data_dir: &Path) -> Option<u32> {
    held_by(data_dir).map(|holder| holder.pid)
}

/// Who holds the data directory, if anybody does.
pub fn held_by(data_dir: &Path) -> Option<Holder> {
    // Reading is enough, so that operators who may not write can look too.
    let mut file = File::open(data_dir.join("lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            let mut lines = text.lines();
            Some(Holder {
                pid: lines.next()?.trim().parse().ok()?,
                note: lines.next().unwrap_or_default().to_owned(),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_and_told_who_runs() {
        let directory = tempfile::tempdir().unwrap();
        let mut held = lock(directory.path()).unwrap();
        let error = lock(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert_eq!(holder(directory.path()), Some(std::process::id()));
        for note in ["a long line to be known", "short"] {
            held.say(note).unwrap();
            let known = held_by(directory.path()).unwrap();
            assert_eq!((known.pid, known.note.as_str()), (std::process::id(), note));
        }
        let error = lock(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(process {})", std::process::id())),
            "{error}"
        );
        drop(held);
        assert_eq!(holder(directory.path()), None);
        lock(directory.path()).unwrap();
    }
}
