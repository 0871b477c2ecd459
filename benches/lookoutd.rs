//! What has no process of its own, measured in CPU time of this thread: formatting a backfill into memory, and cutting
//! resident windows. Prints one JSON object a line; `benches/run formatting` puts them beside the others. With the argument
//! `journal` it measures that instead.
#![allow(clippy::unwrap_used, reason = "a benchmark that panics has failed")]

#[path = "cases/journal.rs"]
mod journal;

use std::hint::black_box;
use std::path::Path;

use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::signal::{Cadence, Rebase, RowRule, TagList, Window};
use lookoutd::source::Source;
use lookoutd::source::replay::Replay;

fn main() {
    if std::env::args().any(|argument| argument == "journal") {
        // Not in memory, where a sync costs nothing.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        return journal::run(directory.path());
    }
    let directory = tempfile::tempdir().unwrap();
    let options = SampleOptions {
        days: 60,
        ..SampleOptions::default()
    };
    write_sample(directory.path(), &options, &mut |_| {}).unwrap();
    formatting(directory.path());
    resident_windows(directory.path());
}

/// A year of five-minute windows, 24 components each: 20 days of frames held in memory, formatted over and over.
fn formatting(plant: &Path) {
    let (mut source, first) = open(plant);
    let readings: Vec<_> = (0..20 * 288)
        .map(|n| source.read(&first.offset(n), RowRule::Service).unwrap())
        .collect();
    let (mut files, mut bytes, mut text) = (0u64, 0u64, Vec::new());
    let began = cpu_seconds();
    for _ in 0..18 {
        for frame in readings.iter().flat_map(|reading| &reading.frames) {
            text.clear();
            frame.encode_csv(&mut text);
            bytes += black_box(&text).len() as u64;
            files += 1;
        }
    }
    report(
        "format a year's input files into memory",
        began,
        files,
        bytes,
    );
}

/// Consecutive windows of a history that is open already, read and formatted.
fn resident_windows(plant: &Path) {
    let (mut source, first) = open(plant);
    let (mut bytes, mut text) = (0u64, Vec::new());
    let count = 40 * 288;
    let began = cpu_seconds();
    for n in 0..count {
        let reading = source.read(&first.offset(n), RowRule::Service).unwrap();
        for frame in &reading.frames {
            text.clear();
            frame.encode_csv(&mut text);
            bytes += black_box(&text).len() as u64;
        }
    }
    report(
        "read and format consecutive windows",
        began,
        count as u64,
        bytes,
    );
}

fn open(plant: &Path) -> (impl Source, Window) {
    let tags = TagList::read(plant.join("tags_description.csv")).unwrap();
    let history =
        Replay::open_file(&plant.join("signals.parquet"), &tags, &Default::default()).unwrap();
    let rebase = Rebase::once(history.first(), history.first());
    let first = chrono::DateTime::from_timestamp_micros(history.first()).unwrap();
    let window = Window::containing(first, Cadence::Pt5m).next();
    (Replay::new(history, rebase), window)
}

fn report(name: &str, began: f64, items: u64, bytes: u64) {
    let cpu_s = cpu_seconds() - began;
    println!(
        "{}",
        serde_json::json!({ "name": name, "cpu_s": cpu_s, "items": items, "bytes": bytes })
    );
}

/// CPU time of this thread.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
