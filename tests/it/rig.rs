//! A small plant and a feeder on it: a source whose samples are a function of the wall time, an embedded store behind the
//! fault proxy, and what the bucket must hold in the end.
//!
//! The source needs no file and is the same in every process and after every restart, so what a window's files must
//! contain is known without asking the feeder. Everything lies in memory (`/dev/shm`) where there is one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use chrono::{DateTime, Utc};
use lookoutd::clock::Clock;
use lookoutd::daemon::{Feeder, Parts};
use lookoutd::embedded::{EmbeddedS3, KeyPair};
use lookoutd::feed::disk::{Disk, LocalDisk};
use lookoutd::feed::{CatchUp, Config, Entry, Ledger, State};
use lookoutd::s3::Bucket;
use lookoutd::signal::{Cadence, Column, Frame, NameFormat, RowRule, TagList, Values, Window};
use lookoutd::source::{Reading, Source, SourceError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;

/// What a machine with much else to do may take; a healthy one needs a hundredth.
const PATIENCE: Duration = Duration::from_secs(180);

pub const BUCKET: &str = "plant";
pub const PREFIX: &str = "input/";
const TAGS: &str =
    "Tag,UOM,Subsystem\npressure,bar,pump\nflow,m3/h,pump\nspeed,rpm,motor\nheat,C,hall\n";

/// A source that answers every window from a formula.
#[derive(Clone, Debug, Default)]
pub struct Wave {
    /// Windows (start, UTC seconds) in which the component `hall` has no rows.
    pub without_hall: Vec<i64>,
    /// Windows without any row.
    pub empty: Vec<i64>,
    /// Windows from here on are after the end of the history.
    pub ends: Option<i64>,
}

impl Source for Wave {
    fn read(&mut self, window: &Window, rows: RowRule) -> Result<Reading, SourceError> {
        let start = window.start().timestamp();
        let (first, last) = rows.bounds(window);
        let minute = 60_000_000;
        let times: Vec<i64> = if self.empty.contains(&start) {
            Vec::new()
        } else {
            (first.div_euclid(minute)..=last.div_euclid(minute))
                .map(|n| n * minute)
                .filter(|time| (first..=last).contains(time))
                .collect()
        };
        let frames = tags()
            .components
            .into_iter()
            .map(|component| {
                let absent = component.name == "hall" && self.without_hall.contains(&start);
                let times = if absent { Vec::new() } else { times.clone() };
                let columns = component
                    .signals
                    .iter()
                    .enumerate()
                    .map(|(at, name)| Column {
                        name: name.clone(),
                        values: Values::F64(
                            times
                                .iter()
                                .map(|time| (*time / minute % 10_007) as f64 / 7.0 + at as f64)
                                .collect(),
                        ),
                    })
                    .collect();
                Frame {
                    component: component.name,
                    times,
                    columns,
                }
            })
            .collect();
        Ok(Reading {
            frames,
            expected_rows: Some(5),
            duplicates: 0,
            infinite: 0,
            words: 0,
            bad: 0,
            position: None,
            ended: self.ends.is_some_and(|ends| start >= ends),
        })
    }
}

/// The tag list of the small plant: three components.
pub fn tags() -> TagList {
    TagList::parse(TAGS.as_bytes(), "tags.csv").expect("a tag list")
}

/// Keys and bytes.
pub type Objects = BTreeMap<String, Vec<u8>>;

impl Wave {
    /// What the bucket must hold for these windows.
    pub fn objects(&self, windows: impl IntoIterator<Item = Window>) -> Objects {
        let mut source = self.clone();
        let mut objects = Objects::new();
        for window in windows {
            let reading = source
                .read(&window, RowRule::Service)
                .expect("a wave has no faults");
            objects.append(&mut objects_of(&reading.frames, &window));
        }
        objects
    }
}

/// What the bucket must hold of a window with these frames: a component without rows has a file with empty cells at the times of
/// those that have most, unless none has rows.
pub fn objects_of(frames: &[Frame], window: &Window) -> Objects {
    let longest = frames.iter().max_by_key(|frame| frame.rows());
    let times = longest.map_or(&[][..], |frame| &frame.times);
    let mut objects = Objects::new();
    for frame in frames.iter().filter(|_| !times.is_empty()) {
        let mut bytes = Vec::new();
        if frame.rows() > 0 {
            frame.encode_csv(&mut bytes);
        } else {
            frame.blank_at(times).encode_csv(&mut bytes);
        }
        let name = NameFormat::default().file_name(&frame.component, window.start());
        objects.insert(format!("{PREFIX}{name}"), bytes);
    }
    objects
}

/// Whether an input file has no value.
pub fn is_blank(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).expect("a CSV");
    let mut cells = text
        .lines()
        .skip(1)
        .flat_map(|line| line.split(',').skip(1));
    cells.all(str::is_empty)
}

