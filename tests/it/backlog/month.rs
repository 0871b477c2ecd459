//! A month of five-minute windows with thirty components, sealed while the store is away, then drained while new windows
//! go on to be cut: how long, how late, how much memory.
//!
//! The feeder is a child process, so that its memory is its own. Its clock runs 60 times as fast, a live window every five
//! seconds. Unless `LOOKOUTD_BACKLOG_WINDOWS=8640` asks for all of the month, which takes 18 minutes in a debug build, it is a day.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::config::Span;
use lookoutd::daemon::{Feeder, Parts};
use lookoutd::embedded::KeyPair;
use lookoutd::feed::disk::LocalDisk;
use lookoutd::feed::{Config, Ledger, State};
use lookoutd::s3::Bucket;
use lookoutd::signal::{Column, Frame, NameFormat, RowRule, TagList, Values, Window};
use lookoutd::source::{Reading, Source, SourceError};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::rig::*;

const SPEC: &str = "LOOKOUTD_BACKLOG_CHILD";
const SPEED: f64 = 60.0;
const COMPONENTS: usize = 30;
const SIGNALS: usize = 4;

#[derive(Serialize, Deserialize)]
struct Spec {
    data_dir: PathBuf,
    endpoint: String,
    access_key: String,
    secret_key: String,
    now: DateTime<Utc>,
    /// 0: one window, then the end.
    speed: f64,
}

/// Thirty components of four signals, a row a minute.
struct Wide;

impl Source for Wide {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        let (first, last) = rows.bounds(window);
        let minute = 60_000_000;
        let times: Vec<i64> = (first.div_euclid(minute)..=last.div_euclid(minute))
            .map(|n| n * minute)
            .filter(|time| (first..=last).contains(time))
            .collect();
        let frames = wide_tags().components.into_iter().map(|component| Frame {
            component: component.name,
            columns: component
                .signals
                .into_iter()
                .enumerate()
                .map(|(at, name)| Column {
                    name,
                    values: Values::F64(
                        times
                            .iter()
                            .map(|time| (time / minute % 10_007) as f64 / 7.0 + at as f64)
                            .collect(),
                    ),
                })
                .collect(),
            times: times.clone(),
        });
        Ok(Reading {
            frames: frames.collect(),
            expected_rows: Some(5),
            duplicates: 0,
            infinite: 0,
            words: 0,
            bad: 0,
            position: None,
            ended: false,
        })
    }
}

fn wide_tags() -> TagList {
    let mut text = "Tag,UOM,Subsystem\n".to_owned();
    for component in 0..COMPONENTS {
        for signal in 0..SIGNALS {
            text += &format!("c{component:02}-s{signal},C,component-{component:02}\n");
        }
    }
    TagList::parse(text.as_bytes(), "tags.csv").expect("a tag list")
}

/// The child's life. Without a spec this is no test.
#[tokio::test]
async fn child() {
    let Ok(spec) = std::env::var(SPEC) else {
        return;
    };
    let spec: Spec = serde_json::from_str(&spec).expect("a spec");
    let keys = KeyPair {
        access_key: spec.access_key,
        secret_key: spec.secret_key,
    };
    let clock = match spec.speed {
        0.0 => Clock::manual(spec.now),
        speed => Clock::accelerated(spec.now, speed),
    };
    let stop = CancellationToken::new();
    let mut feeder = Feeder::start(
        Parts {
            asset: Default::default(),
            vitals: Default::default(),
            config: Config {
                max_age: Span(Duration::from_secs(40 * 86_400)),
                drain_per_minute: u32::MAX,
                ..feed_config()
            },
            naming: NameFormat::default(),
            prefix: PREFIX.to_owned(),
            data_dir: spec.data_dir,
            tags: wide_tags(),
            source: Box::new(Wide),
            bucket: Bucket::new(client(&spec.endpoint, &keys), BUCKET),
            clock: clock.clone(),
            disk: Arc::new(LocalDisk),
        },
        stop.clone(),
    )
    .await
    .expect("a feeder");
    if spec.speed > 0.0 {
        // Until it is killed.
        tokio::time::sleep(Duration::from_secs(3_600)).await;
    }
    while !feeder
        .view()
        .is_settled(clock.now())
        .await
        .expect("a ledger")
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    feeder.drain(Duration::from_secs(5)).await;
}

