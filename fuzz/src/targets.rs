//! What is fuzzed: one function per kind of bytes that come from outside, each with what must hold whatever they are.
//!
//! A target may not panic, take over five seconds or over a gigabyte; what it asserts besides is said where it is asserted. The
//! fuzz binary and the tests of the product (`tests/it/corpus.rs`) run the same functions.

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use lookoutd::config;
use lookoutd::inference::{Archive, Import, Line, Summary, Taken, look, read_results, top_sensors};
use lookoutd::model::table::{Table, read_labels};
use lookoutd::model::{Model, Rows, ScoringState};
use lookoutd::service::csv_rows::{Cell, CsvRows};
use lookoutd::service::sigv4::{AccessKey, Signed, verify};
use lookoutd::signal::{
    Cadence, Column, Delimiter, NameFormat, RowRule, TagList, TimestampFormat, Window,
};
use lookoutd::source::replay::{AtEnd, Replay};
use lookoutd::source::{Source, recorded_time};

#[path = "request.rs"]
mod request;

/// A name, and what it does with any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. Each has a directory of its name in `fuzz/corpus`.
pub const TARGETS: [Target; 8] = [
    ("config", configuration),
    ("csv", csv),
    ("model", model),
    ("name", name),
    ("parquet", parquet),
    ("request", request::request),
    ("results", results),
    ("sigv4", sigv4),
];

/// The time of every target that needs one.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_440_938_400, 0).unwrap_or_default()
}

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file");
    file
}

/// The first byte chooses among `ways`.
fn choice(bytes: &[u8], ways: u8) -> Option<(u8, &[u8])> {
    bytes
        .split_first()
        .map(|(first, rest)| (first % ways, rest))
}

/// A configuration file, and after a zero byte lines of an environment.
fn configuration(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let file = written(parts.next().unwrap_or_default());
    let environment: Vec<(String, String)> =
        String::from_utf8_lossy(parts.next().unwrap_or_default())
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    match config::load(Some(file.path()), &environment, &[]) {
        Ok(loaded) => {
            // What is loaded can be shown, each value with where it comes from.
            for setting in loaded.settings() {
                assert!(!setting.origin.is_empty(), "{}", setting.key);
            }
        }
        Err(error) => {
            assert!(!error.findings.is_empty());
            assert!(
                error
                    .findings
                    .iter()
                    .all(|finding| !finding.problem.is_empty())
            );
        }
    }
    let _ = config::load_service(Some(file.path()), &environment);
}

/// The CSVs: input files, training tables, tag lists, labels.
fn csv(bytes: &[u8]) {
    match choice(bytes, 4) {
        Some((0, rows)) => input_rows(rows),
        Some((1, table)) => training_table(table),
        Some((2, tags)) => {
            if let Ok(tags) = TagList::parse(tags, "tags.csv") {
                assert!(
                    tags.components
                        .iter()
                        .all(|component| !component.signals.is_empty())
                );
            }
        }
        Some((_, labels)) => {
            if let Ok(labels) = read_labels(written(labels).path()) {
                assert!(labels.iter().all(|label| label.start <= label.end));
            }
        }
        None => {}
    }
}

fn input_rows(bytes: &[u8]) {
    let Ok(rows) = CsvRows::open(bytes) else {
        return;
    };
    let sensors = rows.sensors().len();
    let _ = rows.for_each(|time, cells| {
        // A time can be written again, and a number is one that can be scored.
        assert!(time.is_none_or(|time| DateTime::from_timestamp_micros(time).is_some()));
        for index in 0..=sensors {
            if let Cell::Number(number) = cells.get(index) {
                assert!(number.is_finite());
            }
        }
    });
}

fn training_table(bytes: &[u8]) {
    // A Parquet file is the target `parquet`; compressed ones are as large as they say.
    if bytes.starts_with(b"PAR1") || bytes.starts_with(&[0x1f, 0x8b]) {
        return;
    }
    let file = written(bytes);
    let Ok(mut table) = Table::open(file.path(), None, &Default::default()) else {
        return;
    };
    let mut last = i64::MIN;
    while let Ok(Some(block)) = table.next_block() {
        // In time order, every time once, and every row whole.
        assert!(!block.times.is_empty());
        for time in &block.times {
            assert!(*time > last);
            last = *time;
        }
        assert_eq!(
            block.values.len(),
            block.times.len() * table.sensors().len()
        );
    }
}

