//! The daemon itself under a clock that the test sets: killed and started again across window boundaries, and stepped forward
//! and back while it runs. The system clock is libfaketime's, which `LOOKOUTD_FAKETIME` names
//! (`libfaketimeMT.so.1`, Debian package faketime); without it, and where Debian does not have it in its place, these skip
//! loudly. Monotonic time stays real, as it does when an operator or NTP steps a machine's clock.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::feed::{Entry, Ledger, State};
use lookoutd::sample::{SampleOptions, write_sample};
use serde_json::Value;
use tempfile::TempDir;

use crate::commands::lookoutd;
use crate::rig::{at, directory, stored};

/// libfaketime, which sets the clock of a process from outside; without it the test that calls cannot run here.
pub fn faketime() -> Option<PathBuf> {
    let library = std::env::var_os("LOOKOUTD_FAKETIME").map_or_else(
        || PathBuf::from("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"),
        PathBuf::from,
    );
    if library.is_file() {
        return Some(library);
    }
    crate::skipped::say(format!(
        "{} is not there: install faketime, or set LOOKOUTD_FAKETIME",
        library.display()
    ));
    None
}

/// A plant, its data directory, and a clock in a file.
pub struct Site {
    directory: TempDir,
    /// What is preloaded: libfaketime, and what else a test wants.
    preload: String,
    environment: Vec<(String, PathBuf)>,
}

impl Site {
    pub fn new() -> Option<Site> {
        let library = faketime()?;
        let directory = directory();
        let options = SampleOptions {
            days: 2,
            signals: 8,
            ..SampleOptions::default()
        };
        write_sample(&directory.path().join("plant"), &options, &mut |_| {}).expect("a plant");
        let text = format!(
            "data_dir = \"{0}/data\"\n[source]\nparquet = \"{0}/plant/signals.parquet\"\n\
             tags = \"{0}/plant/tags_description.csv\"\n[service]\nlisten = \"127.0.0.1:0\"\ns3_listen = \"127.0.0.1:0\"\n[feed]\ndrain_per_minute = 6000\nmax_age = \"2h\"\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n",
            directory.path().display()
        );
        std::fs::write(directory.path().join("lookoutd.toml"), text).expect("a configuration");
        Some(Site {
            directory,
            preload: library.display().to_string(),
            environment: Vec::new(),
        })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Preloads another library too, with what it wants in its environment.
    pub fn preload(&mut self, library: &Path, (name, value): (&str, &Path)) {
        self.preload = format!("{}:{}", library.display(), self.preload);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Sets the clock of whatever runs; it goes on from there, `speed` times as fast as real time.
    pub fn set_clock(&self, time: DateTime<Utc>, speed: u32) {
        let text = format!("@{} x{speed}\n", time.format("%Y-%m-%d %H:%M:%S"));
        let new = self.directory.path().join("clock.new");
        std::fs::write(&new, text).expect("a clock");
        std::fs::rename(&new, self.directory.path().join("clock")).expect("a clock");
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = lookoutd();
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory.path().join("lookoutd.toml"))
            .env("TZ", "UTC")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("LD_PRELOAD", &self.preload)
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_NO_CACHE", "1")
            .env(
                "FAKETIME_TIMESTAMP_FILE",
                self.directory.path().join("clock"),
            );
        command
    }

    pub fn run(&self) -> Daemon {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .expect("a log");
        Daemon(
            self.command(&["run", "--set", "feed.catch_up=backfill"])
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("the daemon starts"),
        )
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What is recorded, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        let Ok(Some(ledger)) = Ledger::open_existing(&self.data_dir()) else {
            return Vec::new();
        };
        let mut entries = ledger.list(10_000).unwrap_or_default();
        entries.reverse();
        entries
    }

    #[track_caller]
    pub fn until(&self, what: &str, done: impl Fn(&[Entry]) -> bool) {
        for _ in 0..12_000 {
            if done(&self.entries()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!(
            "not in 120 s: {what}: {:#?}\n{}",
            self.entries(),
            self.log()
        );
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self
            .command(arguments)
            .args(["--output", "json"])
            .output()
            .expect("lookoutd runs");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// Every delivered window's files are in the bucket, and no others.
    #[track_caller]
    pub fn assert_bucket_agrees(&self) {
        let objects = stored(&self.data_dir().join("s3"), "lookoutd");
        let recorded: u32 = self.entries().iter().map(|entry| entry.files).sum();
        assert_eq!(objects.len(), recorded as usize);
        for entry in self.entries() {
            let stamp = entry.start.format("_%Y%m%d%H%M%S.csv").to_string();
            let files = objects.keys().filter(|key| key.ends_with(&stamp)).count();
            assert_eq!(files, entry.files as usize, "{stamp}");
        }
    }
}

/// Killed when dropped.
pub struct Daemon(Child);

impl Daemon {
    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)))
    }

