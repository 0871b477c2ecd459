//! The journal: samples made durable in batches and at a steady rate, a cold start over a day of them, one asset of a
//! thousand read. CPU time is that of the process, since another thread writes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lookoutd::disk::LocalDisk;
use lookoutd::journal::{Journal, Kind, Options, Quality, Sample, Signal, Timed};
use tokio::time::Instant;

const ASSETS: usize = 1000;
const TAGS: usize = 24;
const START: i64 = 1_780_000_000_000_000_000;

/// Measures on the disk of this directory, and prints a JSON object a line.
pub fn run(directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let path = directory.join("journal");
    runtime.block_on(batches(&path));
    runtime.block_on(steady(&directory.join("steady")));
    read_assets(&path);
    runtime.block_on(cold_start(&directory.join("cold")));
}

fn open(path: &Path, segment: usize) -> Journal {
    let options = Options {
        floor: 0,
        segment,
        ..Options::default()
    };
    Journal::open(path, Arc::new(LocalDisk), options).unwrap()
}

fn signals(journal: &Journal) -> Vec<Signal> {
    (0..ASSETS * TAGS)
        .map(|at| {
            let asset = format!("asset-{}", at / TAGS);
            journal
                .signal(&asset, &format!("tag-{}", at % TAGS))
                .unwrap()
        })
        .collect()
}

/// Samples number `from` to `to` of a plant that gives 10,000 a second, tag after tag, each a millisecond or so late.
fn samples(signals: &[Signal], from: usize, to: usize) -> Vec<Sample> {
    (from..to)
        .map(|at| Sample {
            signal: signals[at % signals.len()],
            time: START + (at as i64 / 10) * 1_000_000,
            value: (at % 977) as f64 * 0.37,
            quality: Quality::Good,
            timed: Timed::Source,
            historical: false,
            kind: Kind::Value,
        })
        .collect()
}

const MANY: usize = 3_000_000;

async fn batches(path: &Path) {
    let journal = open(path, Options::default().segment);
    let signals = signals(&journal);
    let all: Vec<Vec<Sample>> = (0..MANY / 10_000)
        .map(|n| samples(&signals, n * 10_000, (n + 1) * 10_000))
        .collect();
    let (began, cpu) = (Instant::now(), cpu_seconds());
    for batch in all {
        journal.append(batch).await.unwrap();
    }
    report("3,000,000 samples in batches of 10,000", began, cpu, MANY);
    journal.close().await;
}

async fn steady(path: &Path) {
    const SECONDS: usize = 20;
    let journal = open(path, Options::default().segment);
    let signals = signals(&journal);
    let (began, cpu) = (Instant::now(), cpu_seconds());
    for n in 0..SECONDS * 100 {
        journal
            .append(samples(&signals, n * 100, (n + 1) * 100))
            .await
            .unwrap();
        tokio::time::sleep_until(began + Duration::from_millis(10 * n as u64)).await;
    }
    report(
        "10,000 samples a second for 20 s, 100 syncs a second",
        began,
        cpu,
        SECONDS * 10_000,
    );
}

fn read_assets(path: &Path) {
    let journal = Journal::look(path, Arc::new(LocalDisk)).unwrap();
    let signals: Vec<Signal> = journal.signals();
    // The last five minutes of it, which 3,000,000 samples are.
    let end = START + MANY as i64 / 10 * 1_000_000;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let mut found = 0;
    for asset in signals.chunks(TAGS) {
        let series = journal
            .read(asset, end - 300_000_000_000, end, journal.position())
            .unwrap();
        found += series
            .iter()
            .map(|series| series.samples.len())
            .sum::<usize>();
    }
    assert!(found > MANY / 2);
    report(
        "a window of five minutes of each of 1,000 assets",
        began,
        cpu,
        ASSETS,
    );
}

/// As many segments as a day at 10,000 a second has, and a log that is full.
async fn cold_start(path: &Path) {
    let journal = open(path, 1000);
    let signals = signals(&journal);
    for n in 0..1700 {
        journal
            .append(samples(&signals, n * 1000, (n + 1) * 1000))
            .await
            .unwrap();
    }
    journal.close().await;
    let journal = open(path, Options::default().segment);
    let from = 1700 * 1000;
    for n in 0..52 {
        journal
            .append(samples(
                &signals,
                from + n * 10_000,
                from + (n + 1) * 10_000,
            ))
            .await
            .unwrap();
    }
    journal.close().await;
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let journal = open(path, Options::default().segment);
    report(
        "a cold start over 1,700 segments and a log of 520,000 samples",
        began,
        cpu,
        1,
    );
    assert_eq!(journal.position().number(), 1_700_000 + 520_000);
}

fn report(name: &str, began: Instant, cpu: f64, items: usize) {
    let wall_s = began.elapsed().as_secs_f64();
    let cpu_s = cpu_seconds() - cpu;
    println!(
        "{}",
        serde_json::json!({ "name": name, "wall_s": wall_s, "cpu_s": cpu_s, "items": items })
    );
}

/// CPU time of this process.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