/// Model files and scoring states; the first byte says whether the container is put around the rest, as its checksum lets
/// nothing through that is not whole.
fn model(bytes: &[u8]) {
    match choice(bytes, 4) {
        Some((0, file)) => drop(Model::decode(file)),
        Some((1, file)) => drop(ScoringState::decode(file)),
        Some((2, payload)) => {
            if let Ok(model) = Model::decode(&container(b"LKTMODEL", payload)) {
                scored(&model);
            }
        }
        Some((_, payload)) => {
            if let Ok(state) = ScoringState::decode(&container(b"LKTSTATE", payload)) {
                // What was read is what is written.
                let again = ScoringState::decode(&state.encode());
                assert_eq!(again.map(|state| state.encode()), Ok(state.encode()));
            }
        }
        None => {}
    }
}

/// The container of `src/model/file.rs`.
pub fn container(magic: &[u8; 8], payload: &[u8]) -> Vec<u8> {
    let version = 1_u32.to_le_bytes();
    let length = (payload.len() as u64).to_le_bytes();
    let sum = blake3::Hasher::new()
        .update(&version)
        .update(&length)
        .update(payload)
        .finalize();
    [magic, &version[..], &length, sum.as_bytes(), payload].concat()
}

/// A model that is taken can be shown, scores a day without a look beyond its parts, and is written as it was read.
fn scored(model: &Model) {
    assert_eq!(
        Model::decode(&model.encode()).map(|again| again.encode()),
        Ok(model.encode())
    );
    let sensors = model.sensors().len();
    if sensors > 64 {
        return;
    }
    let names = model
        .used_sensors()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    assert!(names.len() <= sensors);
    let _ = (
        model.training_range(),
        model.training_events_per_week(),
        model.warnings().len(),
    );
    let start = now().timestamp_micros();
    let mut rows = Rows {
        sensors,
        ..Rows::default()
    };
    for row in 0..24 {
        rows.times.push(start + row * 3_600_000_000);
        rows.values
            .extend((0..sensors).map(|sensor| match (row + sensor as i64) % 5 {
                0 => f64::NAN,
                other => other as f64 * 1.5,
            }));
    }
    for mut state in [model.fresh_state(), model.live_state()] {
        let lines = model.score(&mut state, &rows, start - 1, start + 86_400_000_000);
        assert!(lines.iter().all(|line| line.time > start - 1));
        let _ = model.stuck_sensors(&state);
        assert_eq!(
            ScoringState::decode(&state.encode()).map(|again| again.encode()),
            Ok(state.encode())
        );
    }
}

