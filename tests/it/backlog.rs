//! What a backlog costs: each window of it as much as the first, whatever waits behind it.
//!
//! `LOOKOUTD_FULL=1` also drains a month of a plant with thirty components and prints how long it took, how late the live
//! windows were meanwhile, and the most memory the feeder had.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::TimeDelta;
use lookoutd::feed::State;
use lookoutd::feed::disk::{Disk, LocalDisk};

use crate::proxy::{Fault, Rule};
use crate::rig::*;

mod month;

const START: &str = "2026-01-01T00:05:00Z";

/// A disk that counts what is looked at.
#[derive(Default)]
struct CountingDisk {
    reads: AtomicU64,
    lists: AtomicU64,
}

impl Disk for CountingDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.append(path, bytes)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        LocalDisk.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove_dir(path)
    }
    fn free(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.free(path)
    }
}

/// Reads and listings of draining a backlog of so many windows.
async fn cost(windows: i64) -> (u64, u64) {
    let store = Store::start();
    let disk = Arc::new(CountingDisk::default());
    let mut rig = Rig {
        disk: disk.clone(),
        ..Rig::new(&store, "data", START)
    };
    rig.config.drain_per_minute = u32::MAX;
    let running = rig.start().await;
    running.settle().await;
    store.proxy.refuse();
    running.clock.advance(TimeDelta::minutes(5 * (windows - 1)));
    running.feeder.tick();
    running
        .until("sealed", |entries| {
            let spooled = entries.iter().filter(|entry| entry.state == State::Spooled);
            spooled.count() as i64 == windows - 1
        })
        .await;
    let before = (
        disk.reads.load(Ordering::SeqCst),
        disk.lists.load(Ordering::SeqCst),
    );
    store.proxy.listen();
    // A new window is worth an attempt, and ends the outage.
    running.clock.advance(TimeDelta::minutes(5));
    running.feeder.tick();
    running
        .until("drained", |entries| {
            let shipped = entries.iter().filter(|entry| entry.state == State::Shipped);
            shipped.count() as i64 == windows + 1
        })
        .await;
    let after = (
        disk.reads.load(Ordering::SeqCst),
        disk.lists.load(Ordering::SeqCst),
    );
    running.stop().await;
    assert_eq!(store.objects().len() as i64, 3 * (windows + 1));
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test]
async fn windows_of_a_backlog_that_are_sealed_make_nobody_ask_a_store_that_is_away() {
    const MISSED: i64 = 120;
    let store = Store::start();
    let mut rig = Rig::new(&store, "data", START);
    rig.config.drain_per_minute = u32::MAX;
    let running = rig.start().await;
    running.settle().await;
    store.proxy.refuse();
    running.clock.advance(TimeDelta::minutes(5 * MISSED));
    running.feeder.tick();
    let asked = AtomicU64::new(0);
    running
        .until("sealed", |entries| {
            let spooled = entries.iter().filter(|entry| entry.state == State::Spooled);
            asked.store(entries[0].attempts.into(), Ordering::SeqCst);
            spooled.count() as i64 == MISSED
        })
        .await;
    // What its own pauses allow, from half a second on and twice as long after each, while 120 windows were sealed.
    let asked = asked.into_inner();
    assert!(asked <= 12, "{asked} attempts for the live window");
    store.proxy.listen();
    running.settle().await;
    running.stop().await;
    assert_eq!(store.objects().len() as i64, 3 * (MISSED + 1));
}

#[tokio::test]
async fn windows_of_a_backlog_that_are_sealed_make_nobody_ask_a_store_that_was_never_met() {
    const MISSED: i64 = 120;
    let store = Store::start();
    let mut rig = Rig::new(&store, "data", START);
    rig.config.drain_per_minute = u32::MAX;
    store
        .proxy
        .inject(Rule::any(100_000, Fault::Answer(503, "SlowDown")));
    let running = rig.start().await;
    running.clock.advance(TimeDelta::minutes(5 * MISSED));
    running.feeder.tick();
    running
        .until("sealed", |entries| {
            let spooled = entries.iter().filter(|entry| entry.state == State::Spooled);
            spooled.count() as i64 > MISSED
        })
        .await;
    let asked = store.proxy.seen().len();
    assert!(asked <= 12, "{asked} requests before the store was met");
    store.proxy.heal();
    running.settle().await;
    running.stop().await;
    assert_eq!(store.objects().len() as i64, 3 * (MISSED + 1));
}

#[tokio::test]
async fn a_window_of_a_backlog_costs_the_same_reads_however_long_it_is() {
    let (short, long) = (cost(40).await, cost(160).await);
    // A manifest and three files for each window; what failed while the store was away is read once more.
    for (windows, (reads, _)) in [(40, short), (160, long)] {
        let fair = 4 * windows..=4 * windows + 40;
        assert!(
            fair.contains(&reads),
            "{windows} windows took {reads} reads"
        );
    }
    // Looked through when nothing waits any more, and while it idles; never per window.
    assert!(
        short.1 <= 4 && long.1 <= 4,
        "the spool was listed {} and {} times",
        short.1,
        long.1
    );
}
