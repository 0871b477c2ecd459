//! Several assets from one gateway: what each is fed is what a gateway of its own would feed it, one that is broken is named and
//! delays nobody, and a list that changes is an ordinary reload.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::config;
use lookoutd::daemon;
use lookoutd::feed::{Ledger, State};
use lookoutd::ops::ask::{Question, Reason, ask};
use lookoutd::ops::signals::Requests;
use lookoutd::sample::{SampleOptions, write_sample};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::rig::{Objects, at, directory, stored};

const BEGIN: &str = "2026-03-01T10:00:30Z";
/// How long something may take in real time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plant in a directory: two histories of eight signals, and gateways over them.
struct Site {
    directory: TempDir,
    /// Tags of the histories.
    tags: Vec<String>,
}

/// A gateway that runs, with a clock of its own.
struct Gateway {
    data: PathBuf,
    clock: Clock,
    requests: Requests,
    task: tokio::task::JoinHandle<anyhow::Result<daemon::Ended>>,
}

impl Site {
    fn new() -> Self {
        let directory = directory();
        for (name, seed) in [("common", 1), ("own", 2)] {
            let options = SampleOptions {
                days: 1,
                signals: 8,
                seed,
                ..SampleOptions::default()
            };
            write_sample(&directory.path().join(name), &options, &mut |_| {}).unwrap();
        }
        let list = directory.path().join("common/tags_description.csv");
        let tags = std::fs::read_to_string(list).unwrap();
        let tags = tags.lines().skip(1);
        let tags = tags
            .map(|line| line.split(',').next().unwrap().to_owned())
            .collect();
        Self { directory, tags }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The lines of one asset: two components, whose names every asset has.
    fn rows(&self, asset: &str, first: usize) -> String {
        let tag = |n: usize| &self.tags[(first + n) % self.tags.len()];
        let lines = [(0, "motor"), (1, "bearing"), (2, "motor")];
        let line = |(n, component): (usize, &str)| match asset {
            "" => format!("{},A,{component}\n", tag(n)),
            asset => format!("{},A,{component},{asset}\n", tag(n)),
        };
        lines.map(line).concat()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A configuration over the list of that name.
    fn config(&self, name: &str, history: &str, more: &str) -> String {
        format!(
            "data_dir = \"{}\"\n[source]\nparquet = \"{}\"\ntags = \"{}\"\n[feed]\n\
             catch_up = \"backfill\"\nmax_age = \"30h\"\ndrain_per_minute = 1000000\n{more}",
            self.path(name).display(),
            self.path(history).display(),
            self.path(&format!("{name}.csv")).display(),
        )
    }

    /// Starts a gateway by the configuration `name.toml`.
    fn start(&self, name: &str, now: DateTime<Utc>) -> Gateway {
        let requests = Requests {
            shutdown: CancellationToken::new(),
            reload: Arc::new(Notify::new()),
        };
        let (file, given, clock) = (
            self.path(&format!("{name}.toml")),
            requests.clone(),
            Clock::manual(now),
        );
        let time = clock.clone();
        let task = tokio::task::spawn_local(async move {
            let load = || {
                let free = |key: &str| (key.to_owned(), "127.0.0.1:0".to_owned());
                let mut flags = vec![free("service.listen"), free("service.s3_listen")];
                flags.push(("admin.listen".to_owned(), String::new()));
                config::load(Some(&file), &[], &flags)
            };
            daemon::run(&load, given, false, time).await
        });
        Gateway {
            data: self.path(name),
            clock,
            requests,
            task,
        }
    }
}

impl Gateway {
    /// The windows of an asset that are delivered, by their start.
    fn delivered(&self, asset: &str) -> BTreeMap<DateTime<Utc>, State> {
        let Ok(Some(ledger)) = Ledger::open_existing(&self.data) else {
            return BTreeMap::new();
        };
        let entries = ledger.of(asset).list(10_000).unwrap();
        let delivered = entries.iter().filter(|entry| entry.state.is_delivered());
        delivered.map(|entry| (entry.start, entry.state)).collect()
    }

    /// Waits until an asset has delivered every window since `from`, the one that is live among them.
    async fn settle(&self, asset: &str, minutes: i64, from: &str) {
        let length = TimeDelta::minutes(minutes);
        let wanted = (self.clock.now() - at(from)).num_seconds() / length.num_seconds() + 1;
        let begun = Instant::now();
        loop {
            let delivered = self.delivered(asset);
            let since = delivered.range(at(from)..).count() as i64;
            if since >= wanted {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE && !self.task.is_finished(),
                "{asset} has {since} of {wanted} windows: {:?}",
                self.reasons()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the daemon says is wrong.
    fn reasons(&self) -> Vec<Reason> {
        let data = self.data.clone();
        std::thread::spawn(move || ask(&data, Question::All))
            .join()
            .unwrap()
            .map(|told| told.reasons)
            .unwrap_or_default()
    }

    /// Waits for a reason of that code about that asset, or until there is none.
    async fn until(&self, code: &str, asset: &str, there: bool) -> Option<Reason> {
        let begun = Instant::now();
        loop {
            let data = self.data.clone();
            let asked = tokio::task::spawn_blocking(move || ask(&data, Question::All));
            let reasons = asked.await.unwrap().map(|told| told.reasons);
            let reasons = reasons.unwrap_or_default();
            let found = reasons
                .iter()
                .find(|reason| reason.code == code && reason.subject.asset == asset);
            if found.is_some() == there {
                return found.cloned();
            }
            assert!(
                begun.elapsed() < PATIENCE && !self.task.is_finished(),
                "{code} of {asset}: {reasons:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn stop(self) -> PathBuf {
        self.requests.shutdown.cancel();
        assert_eq!(self.task.await.unwrap().unwrap(), daemon::Ended::Stopped);
        self.data
    }
}

fn objects(data: &Path) -> Objects {
    stored(&data.join("s3"), daemon::EMBEDDED_BUCKET)
}

const PREFIX: &str = "[s3]\ninput_prefix = \"input/{asset}/\"\n";

#[tokio::test]
async fn what_each_asset_is_fed_is_what_a_gateway_of_its_own_feeds_and_a_broken_one_delays_nobody()
{
    let local = tokio::task::LocalSet::new();
    local.run_until(a_day()).await;
}

async fn a_day() {
    let site = Site::new();
    // Two share a history and a cadence, one the history alone, one has its own, and one has none.
    let assets = [
        ("pump-1", 0, "PT15M", 15, "common"),
        ("pump-2", 3, "PT15M", 15, "common"),
        ("pump-3", 5, "PT30M", 30, "common"),
        ("fan", 0, "PT1H", 60, "own"),
    ];
    let mut list = "Tag,UOM,Subsystem,Asset\n".to_owned();
    let mut own = "cadence = \"PT15M\"\n".to_owned() + PREFIX;
    let mut alone = Vec::new();
    for (asset, first, cadence, minutes, history) in assets {
        list += &site.rows(asset, first);
        own += &format!(
            "[asset.{asset}]\ncadence = \"{cadence}\"\nhistory = \"{}\"\n",
            site.path(history).join("signals.parquet").display()
        );
        let rows = site.rows("", first);
        site.write(
            &format!("{asset}.csv"),
            &format!("Tag,UOM,Subsystem\n{rows}"),
        );
        let more = format!("cadence = \"{cadence}\"\n[s3]\ninput_prefix = \"input/{asset}/\"\n");
        let history = format!("{history}/signals.parquet");
        let text = site.config(asset, &history, &more);
        site.write(&format!("{asset}.toml"), &text);
        alone.push((asset, minutes, site.start(asset, at(BEGIN))));
    }
    list += &site.rows("broken", 0);
    own += &format!(
        "[asset.broken]\nhistory = \"{}\"\n",
        site.path("nowhere.parquet").display()
    );
    site.write("plant.csv", &list);
    site.write(
        "plant.toml",
        &site.config("plant", "common/signals.parquet", &own),
    );
    let plant = site.start("plant", at(BEGIN));
    let hours = match crate::skipped::full("21 of 24 simulated hours of five gateways") {
        true => 24,
        false => 3,
    };
    for hour in 0..hours {
        if hour > 0 {
            plant.clock.advance(TimeDelta::hours(1));
        }
        for (asset, minutes, gateway) in &alone {
            if hour > 0 {
                gateway.clock.advance(TimeDelta::hours(1));
            }
            plant.settle(asset, *minutes, "2026-03-01T10:00:00Z").await;
            gateway.settle("", *minutes, "2026-03-01T10:00:00Z").await;
        }
    }
    let named = plant.until("source-failing", "broken", true).await.unwrap();
    assert!(named.text.contains("nowhere.parquet"), "{named:?}");
    assert!(plant.delivered("broken").is_empty());
    for (asset, ..) in assets {
        plant.until("source-failing", asset, false).await;
    }
    let together = objects(&plant.stop().await);
    let mut apart = Objects::new();
    for (_, _, gateway) in alone {
        apart.append(&mut objects(&gateway.stop().await));
    }
    // Two files a window.
    let windows = |minutes: usize| (hours - 1) * 60 / minutes + 1;
    let all: usize = assets.iter().map(|asset| windows(asset.3 as usize)).sum();
    assert_eq!(together.len(), 2 * all);
    let differs: Vec<_> = together
        .iter()
        .filter(|(key, bytes)| apart.get(*key) != Some(bytes))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(differs, Vec::<&String>::new());
    assert_eq!(together.len(), apart.len());
}

#[tokio::test]
async fn a_list_that_gains_renames_and_loses_assets_is_an_ordinary_reload() {
    let local = tokio::task::LocalSet::new();
    local.run_until(a_changing_list()).await;
}

async fn a_changing_list() {
    let site = Site::new();
    let list = |assets: &[(&str, usize)]| {
        let rows: String = assets
            .iter()
            .map(|(asset, first)| site.rows(asset, *first))
            .collect();
        site.write("plant.csv", &format!("Tag,UOM,Subsystem,Asset\n{rows}"));
    };
    let begun = "2026-03-01T10:00:00Z";
    // What the version before wrote: one asset without a name.
    let rows = site.rows("", 0);
    site.write("plant.csv", &format!("Tag,UOM,Subsystem\n{rows}"));
    let history = "common/signals.parquet";
    site.write("plant.toml", &site.config("plant", history, ""));
    let gateway = site.start("plant", at(BEGIN));
    gateway.settle("", 5, begun).await;
    let before = objects(&gateway.stop().await);
    let mapping = std::fs::read(site.path("plant/rebase.json")).unwrap();
    assert!(
        before
            .keys()
            .all(|key| key.starts_with("input/motor") || key.starts_with("input/bearing")),
        "{before:?}"
    );
    // It goes on by the same list, in the same places.
    let gateway = site.start("plant", at("2026-03-01T10:05:30Z"));
    gateway.settle("", 5, begun).await;
    assert_eq!(
        std::fs::read(site.path("plant/rebase.json")).unwrap(),
        mapping
    );
    // Two assets with names take its place.
    list(&[("pump-1", 0), ("pump-2", 3)]);
    site.write("plant.toml", &site.config("plant", history, PREFIX));
    gateway.requests.reload.notify_one();
    gateway.settle("pump-1", 5, "2026-03-01T10:05:00Z").await;
    gateway.settle("pump-2", 5, "2026-03-01T10:05:00Z").await;
    // One joins, one is called otherwise, and the one that stays goes on.
    list(&[("pump-1", 0), ("pump-two", 3), ("pump-3", 5)]);
    gateway.requests.reload.notify_one();
    gateway.settle("pump-two", 5, "2026-03-01T10:05:00Z").await;
    gateway.settle("pump-3", 5, "2026-03-01T10:05:00Z").await;
    gateway.clock.advance(TimeDelta::minutes(5));
    for asset in ["pump-1", "pump-two", "pump-3"] {
        gateway.settle(asset, 5, "2026-03-01T10:05:00Z").await;
    }
    assert_eq!(gateway.delivered("pump-2").len(), 1);
    // A list that is wrong changes nothing, and is said.
    site.write("plant.csv", "Tag,UOM,Subsystem,Asset\na,b,c,no/name\n");
    gateway.requests.reload.notify_one();
    let refused = gateway
        .until("configuration-refused", "", true)
        .await
        .unwrap();
    assert!(refused.text.contains("no/name"), "{refused:?}");
    list(&[("pump-1", 0), ("pump-3", 5)]);
    let data = gateway.stop().await;
    // Windows of one that has left wait: they are neither shipped nor deleted, and that is said.
    let ledger = Ledger::open_existing(&data).unwrap().unwrap().of("pump-2");
    let window =
        lookoutd::signal::Window::new(at("2026-03-01T10:10:00Z"), lookoutd::signal::Cadence::Pt5m)
            .unwrap();
    ledger
        .record(&lookoutd::feed::Entry::new(&window, State::Due))
        .unwrap();
    let gateway = site.start("plant", at("2026-03-01T10:10:45Z"));
    gateway.clock.advance(TimeDelta::minutes(5));
    gateway.settle("pump-1", 5, "2026-03-01T10:05:00Z").await;
    let left = gateway.until("asset-left", "pump-2", true).await.unwrap();
    assert!(left.text.contains("1 of its windows"), "{left:?}");
    // Put back, it is delivered, and nothing is said any more.
    list(&[("pump-1", 0), ("pump-2", 3), ("pump-3", 5)]);
    gateway.requests.reload.notify_one();
    gateway.settle("pump-2", 5, "2026-03-01T10:10:00Z").await;
    gateway.until("asset-left", "pump-2", false).await;
    let after = objects(&gateway.stop().await);
    for key in before.keys() {
        assert_eq!(after.get(key), before.get(key), "{key}");
    }
}