    fn end(&mut self) {
        // Both fail only when it has ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end();
    }
}

pub fn delivered(entry: &Entry) -> bool {
    matches!(entry.state, State::Shipped | State::Partial)
}

pub fn has(entries: &[Entry], start: &str) -> bool {
    entries.iter().any(|e| e.start == at(start) && delivered(e))
}

#[track_caller]
pub fn assert_tiled(entries: &[Entry]) {
    for pair in entries.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "missing or doubled");
    }
}

#[test]
fn killed_and_restarted_across_boundaries_no_window_is_missing_or_doubled() {
    let Some(site) = Site::new() else { return };
    site.set_clock(at("2026-01-01T00:04:00Z"), 1);
    let daemon = site.run();
    site.until("the first window", |entries| {
        has(entries, "2026-01-01T00:00:00Z")
    });
    // Over a boundary while it runs, woken by the cron job, then killed at once.
    site.set_clock(at("2026-01-01T00:04:59Z"), 1);
    site.until("the window after the boundary", |entries| {
        entries
            .iter()
            .any(|e| e.start == at("2026-01-01T00:05:00Z"))
    });
    daemon.kill();
    // Down over two boundaries.
    site.set_clock(at("2026-01-01T00:16:00Z"), 1);
    let down = site.json(&["status"]);
    assert_eq!(down["verdict"], "stopped");
    let daemon = site.run();
    site.until("what was missed", |entries| {
        entries.len() == 4 && entries.iter().all(delivered)
    });
    // Killed just before a boundary, started just after it.
    site.set_clock(at("2026-01-01T00:19:59Z"), 1);
    daemon.kill();
    site.set_clock(at("2026-01-01T00:20:00Z"), 1);
    let daemon = site.run();
    site.until("the last window", |entries| {
        has(entries, "2026-01-01T00:20:00Z")
    });

    let status = site.json(&["status"]);
    assert_eq!(status["verdict"], "ok", "{status}");
    assert_eq!(status["last"]["start"], "2026-01-01T00:20:00Z");
    let windows = site.json(&["windows", "list"]);
    let told: Vec<_> = windows
        .as_array()
        .unwrap()
        .iter()
        .map(|w| (w["start"].as_str().unwrap(), w["shipped_at"].is_string()))
        .collect();
    assert_eq!(
        told,
        [
            ("2026-01-01T00:20:00Z", true),
            ("2026-01-01T00:15:00Z", true),
            ("2026-01-01T00:10:00Z", true),
            ("2026-01-01T00:05:00Z", true),
            ("2026-01-01T00:00:00Z", true)
        ]
    );
    daemon.kill();
    assert_tiled(&site.entries());
    site.assert_bucket_agrees();
}

#[test]
fn a_clock_that_is_stepped_while_the_daemon_runs_neither_bursts_nor_repeats() {
    let Some(site) = Site::new() else { return };
    site.set_clock(at("2026-01-01T10:01:00Z"), 1);
    let daemon = site.run();
    site.until("the first window", |entries| {
        has(entries, "2026-01-01T10:00:00Z")
    });
    // A few seconds forward and back around a boundary.
    for time in ["10:05:02", "10:04:57", "10:05:01"] {
        site.set_clock(at(&format!("2026-01-01T{time}Z")), 1);
        std::thread::sleep(Duration::from_millis(1_500));
    }
    site.until("the window of the boundary", |entries| {
        entries.len() == 2 && has(entries, "2026-01-01T10:05:00Z")
    });
    // Half an hour back: nothing is cut again.
    let before = site.entries();
    site.set_clock(at("2026-01-01T10:01:00Z"), 1);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(site.entries(), before);
    // An hour forward: the windows between are within max_age, and are filled in.
    site.set_clock(at("2026-01-01T11:01:00Z"), 1);
    site.until("an hour later", |entries| {
        entries.len() == 13 && entries.iter().all(delivered)
    });
    // A year forward: one decision for what is older than max_age, then at most two hours of windows.
    site.set_clock(at("2027-01-01T11:01:00Z"), 1);
    site.until("a year later", |entries| {
        has(entries, "2027-01-01T11:00:00Z")
    });
    let skipped: Vec<_> = site
        .entries()
        .into_iter()
        .filter(|e| e.state == State::Skipped)
        .collect();
    assert_eq!(skipped.len(), 1, "{skipped:?}");
    assert!(skipped[0].end - skipped[0].start > TimeDelta::days(360));
    site.until("two hours of backlog", |entries| {
        entries
            .iter()
            .all(|e| delivered(e) || e.state == State::Skipped)
    });
    daemon.kill();
    let entries = site.entries();
    assert_tiled(&entries);
    assert!(entries.len() <= 13 + 1 + 24 + 1, "{}", entries.len());
    assert!(site.log().contains("the clock was stepped"));
    site.assert_bucket_agrees();
}
