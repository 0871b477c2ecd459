//! Crashes: a child process is killed with SIGKILL at every durable step of a window's life, before and after every
//! request to the store, and at random moments under load. After a restart, with no manual step, nothing that was sealed is
//! lost, nothing is doubled, and the bytes are those of a run that was never disturbed.
//!
//! The child is this test binary, started again with a test filter: it runs a feeder on the small plant, whose samples
//! are a function of the wall time, against the parent's store. Its disk kills its own process at the n-th operation. Time goes
//! on over restarts: the parent passes the time to start with. `lookoutd demo` and `run` would not do here: the one begins
//! its accelerated clock at the machine's time again after each start, the other needs five minutes for a window.
//! `LOOKOUTD_FULL=1` kills after each operation too, kills restarts as well, and takes 200 random moments instead of 10.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use lookoutd::clock::Clock;
use lookoutd::embedded::KeyPair;
use lookoutd::feed::State;
use lookoutd::feed::disk::{Disk, LocalDisk};
use lookoutd::s3::Bucket;
use lookoutd::signal::{Cadence, Window};
use serde::{Deserialize, Serialize};

use crate::errors::Errors;
use crate::proxy::{Fault, Rule};
use crate::rig::*;

const SPEC: &str = "LOOKOUTD_CRASH_CHILD";
/// The window before the one that crashes, the one that crashes, and the one after.
const BEFORE: &str = "2026-01-01T00:05:00Z";
const CRASHING: &str = "2026-01-01T00:10:00Z";
const AFTER: &str = "2026-01-01T00:15:00Z";

/// What the child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Spec {
    data_dir: PathBuf,
    endpoint: String,
    access_key: String,
    secret_key: String,
    now: chrono::DateTime<chrono::Utc>,
    /// 0: a manual clock, and the child ends when the window is settled.
    speed: f64,
    /// The operation to die at, counted from 1; 0: none.
    die_at: i64,
    /// Die when it is done instead of before.
    die_after: bool,
}

/// A disk that counts what it changes and kills the process at one of these operations.
struct DeadlyDisk {
    left: AtomicI64,
    after: bool,
    counted: AtomicI64,
}

impl DeadlyDisk {
    fn at<T>(&self, work: impl FnOnce() -> T) -> T {
        self.counted.fetch_add(1, Ordering::SeqCst);
        let last = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if last && !self.after {
            die();
        }
        let done = work();
        if last {
            die();
        }
        done
    }
}

/// SIGKILL, as the kernel's out-of-memory killer or a power switch would: no destructor runs.
fn die() -> ! {
    let me = std::process::id().to_string();
    // The shell is not needed: kill is a program of its own.
    drop(Command::new("kill").args(["-9", &me]).status());
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

impl Disk for DeadlyDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // The first half of a write that was cut short is what a crash leaves.
        self.at(|| LocalDisk.write(path, &bytes[..bytes.len() / 2]))?;
        LocalDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        self.at(|| LocalDisk.append(path, first))?;
        LocalDisk.append(path, rest)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.at(|| LocalDisk.sync(path))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.at(|| LocalDisk.create_dir(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.at(|| LocalDisk.rename(from, to))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.at(|| LocalDisk.sync_dir(path))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.at(|| LocalDisk.remove(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.at(|| LocalDisk.remove_dir(path))
    }
    fn free(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.free(path)
    }
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
    let disk = Arc::new(DeadlyDisk {
        left: AtomicI64::new(spec.die_at),
        after: spec.die_after,
        counted: AtomicI64::new(0),
    });
    let clock = if spec.speed > 0.0 {
        Clock::accelerated(spec.now, spec.speed)
    } else {
        Clock::manual(spec.now)
    };
    let running = Rig {
        config: feed_config(),
        source: Wave::default(),
        clock,
        disk: disk.clone(),
        data_dir: spec.data_dir.clone(),
        bucket: Bucket::new(client(&spec.endpoint, &keys), BUCKET),
    }
    .start()
    .await;
    if spec.speed > 0.0 {
        // Until it is killed.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    running.settle().await;
    running.stop().await;
    let counted = disk.counted.load(Ordering::SeqCst);
    std::fs::write(spec.data_dir.join("counted"), counted.to_string()).expect("the count");
}

fn launch(spec: &Spec) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["crash::child", "--exact", "--test-threads=1"])
        .env(SPEC, serde_json::to_string(spec).expect("a spec"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts")
}

fn spec(store: &Store, data_dir: &str) -> Spec {
    Spec {
        data_dir: store.scratch(data_dir),
        endpoint: store.proxy.endpoint(),
        access_key: store.keys.access_key.clone(),
        secret_key: store.keys.secret_key.clone(),
        now: at(CRASHING),
        speed: 0.0,
        die_at: 0,
        die_after: false,
    }
}

fn full() -> bool {
    crate::skipped::full("kills after each operation and of restarts, 190 of 200 random moments")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

/// A window goes through undisturbed, so that the ledger has a past.
fn prepare(store: &Store) {
    block_on(async {
        let running = Rig::new(store, "data", BEFORE).start().await;
        running.settle().await;
        running.stop().await;
    });
}

/// Restarts five minutes later, with nothing in the way, and checks that nothing is missing or doubled.
fn recover_and_check(store: &Store, what: &str) {
    block_on(async {
        let _errors = Errors::watch();
        let running = Rig::new(store, "data", AFTER).start().await;
        running.settle().await;
        running.stop().await;
    });
    let data_dir = store.scratch("data");
    let found: Vec<_> = states(&data_dir)
        .into_iter()
        .map(|(_, state)| state)
        .collect();
    assert_eq!(found, [State::Shipped; 3], "{what}");
    assert_spool_is_empty(&data_dir);
    assert!(
        std::fs::read_dir(data_dir.join("quarantine"))
            .expect("a quarantine")
            .next()
            .is_none(),
        "{what}: something was set aside"
    );
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows(BEFORE, 3)),
    );
}

/// Runs the cases a few at a time: the machine has few cores, and each case waits for its disk and its store.
fn in_parallel<T: Send>(cases: Vec<T>, work: impl Fn(T) + Sync) {
    let cases = std::sync::Mutex::new(cases.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let next = cases.lock().expect("the cases").next();
                    let Some(case) = next else { return };
                    work(case);
                }
            });
        }
    });
}

