//! A history in a file of this machine, or of a share that it has mounted.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::follow::{Identity, Place};
use crate::source::{Progress, SourceError};

/// The file at a path.
pub struct LocalFile {
    path: PathBuf,
    name: String,
}

impl LocalFile {
    /// The file at `path`, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            name: path.display().to_string(),
        }
    }

    fn absent(&self) -> SourceError {
        SourceError::Unavailable {
            name: self.name.clone(),
            source: "no such file: check source.parquet, and whether its share is mounted".into(),
        }
    }

    /// What cannot be opened may be there later; what can never be a history is said with what to give instead.
    fn failed(&self, error: io::Error) -> SourceError {
        let remedy = match error.kind() {
            io::ErrorKind::IsADirectory => directory_remedy(&self.path),
            io::ErrorKind::PermissionDenied => {
                format!("{error}: let the user that lookoutd runs as read it")
            }
            io::ErrorKind::NotFound => return self.absent(),
            _ => {
                return SourceError::Unavailable {
                    name: self.name.clone(),
                    source: error.into(),
                };
            }
        };
        SourceError::Invalid {
            name: self.name.clone(),
            problems: vec![remedy],
        }
    }
}

impl Place for LocalFile {
    type Reader = File;

    fn name(&self) -> &str {
        &self.name
    }

    fn look(&self) -> Result<Identity, SourceError> {
        std::fs::metadata(&self.path)
            .map(|found| identity(&found))
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => self.absent(),
                _ => SourceError::Unavailable {
                    name: self.name.clone(),
                    source: error.into(),
                },
            })
    }

    fn open(&self, _: &Progress) -> Result<(File, Identity), SourceError> {
        let file = open(&self.path).map_err(|error| self.failed(error))?;
        let found = file.metadata().map_err(|error| self.failed(error))?;
        Ok((file, identity(&found)))
    }

    fn changes_at_once(&self) -> bool {
        false
    }
}

/// Opens a file to be read, and nothing else that may lie at its path.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
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
        "is a directory; a history is one Parquet file: name a single file{such_as}, or write the parts into one"
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
