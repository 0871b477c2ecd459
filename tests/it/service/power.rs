//! What a power cut leaves of a directory: of each file what it held when it was last synced, of each directory what it listed
//! then, and nothing else. `steps.c` writes it down while the process runs, this begins it and makes a tree of it.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Where it is written down.
pub struct Shadow(PathBuf);

impl Shadow {
    /// All that lies under `data` now survives.
    pub fn of(data: &Path, at: PathBuf) -> Shadow {
        std::fs::create_dir_all(&at).unwrap();
        let shadow = Shadow(at);
        shadow.keep(data);
        shadow
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn keep(&self, directory: &Path) {
        let mut listing = String::new();
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let key = key(&path);
            let kind = if path.is_dir() { 'd' } else { 'f' };
            let name = entry.file_name().into_string().unwrap();
            writeln!(listing, "{kind} {key} {name}").unwrap();
            match kind {
                'd' => self.keep(&path),
                _ => _ = std::fs::copy(&path, self.0.join(key)).unwrap(),
            }
        }
        std::fs::write(self.0.join(key(directory)), listing).unwrap();
    }

    /// The power was cut: what survived takes the place of `data`.
    pub fn restore(self, data: &Path) {
        let root = key(data);
        let lost = data.with_extension("lost");
        std::fs::rename(data, &lost).unwrap();
        self.make(&root, data);
        std::fs::remove_dir_all(lost).unwrap();
        std::fs::remove_dir_all(self.0).unwrap();
    }

    fn make(&self, directory: &str, path: &Path) {
        std::fs::create_dir(path).unwrap();
        // One that was never synced lists nothing.
        let listing = std::fs::read_to_string(self.0.join(directory)).unwrap_or_default();
        for line in listing.lines() {
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().unwrap();
            let (kind, key, name) = (part(), part(), part());
            match kind {
                "d" => self.make(key, &path.join(name)),
                _ => {
                    let bytes = std::fs::read(self.0.join(key)).unwrap_or_default();
                    std::fs::write(path.join(name), bytes).unwrap();
                }
            }
        }
    }
}

/// As `steps.c` names it.
fn key(path: &Path) -> String {
    let found = std::fs::symlink_metadata(path).unwrap();
    // A file system that knows none says none to both.
    let born = found.created().ok();
    let born = born.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born = born.unwrap_or_default();
    format!("{}-{}-{}", found.ino(), born.as_secs(), born.subsec_nanos())
}
