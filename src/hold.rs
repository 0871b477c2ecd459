//! Deletion held off: whoever copies a directory keeps what is in it from being removed meanwhile.
//!
//! A hold is a shared lock of the file `hold` in the directory, and ends with the process that has it, however that ends. Who
//! removes files asks before, after the rows that named them are gone: whoever then holds and looks does not see those rows.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// The lock's name.
pub const FILE: &str = "hold";

/// Nothing is removed from the directory while this is kept.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// Holds deletion off in `directory`.
pub fn take(directory: &Path) -> io::Result<Hold> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false);
    let file = file.open(directory.join(FILE))?;
    // Whoever asks has it for an instant.
    file.lock_shared()?;
    Ok(Hold { _file: file })
}

/// Whether somebody holds deletion off in `directory`.
pub fn is_held(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(FILE)) else {
        return false;
    };
    matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_any_number_until_the_last_lets_go() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_held(directory.path()));
        let first = take(directory.path()).unwrap();
        let second = take(directory.path()).unwrap();
        drop(first);
        assert!(is_held(directory.path()));
        drop(second);
        assert!(!is_held(directory.path()));
    }
}