/// A PT5M window.
pub fn window(start: &str) -> Window {
    Window::new(at(start), Cadence::Pt5m).expect("a window")
}

/// A time, UTC.
pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// The PT5M windows from `first` on.
pub fn windows(first: &str, count: i64) -> Vec<Window> {
    (0..count).map(|n| window(first).offset(n)).collect()
}

/// A new directory, in memory where possible.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).expect("a directory")
    } else {
        tempfile::tempdir().expect("a directory")
    }
}

/// An embedded store behind a fault proxy, on a thread of its own.
pub struct Store {
    pub root: PathBuf,
    pub keys: KeyPair,
    pub proxy: Proxy,
    /// Behind the listener.
    pub store: lookoutd::store::Store,
    directory: TempDir,
    stop: CancellationToken,
}

impl Store {
    pub fn start() -> Store {
        let directory = directory();
        let root = directory.path().join("s3");
        let stop = CancellationToken::new();
        let keys = KeyPair::load_or_create(directory.path()).expect("a key pair");
        let (sender, receiver) = mpsc::channel();
        let (thread_root, thread_keys, thread_stop) = (root.clone(), keys.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listen = SocketAddr::from(([127, 0, 0, 1], 0));
                let server =
                    EmbeddedS3::start(&thread_root, listen, &thread_keys, thread_stop.clone())
                        .await
                        .expect("an embedded store");
                server.create_bucket(BUCKET).expect("a bucket");
                let url = server.endpoint_url();
                let backend = url.trim_start_matches("http://").parse().expect("address");
                let proxy = Proxy::start(backend, client(&url, &thread_keys)).await;
                let store = server.store().clone();
                sender.send((proxy, store)).expect("the test waits");
                thread_stop.cancelled().await;
            });
        });
        let (proxy, store) = receiver.recv().expect("the store's thread");
        Store {
            root,
            keys,
            proxy,
            store,
            directory,
            stop,
        }
    }

    /// The bucket through the proxy, with a client that is quick to give up and never retries.
    pub fn bucket(&self) -> Bucket {
        Bucket::new(client(&self.proxy.endpoint(), &self.keys), BUCKET)
    }

    /// What the input prefix holds now, without the start-up probe's object.
    pub fn objects(&self) -> Objects {
        let mut objects = self.store.contents(BUCKET).expect("a bucket");
        objects.retain(|key, _| !key.contains("_lookoutd/"));
        objects
    }

    /// The objects of the one window that starts at `start`.
    pub fn objects_of(&self, start: &str) -> Objects {
        let stamp = at(start).format("%Y%m%d%H%M%S").to_string();
        let mut objects = self.objects();
        objects.retain(|key, _| key.contains(&stamp));
        objects
    }

    /// Puts an object there as somebody else would.
    pub fn place(&self, key: &str, bytes: &[u8]) {
        self.store
            .put_blocking(BUCKET, key, bytes)
            .expect("an object");
    }

    /// The key pair as an AWS shared-credentials file.
    pub fn credentials(&self) -> PathBuf {
        self.directory.path().join("credentials")
    }

    /// A directory that lives as long as the store, for data directories.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Every object of a bucket in a store that another process has or had, without the start-up probe's.
pub fn stored(root: &Path, bucket: &str) -> Objects {
    let contents = lookoutd::store::export::Contents::open(root).expect("a store");
    let keys = contents.keys(bucket).expect("a bucket");
    let keys = keys.into_iter().filter(|key| !key.contains("_lookoutd/"));
    keys.map(|key| {
        let bytes = contents.read(bucket, &key).expect("an object");
        (key, bytes)
    })
    .collect()
}

/// Every file below a directory.
pub fn objects_under(bucket: &Path) -> Objects {
    let mut objects = Objects::new();
    let mut left = vec![bucket.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let key = path.strip_prefix(bucket).expect("a key");
            let key = key.to_string_lossy().into_owned();
            if !key.contains("_lookoutd/") {
                objects.insert(key, std::fs::read(&path).expect("an object"));
            }
        }
    }
    objects
}

