//! What a test says when it cannot run here, or runs shortened, and where it finds what it may lack.
//!
//! Each such case is printed, and a line of it is added to the file that `LOOKOUTD_SKIPS` names: test binary, test, `skip` or
//! `short`, reason, with tabs between. `.ci/run` runs those tests again with what they lack, and fails if one is still
//! skipped that is not in `tests/skips.txt`.

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The test that calls cannot run here.
pub fn say(reason: impl Display) {
    record("skip", &reason.to_string());
}

/// A Python with tests/requirements.txt installed.
pub fn python() -> Option<PathBuf> {
    let python = std::env::var_os("LOOKOUTD_PYTHON").map(PathBuf::from);
    if python.is_none() {
        say("LOOKOUTD_PYTHON names no Python with tests/requirements.txt installed");
    }
    python
}

/// What lies at `path` among the recorded data outside this repository.
pub fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LOOKOUTD_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    let found = root.join(path);
    if found.exists() {
        return Some(found);
    }
    say(format!("LOOKOUTD_SHARED holds no {path}"));
    None
}

/// Whether all of a long test is wanted; without it, what `left_out` names is left out.
pub fn full(left_out: &str) -> bool {
    let wanted = std::env::var_os("LOOKOUTD_FULL").is_some();
    if !wanted {
        record("short", &format!("LOOKOUTD_FULL is not set: {left_out}"));
    }
    wanted
}

fn record(kind: &str, reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    let reason = reason.replace(['\n', '\t'], " ");
    eprintln!("{}: {reason}", kind.to_uppercase());
    let Some(path) = std::env::var_os("LOOKOUTD_SKIPS") else {
        return;
    };
    let line = format!("{}\t{test}\t{kind}\t{reason}\n", env!("CARGO_CRATE_NAME"));
    // One write, so that lines of tests that run beside each other stay whole.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("LOOKOUTD_SKIPS can be written");
}