fn launch(spec: &Spec) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "backlog::month::child", "--nocapture"])
        .env(SPEC, serde_json::to_string(spec).expect("a spec"))
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

fn sealed(data_dir: &Path) -> usize {
    std::fs::read_dir(data_dir.join("spool")).map_or(0, |read| {
        read.flatten()
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .count()
    })
}

/// The most memory a process had, in MiB.
fn peak(child: &Child) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.expect("VmHWM").parse::<f64>().expect("a number") / 1024.0
}

#[test]
fn a_month_of_thirty_components_drains_and_delays_no_live_window() {
    if !crate::skipped::full("all of it, a month's backlog takes minutes") {
        return;
    }
    let windows: i64 = std::env::var("LOOKOUTD_BACKLOG_WINDOWS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(288);
    let store = Store::start();
    let data_dir = store.scratch("data");
    let mut spec = Spec {
        data_dir: data_dir.clone(),
        endpoint: store.proxy.endpoint(),
        access_key: store.keys.access_key.clone(),
        secret_key: store.keys.secret_key.clone(),
        now: at("2026-01-01T00:05:00Z"),
        speed: 0.0,
    };
    assert!(launch(&spec).wait().expect("the child").success());
    store.proxy.refuse();
    spec.now += TimeDelta::minutes(5 * windows);
    spec.speed = SPEED;
    let began = Instant::now();
    let mut child = launch(&spec);
    while sealed(&data_dir) < windows as usize {
        assert!(began.elapsed() < Duration::from_secs(1_800), "not sealed");
        std::thread::sleep(Duration::from_millis(200));
    }
    let sealing = began.elapsed();
    store.proxy.listen();
    let began = Instant::now();
    let ledger = Ledger::open_existing(&data_dir)
        .expect("a ledger")
        .expect("it exists");
    let last = spec.now;
    while ledger
        .oldest_spooled(1)
        .expect("the ledger")
        .first()
        .is_some_and(|oldest| oldest.start() < last)
    {
        assert!(began.elapsed() < Duration::from_secs(1_800), "not drained");
        std::thread::sleep(Duration::from_millis(100));
    }
    let draining = began.elapsed();
    let peak = peak(&child);
    drop(child.kill());
    drop(child.wait());
    // Live windows that were cut while the store was there.
    let resumed = spec.now + TimeDelta::milliseconds((sealing.as_secs_f64() * SPEED * 1e3) as i64);
    let mut late: Vec<f64> = ledger
        .list(100_000)
        .expect("the entries")
        .into_iter()
        .filter(|entry| entry.start > resumed + TimeDelta::minutes(5))
        .filter_map(|entry| {
            assert_ne!(entry.state, State::Quarantined);
            let cut = entry.cut_at?;
            Some((entry.shipped_at? - cut).num_milliseconds() as f64 / 1e3 / SPEED)
        })
        .collect();
    late.sort_by(f64::total_cmp);
    let (median, most) = (late[late.len() / 2], late[late.len() - 1]);
    let files = windows as f64 * COMPONENTS as f64;
    println!(
        "BACKLOG {windows} windows x {COMPONENTS} files: sealed in {:.1} s, drained in {:.1} s ({:.0} files/s), {} live windows \
         shipped {median:.2} s after their cut (median), {most:.2} s (longest), peak memory {peak:.1} MiB",
        sealing.as_secs_f64(),
        draining.as_secs_f64(),
        files / draining.as_secs_f64(),
        late.len()
    );
    assert!(most < 5.0, "a live window waited for the backlog");
    assert!(peak < 150.0, "memory grows with the backlog: {peak} MiB");
}