/// A client that reports the first error, after two seconds at most.
pub fn client(endpoint: &str, keys: &KeyPair) -> Client {
    Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::from_keys(
                &keys.access_key,
                &keys.secret_key,
                None,
            ))
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(1))
                    .operation_attempt_timeout(Duration::from_secs(2))
                    .build(),
            )
            .build(),
    )
}

/// What a feeder is started with; change what a test is about.
pub struct Rig {
    pub config: Config,
    pub source: Wave,
    pub clock: Clock,
    pub disk: Arc<dyn Disk>,
    pub data_dir: PathBuf,
    pub bucket: Bucket,
}

/// A running feeder; it stops when told to, or is aborted when dropped.
pub struct Running {
    pub feeder: Feeder,
    pub clock: Clock,
    stop: CancellationToken,
}

impl Rig {
    /// Defaults: backfill, no free-space limit, a manual clock at `now`.
    pub fn new(store: &Store, data_dir: &str, now: &str) -> Rig {
        Rig {
            config: feed_config(),
            source: Wave::default(),
            clock: Clock::manual(at(now)),
            disk: Arc::new(LocalDisk),
            data_dir: store.scratch(data_dir),
            bucket: store.bucket(),
        }
    }

    pub async fn start(self) -> Running {
        let stop = CancellationToken::new();
        let clock = self.clock.clone();
        let feeder = Feeder::start(
            Parts {
                asset: Default::default(),
                vitals: Default::default(),
                config: self.config,
                naming: NameFormat::default(),
                prefix: PREFIX.to_owned(),
                data_dir: self.data_dir,
                tags: tags(),
                source: Box::new(self.source),
                bucket: self.bucket,
                clock: self.clock,
                disk: self.disk,
            },
            stop.clone(),
        )
        .await
        .expect("a feeder");
        Running {
            feeder,
            clock,
            stop,
        }
    }
}

/// Backfill, no free-space limit.
pub fn feed_config() -> Config {
    Config {
        catch_up: CatchUp::Backfill,
        min_free: lookoutd::config::ByteSize(0),
        ..Config::default()
    }
}

impl Running {
    /// Waits until the live window is recorded and nothing is left to cut or ship.
    pub async fn settle(&self) {
        let view = self.feeder.view();
        let settled = async {
            while !view.is_settled(self.clock.now()).await.expect("a ledger") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, settled).await.is_err() {
            panic!("not settled in {PATIENCE:?}: {:#?}", view.recent(20));
        }
    }

    /// Waits until `done` holds of the newest entries.
    pub async fn until(&self, what: &str, done: impl Fn(&[Entry]) -> bool) {
        let view = self.feeder.view();
        let begun = Instant::now();
        while !done(&view.recent(500).expect("a ledger")) {
            if begun.elapsed() > PATIENCE {
                panic!("not in {PATIENCE:?}: {what}: {:#?}", view.recent(20));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends as it does before a new configuration is put in place.
    pub async fn hand_over(mut self) {
        self.stop.cancel();
        self.feeder.finish().await;
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        self.feeder.drain(Duration::from_secs(5)).await;
    }
}

/// The states of a data directory's windows, oldest first.
pub fn states(data_dir: &Path) -> Vec<(String, State)> {
    let ledger = Ledger::open_existing(data_dir)
        .expect("a ledger")
        .expect("it exists");
    let mut entries = ledger.list(100_000).expect("its entries");
    entries.reverse();
    entries
        .into_iter()
        .map(|entry| {
            (
                entry.start.format("%Y-%m-%dT%H:%M").to_string(),
                entry.state,
            )
        })
        .collect()
}

/// How long a removal that was under way when a feeder was stopped may go on: threads that block are not waited for.
const REMOVED: Duration = Duration::from_secs(10);

/// Nothing waits in the spool, and nothing is half-written there.
#[track_caller]
pub fn assert_spool_is_empty(data_dir: &Path) {
    let since = std::time::Instant::now();
    loop {
        let left: Vec<_> = std::fs::read_dir(data_dir.join("spool"))
            .expect("a spool")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(since.elapsed() < REMOVED, "left in the spool: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Bucket and expectation are equal, key by key and byte by byte.
#[track_caller]
pub fn assert_same(found: &Objects, expected: &Objects) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (key, bytes) in expected {
        assert!(found[key] == *bytes, "{key} has other bytes");
    }
}
