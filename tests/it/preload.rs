//! C libraries of the tests, compiled once and preloaded into processes of ours. A C compiler is there wherever this project
//! builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// A library and its source.
pub struct Library {
    source: &'static str,
    compiled: OnceLock<(TempDir, PathBuf)>,
}

impl Library {
    /// The library whose source lies at `source` in this repository.
    pub const fn of(source: &'static str) -> Self {
        Self {
            source,
            compiled: OnceLock::new(),
        }
    }

    /// Where it is, compiled.
    pub fn path(&self) -> &Path {
        let (_, path) = self.compiled.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("preload.so");
            let compiled = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
                .arg(&path)
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(self.source))
                .arg("-ldl")
                .status();
            assert!(
                compiled.unwrap().success(),
                "{} does not compile",
                self.source
            );
            (directory, path)
        });
        path
    }
}