/// File names: three bytes for the format, then lines, the last of them the name and the others components.
fn name(bytes: &[u8]) {
    let Some(([format, delimiter, offset], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let offsets = ["+00:00", "+05:30", "-14:00", "+14:00", "-00:15"];
    let format = NameFormat {
        timestamp: TimestampFormat::ALL[usize::from(*format) % 3],
        delimiter: Delimiter::ALL[usize::from(*delimiter) % 4],
        zone_offset: offsets[usize::from(*offset) % 5]
            .parse()
            .expect("an offset"),
    };
    let mut lines: Vec<&str> = text.split('\n').collect();
    let file = lines.pop().unwrap_or_default();
    if let Ok((component, start)) = format.parse(lines.iter().copied(), file) {
        // A name that is read is the one that would be written.
        assert_eq!(format.file_name(component, start), file);
    }
    let _ = (recorded_time(file), file.parse::<Cadence>());
    if let Some(Ok(found)) = look(file) {
        assert_eq!(found.name, file);
    }
}

/// A Parquet history, played round and round from its end, and once from its middle.
fn parquet(bytes: &[u8]) {
    let tags = b"Tag,UOM,Subsystem\na,,c\nb,,c\nn,,d\n";
    let tags = TagList::parse(tags, "tags.csv").expect("a tag list");
    let cadence = Cadence::Pt15m;
    let wall = Window::containing(now(), cadence);
    for at_end in [AtEnd::Loop, AtEnd::Stop] {
        let Ok(history) = Replay::open(
            Bytes::copy_from_slice(bytes),
            "history.parquet",
            &tags,
            &Default::default(),
        ) else {
            return;
        };
        assert!(history.first() <= history.last() && history.rows() > 0);
        let start = match at_end {
            AtEnd::Loop => history.default_start(cadence, 1),
            AtEnd::Stop => history.first().midpoint(history.last()),
        };
        let rebase = history.rebase(start, wall.start().timestamp_micros(), cadence, at_end);
        let mut replay = Replay::new(history, rebase);
        for (n, rows) in [(0, RowRule::Service), (1, RowRule::Notebook)] {
            let window = wall.offset(n);
            let Ok(reading) = replay.read(&window, rows) else {
                return;
            };
            assert_eq!(reading.frames.len(), tags.components.len());
            for frame in &reading.frames {
                // Every row is in its window, once, with a value of each signal.
                assert!(frame.times.iter().all(|time| rows.contains(&window, *time)));
                assert!(frame.times.windows(2).all(|pair| pair[0] < pair[1]));
                let whole = |column: &Column| column.values.len() == frame.rows();
                assert!(frame.columns.iter().all(whole));
            }
        }
    }
}

/// A results file to be imported: its path on the first line, then its bytes.
fn results(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let path = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let bytes = parts.next().unwrap_or_default();
    let Some(Ok(found)) = look(&path) else {
        return;
    };
    let lines = read_results(bytes);
    if let Ok(lines) = &lines {
        assert_eq!(
            Summary::of(bytes).map(|summary| summary.rows),
            Ok(lines.len())
        );
        let _ = top_sensors(lines.iter(), 3);
    }
    for cadence in [None, Some(Cadence::Pt5m), Some(Cadence::Pt1h)] {
        let import = Import {
            // Without an index it only looks.
            archive: Archive::new(PathBuf::from("/nonexistent")),
            index: None,
            scheduler: "pump".into(),
            model: "imported".into(),
            cadence,
            origin: "old/".into(),
        };
        match import.take(&found, bytes, None, now()) {
            Ok(Taken::Refused(refusal)) => assert!(!refusal.reason.is_empty()),
            Ok(Taken::Imported { rows, anomalous }) => {
                // What cannot be read is never taken.
                assert_eq!(lines.as_ref().map(Vec::len), Ok(rows));
                assert!(anomalous <= rows);
                // Every line lies in the window that the folder names, which is an hour at most.
                let window = 0..=3600;
                let inside =
                    |line: &Line| window.contains(&(line.time - found.start).num_seconds());
                assert!(lines.iter().flatten().all(inside));
            }
            Ok(Taken::AlreadyThere) => panic!("the archive is empty"),
            Err(_) => {}
        }
    }
}

/// A request as lines: method, path, query, headers, an empty line, and the body.
fn sigv4(bytes: &[u8]) {
    let mut left = bytes;
    let mut line = || {
        let end = left
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(left.len());
        let (line, rest) = left.split_at(end);
        left = rest.get(1..).unwrap_or_default();
        line
    };
    let [method, path, query] = [line(), line(), line()].map(String::from_utf8_lossy);
    let mut headers = HeaderMap::new();
    loop {
        let header = line();
        let Some(colon) = header.iter().position(|byte| *byte == b':') else {
            break;
        };
        let (name, value) = header.split_at(colon);
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(&value[1..]),
        ) {
            headers.append(name, value);
        }
    }
    let key = AccessKey {
        id: "AKIDEXAMPLE".into(),
        secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
    };
    let check = |body: &[u8]| {
        let signed = Signed {
            method: &method,
            path: &path,
            query: &query,
            headers: &headers,
        };
        verify(&signed, body, std::slice::from_ref(&key), "iam", now())
    };
    let body = left;
    if check(body).is_ok() {
        // What is signed is signed whole.
        assert!(check(&[body, b"x"].concat()).is_err());
    }
}
