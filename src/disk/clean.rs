//! Which databases a clean stop left, so that the next start need not look at every page and row of them: that takes longer the
//! more there was.
//!
//! Guarantees: a note holds for the very file that was left, and for one start; where it does not, everything is looked at. Only
//! a database that was found whole gets one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Notes a clean stop when it is dropped, which must be after the connection has been closed.
#[derive(Debug)]
pub struct CleanStop {
    database: PathBuf,
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
        }
    }
}

impl Drop for CleanStop {
    fn drop(&mut self) {
        // Without a note the next start looks at everything.
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
