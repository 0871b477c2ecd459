//! Which databases a clean stop left, so that the next start need not look at every page and row of them: that takes longer the
//! more there was.
//!
//! Guarantees: a note holds for the very file that was left, and for one start; where it does not, everything is looked at. Only
//! a database that was found whole, and did not turn out to be damaged since, gets one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::ErrorCode;

/// Notes a clean stop when it is dropped, which must be after the connection has been closed.
#[derive(Debug)]
pub struct CleanStop {
    database: PathBuf,
    spoiled: AtomicBool,
}

impl CleanStop {
    /// Takes the note of the last stop away. True if the database is as that stop left it, so that nothing can be wrong with
    /// it that was not wrong then. To be asked before it is opened.
    pub fn was(database: &Path) -> bool {
        let note = std::fs::read_to_string(note_of(database)).ok();
        let clean = note.is_some() && note == left(database);
        let _ = std::fs::remove_file(note_of(database));
        clean
    }

    /// For a database that is open and was found whole, or needs not be looked at.
    pub fn of(database: &Path) -> CleanStop {
        CleanStop {
            database: database.to_owned(),
            spoiled: AtomicBool::new(false),
        }
    }

    /// The next start looks at everything.
    pub fn distrust(&self) {
        self.spoiled.store(true, Ordering::SeqCst);
    }

    /// What SQLite said while the database was in use: where it is damaged, the next start is to find it.
    pub fn heard(&self, error: &rusqlite::Error) {
        let damage = [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase];
        if error
            .sqlite_error_code()
            .is_some_and(|code| damage.contains(&code))
        {
            self.distrust();
        }
    }
}

impl Drop for CleanStop {
    fn drop(&mut self) {
        // Without a note the next start looks at everything.
        if self.spoiled.load(Ordering::SeqCst) {
            return;
        }
        if let Some(left) = left(&self.database) {
            let _ = std::fs::write(note_of(&self.database), left);
        }
    }
}

/// Beside the database: `state.clean` of `state.db`.
fn note_of(database: &Path) -> PathBuf {
    database.with_extension("clean")
}

/// Which database file there is; none while a log beside it has what the file has not.
fn left(database: &Path) -> Option<String> {
    let log = std::fs::metadata(database.with_extension("db-wal"));
    if log.is_ok_and(|log| log.len() > 0) {
        return None;
    }
    let file = std::fs::metadata(database).ok()?;
    Some(format!(
        "{} bytes, changed {}.{:09}, inode {}\n",
        file.size(),
        file.ctime(),
        file.ctime_nsec(),
        file.ino()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_turned_out_to_be_damaged_is_looked_at_by_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let told = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        for (code, clean) in [
            (rusqlite::ffi::SQLITE_BUSY, true),
            (rusqlite::ffi::SQLITE_FULL, true),
            (rusqlite::ffi::SQLITE_CORRUPT, false),
            (rusqlite::ffi::SQLITE_NOTADB, false),
        ] {
            std::fs::write(&path, "pages").unwrap();
            let stop = CleanStop::of(&path);
            stop.heard(&told(code));
            drop(stop);
            assert_eq!(CleanStop::was(&path), clean, "{code}");
            assert!(!CleanStop::was(&path), "a note holds for one start");
        }
    }
}
