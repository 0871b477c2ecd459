//! Golden: under `rows = "notebook"` every input file is byte-identical to what the sample notebook's pandas cell writes.
//!
//! `tests/golden/run` prepares pandas and runs this; without `LOOKOUTD_PYTHON` the tests say loudly that they are
//! skipped. The histories compared have no gaps, where the two differ on purpose: the notebook closes a gap up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, Utc};
use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::signal::{Cadence, NameFormat, RowRule, TagList, Window};
use lookoutd::source::Source;
use lookoutd::source::replay::{AtEnd, Replay};

type Files = BTreeMap<String, Vec<u8>>;

struct Comparison<'a> {
    parquet: &'a Path,
    tags: &'a Path,
    /// Recorded; `None` is the notebook's own choice, the end of the history.
    start: Option<&'a str>,
    at: &'a str,
    windows: i64,
    cadence: Cadence,
}

impl Comparison<'_> {
    fn run(&self, python: &Path) {
        let (ours, theirs) = (self.ours(), self.theirs(python));
        let components = TagList::read(self.tags).unwrap().components.len();
        assert_eq!(
            ours.len(),
            components * usize::try_from(self.windows).unwrap()
        );
        assert!(
            ours.keys().eq(theirs.keys()),
            "{:?}\n{:?}",
            ours.keys(),
            theirs.keys()
        );
        for (name, bytes) in &ours {
            assert!(
                bytes.iter().filter(|byte| **byte == b'\n').count() > 1,
                "{name} has no row"
            );
            for (line, (our, their)) in bytes
                .split(|b| *b == b'\n')
                .zip(theirs[name].split(|b| *b == b'\n'))
                .enumerate()
            {
                assert_eq!(
                    String::from_utf8_lossy(our),
                    String::from_utf8_lossy(their),
                    "{name}:{}",
                    line + 1
                );
            }
            assert!(bytes == &theirs[name], "{name} differs in length");
        }
    }

    /// By `lookoutd replay` where the recorded time is given, else through the source that it uses.
    fn ours(&self) -> Files {
        if let Some(start) = self.start {
            return self.replayed(start);
        }
        let tags = TagList::read(self.tags).unwrap();
        let history = Replay::open_file(self.parquet, &tags, &Default::default()).unwrap();
        let at: DateTime<Utc> = format!("{}Z", self.at).parse().unwrap();
        let first = Window::containing(at, self.cadence);
        let start = match self.start {
            Some(text) => format!("{text}Z")
                .parse::<DateTime<Utc>>()
                .unwrap()
                .timestamp_micros(),
            None => history.default_start(self.cadence, self.windows),
        };
        let rebase = history.rebase(
            start,
            first.start().timestamp_micros(),
            self.cadence,
            AtEnd::Stop,
        );
        let mut replay = Replay::new(history, rebase);
        let mut files = Files::new();
        for n in 0..self.windows {
            let window = first.offset(n);
            for frame in replay.read(&window, RowRule::Notebook).unwrap().frames {
                let mut bytes = Vec::new();
                frame.encode_csv(&mut bytes);
                files.insert(
                    NameFormat::default().file_name(&frame.component, window.start()),
                    bytes,
                );
            }
        }
        files
    }

    fn replayed(&self, start: &str) -> Files {
        let out = tempfile::tempdir().unwrap();
        let from: chrono::NaiveDateTime = start.parse().unwrap();
        let length = chrono::TimeDelta::seconds(self.windows * self.cadence.seconds());
        succeed(
            Command::new(env!("CARGO_BIN_EXE_lookoutd"))
                .arg("replay")
                .arg("--parquet")
                .arg(self.parquet)
                .arg("--tags")
                .arg(self.tags)
                .args(["--from", start, "--rows", "notebook"])
                .args(["--to", &(from + length).format("%FT%T").to_string()])
                .args(["--at", &format!("{}Z", self.at)])
                .args(["--cadence", &self.cadence.to_string()])
                .arg("--out")
                .arg(out.path()),
        );
        let files = std::fs::read_dir(out.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        });
        files.collect()
    }

    fn theirs(&self, python: &Path) -> Files {
        let out = tempfile::tempdir().unwrap();
        let mut command = Command::new(python);
        command
            .arg(script("notebook.py"))
            .arg("--parquet")
            .arg(self.parquet)
            .arg("--tags")
            .arg(self.tags);
        command.args(["--at", self.at, "--windows", &self.windows.to_string()]);
        command
            .args(["--frequency", &self.cadence.minutes().to_string()])
            .arg("--out")
            .arg(out.path());
        if let Some(start) = self.start {
            command.args(["--start", start]);
        }
        succeed(&mut command);
        std::fs::read_dir(out.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                (
                    path.file_name().unwrap().to_string_lossy().into_owned(),
                    std::fs::read(&path).unwrap(),
                )
            })
            .collect()
    }
}

#[test]
fn the_recorded_plant_is_cut_as_the_notebook_cuts_it() {
    let Some(python) = python() else { return };
    let Some(plant) = crate::skipped::shared("data/plant") else {
        return;
    };
    let (parquet, tags) = (
        plant.join("signals.parquet"),
        plant.join("tags_description.csv"),
    );
    let last = Comparison {
        parquet: &parquet,
        tags: &tags,
        start: None,
        at: "2026-01-01T00:07:13",
        windows: 3,
        cadence: Cadence::Pt5m,
    };
    last.run(&python);
    let day = Comparison {
        start: Some("2020-01-10T00:00:00"),
        at: "2026-01-01T00:00:00",
        windows: 288,
        ..last
    };
    day.run(&python);
    Comparison {
        at: "2026-12-31T22:00:00",
        windows: 30,
        cadence: Cadence::Pt1h,
        ..day
    }
    .run(&python);
}

#[test]
fn the_sample_plant_is_cut_as_the_notebook_cuts_it() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    // Eight days, to have several row groups, with signals that rest, quantised ones, and every component.
    write_sample(
        dir.path(),
        &SampleOptions {
            days: 8,
            ..SampleOptions::default()
        },
        &mut |_| (),
    )
    .unwrap();
    let (parquet, tags) = (
        dir.path().join("signals.parquet"),
        dir.path().join("tags_description.csv"),
    );
    for (cadence, windows) in [(Cadence::Pt5m, 3), (Cadence::Pt15m, 7), (Cadence::Pt30m, 2)] {
        Comparison {
            parquet: &parquet,
            tags: &tags,
            start: None,
            at: "2028-02-29T23:52:00",
            windows,
            cadence,
        }
        .run(&python);
    }
}

#[test]
fn values_that_are_hard_to_print_are_printed_as_pandas_prints_them() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    succeed(
        Command::new(&python)
            .arg(script("odd_values.py"))
            .arg(dir.path()),
    );
    let (parquet, tags) = (
        dir.path().join("signals.parquet"),
        dir.path().join("tags_description.csv"),
    );
    Comparison {
        parquet: &parquet,
        tags: &tags,
        start: Some("1999-12-29T00:00:00"),
        at: "2026-01-01T00:00:00",
        windows: 100,
        cadence: Cadence::Pt1h,
    }
    .run(&python);
}

fn python() -> Option<PathBuf> {
    crate::skipped::python()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