#[test]
fn killed_at_every_durable_step_of_a_window_nothing_is_lost_or_doubled() {
    let count: i64 = {
        let store = Store::start();
        prepare(&store);
        let spec = spec(&store, "data");
        assert!(launch(&spec).wait().expect("the child").success());
        recover_and_check(&store, "undisturbed");
        std::fs::read_to_string(spec.data_dir.join("counted"))
            .expect("the count")
            .parse()
            .expect("a number")
    };
    assert!(count >= 15, "a window's life has only {count} operations");
    let mut cases: Vec<(i64, bool)> = (1..=count).map(|n| (n, false)).collect();
    if full() {
        cases.extend((1..=count).map(|n| (n, true)));
    }
    in_parallel(cases, |(die_at, die_after)| {
        let store = Store::start();
        prepare(&store);
        let spec = Spec {
            die_at,
            die_after,
            ..spec(&store, "data")
        };
        let status = launch(&spec).wait().expect("the child");
        assert_eq!(
            status.signal(),
            Some(9),
            "operation {die_at} was not reached"
        );
        if full() {
            // The restart dies too, a little later in its own life.
            let again = Spec {
                die_at: die_at / 2 + 3,
                ..spec.clone()
            };
            launch(&again).wait().expect("the child");
        }
        recover_and_check(&store, &format!("operation {die_at}, after: {die_after}"));
    });
}

#[test]
fn killed_before_and_after_every_request_to_the_store_nothing_is_lost_or_doubled() {
    // The probe's request and one for each file.
    let cases: Vec<(usize, bool)> = (0..4).flat_map(|n| [(n, false), (n, true)]).collect();
    in_parallel(cases, |(request, after)| {
        let store = Store::start();
        prepare(&store);
        let victim = Arc::new(AtomicI64::new(0));
        let pid = victim.clone();
        let kill: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            // The child may be quicker than the parent's note of its number.
            while pid.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let pid = pid.load(Ordering::SeqCst).to_string();
            drop(Command::new("kill").args(["-9", &pid]).status());
        });
        let fault = if after {
            Fault::After(kill)
        } else {
            Fault::Before(kill)
        };
        store.proxy.inject(Rule::any(1, fault).after(request));
        let mut child = launch(&spec(&store, "data"));
        victim.store(i64::from(child.id()), Ordering::SeqCst);
        let status = child.wait().expect("the child");
        assert_eq!(
            status.signal(),
            Some(9),
            "request {request} was not reached"
        );
        assert_eq!(store.proxy.pending(), 0);
        recover_and_check(&store, &format!("request {request}, after: {after}"));
    });
}

#[test]
fn killed_at_random_moments_under_load_nothing_is_lost_or_doubled() {
    let rounds = if full() { 200 } else { 10 };
    let seed = std::env::var("LOOKOUTD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("LOOKOUTD_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let store = Store::start();
    // A window every 0.3 s.
    let speed = 1_000.0;
    let begin = at(BEFORE);
    let mut now = begin;
    let data_dir = store.scratch("data");
    for _ in 0..rounds {
        let started = tokio::time::Instant::now();
        let mut child = launch(&Spec {
            now,
            speed,
            ..spec(&store, "data")
        });
        if random.u8(..4) == 0 {
            store.proxy.inject(Rule::puts("", 2, Fault::CutAfter));
        }
        std::thread::sleep(Duration::from_millis(random.u64(100..1_200)));
        child.kill().expect("SIGKILL");
        child.wait().expect("the child");
        now += TimeDelta::microseconds((started.elapsed().as_secs_f64() * speed * 1e6) as i64);
    }
    store.proxy.heal();
    block_on(async {
        let _errors = Errors::watch();
        let mut rig = Rig::new(&store, "data", BEFORE);
        rig.clock = Clock::manual(now);
        rig.config.drain_per_minute = 6_000;
        let running = rig.start().await;
        running.settle().await;
        running.stop().await;
    });
    let recorded = states(&data_dir);
    let odd: Vec<_> = recorded
        .iter()
        .filter(|(_, state)| *state != State::Shipped)
        .collect();
    assert!(odd.is_empty(), "{odd:?}");
    // From the first window that was ever recorded to the live one, each once.
    let first = at(&format!("{}:00Z", recorded[0].0));
    let mut expected = vec![Window::new(first, Cadence::Pt5m).expect("a window")];
    while expected[expected.len() - 1].end() <= now {
        expected.push(expected[expected.len() - 1].next());
    }
    assert_eq!(recorded.len(), expected.len(), "windows are missing");
    assert!(
        expected.len() > rounds,
        "only {} windows under load",
        expected.len()
    );
    assert_spool_is_empty(&data_dir);
    assert_same(&store.objects(), &Wave::default().objects(expected));
}
