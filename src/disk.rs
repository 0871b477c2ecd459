//! The durable operations that feeder and service need from a file system, and the feeder's protocol built on them.
//!
//! [`Disk`] is a trait because durability cannot be tested otherwise: the tests' disk stops at the n-th operation or
//! runs out of space. The protocol ([`seal_directory`]) is above the seam, so it is what the tests test. Everything blocks;
//! task loops call it on blocking threads.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

pub mod clean;
pub mod trend;

/// Where an operation can fail, and what must hold when it returns.
pub trait Disk: Send + Sync {
    /// Creates or truncates a file with these bytes. Not durable before [`Disk::sync`].
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Adds these bytes at a file's end, and makes it where it is absent. Not durable before [`Disk::sync`]; after an error some
    /// of them may be there.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames within one file system, atomically. Not durable before [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The bytes of a file from `offset` on, at most so many: fewer where it ends before.
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.read(path)?;
        let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        let end = start.saturating_add(length).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }
    /// How many bytes a file has.
    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(self.read(path)?.len() as u64)
    }
    /// The entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Removes a file; one that is absent is removed already.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it; one that is absent is removed already.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes free for this process on the file system of `path`.
    fn free(&self, path: &Path) -> io::Result<u64>;
    /// What is free, and how it is given out.
    fn room(&self, path: &Path) -> io::Result<Room> {
        Ok(Room {
            bytes: self.free(path)?,
            files: None,
            block: Room::USUAL_BLOCK,
        })
    }
}

/// What a file system has left for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes free.
    pub bytes: u64,
    /// Files and directories that can still be made; `None` where that has no bound of its own.
    pub files: Option<u64>,
    /// Bytes that a file is a multiple of.
    pub block: u64,
}

impl Room {
    const USUAL_BLOCK: u64 = 4096;

    /// How many windows still fit, each of so many files of so many bytes in all, when `kept` bytes are to stay free: by
    /// blocks, and by files where those are bounded. A window is a directory with its files and their list.
    pub fn windows(&self, files: u64, bytes: u64, kept: u64) -> u64 {
        const LISTED: u64 = 300;
        let block = self.block.max(1);
        let mean = bytes.checked_div(files).unwrap_or(0);
        let list = (files * LISTED).div_ceil(block);
        // Files are not all alike: half of them are above the mean.
        let each = (mean + mean / 8).div_ceil(block).max(1);
        let blocks = files * each + list + 1;
        let by_blocks = self.bytes.saturating_sub(kept) / (blocks * block);
        let by_files = self.files.map_or(u64::MAX, |left| left / (files + 2));
        by_blocks.min(by_files)
    }
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

/// Makes a set of files appear as one directory, completely or not at all: every file is written and synced in a hidden
/// directory beside `target`, which is then renamed and its parent synced.
pub fn seal_directory(
    disk: &dyn Disk,
    target: &Path,
    files: &[(String, Vec<u8>)],
) -> io::Result<()> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::other("the target has no parent directory"));
    };
    let staging = parent.join(format!("{STAGING}{}", name.to_string_lossy()));
    disk.remove_dir(&staging)?;
    disk.create_dir(&staging)?;
    for (name, bytes) in files {
        let path = staging.join(name);
        disk.write(&path, bytes)?;
        disk.sync(&path)?;
    }
    disk.sync_dir(&staging)?;
    disk.rename(&staging, target)?;
    disk.sync_dir(parent)
}

/// Prefix of a directory that is being written.
pub const STAGING: &str = ".cut-";

impl Disk for LocalDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::options().append(true).create(true).open(path)?;
        file.write_all(bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn free(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn room(&self, path: &Path) -> io::Result<Room> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Room {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: (stat.f_files > 0).then_some(stat.f_favail),
            block: stat.f_frsize.max(1),
        })
    }
}
