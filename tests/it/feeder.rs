//! The feeder between its ends: components without values, windows of a downtime that are wanted after all, hands that change
//! the ledger beside it, and one feeder that begins where another ends.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use lookoutd::feed::disk::{Disk, LocalDisk};
use lookoutd::feed::{Blank, CatchUp, Config, Spool, State, recover};

use crate::errors::Errors;
use crate::proxy::{Fault, Rule};
use crate::rig::*;
use crate::time::Desk;

const NOW: &str = "2026-01-01T00:07:30Z";
const START: &str = "2026-01-01T00:05:00Z";

#[tokio::test]
async fn a_component_without_a_value_is_named_and_has_a_file_unless_that_is_to_be_left_out() {
    let _errors = Errors::watch();
    for blank in [Blank::Write, Blank::Omit] {
        let store = Store::start();
        let start = window(START);
        let source = Wave {
            without_hall: vec![start.start().timestamp()],
            ..Wave::default()
        };
        let mut rig = Rig {
            source: source.clone(),
            ..Rig::new(&store, "data", NOW)
        };
        rig.config.blank = blank;
        let running = rig.start().await;
        running.settle().await;
        let entries = running.feeder.view().recent(10).unwrap();
        running.stop().await;
        let files = if blank == Blank::Write { 3 } else { 2 };
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].state, State::Partial);
        assert_eq!((entries[0].files, entries[0].components), (files, 3));
        assert_eq!(entries[0].blank, ["hall"]);
        assert_eq!(entries[0].reason.as_deref(), Some("no value of hall"));
        let mut expected = source.objects([start]);
        let hall = format!("{PREFIX}hall_20260101000500.csv");
        assert!(is_blank(&expected[&hall]));
        if blank == Blank::Omit {
            expected.remove(&hall);
        }
        assert_same(&store.objects(), &expected);
    }
}

#[tokio::test]
async fn windows_of_a_downtime_are_cut_with_their_own_rows_when_they_are_wanted_after_all() {
    let _errors = Errors::watch();
    let directory = directory();
    let config = Config {
        catch_up: CatchUp::Skip,
        ..feed_config()
    };
    let mut desk = Desk::open(directory.path(), &config, "2026-01-01T00:00:10Z");
    desk.tick().await;
    drop(desk);
    let mut desk = Desk::open(directory.path(), &config, "2026-01-01T02:00:10Z");
    desk.tick().await;
    assert_eq!(desk.entries()[1].reason.as_deref(), Some("downtime"));
    assert_eq!(desk.sealed().len(), 6);
    // The first, one within, the last.
    let wanted = [
        "2026-01-01T00:05:00Z",
        "2026-01-01T01:00:00Z",
        "2026-01-01T01:55:00Z",
    ];
    for start in wanted {
        let window = window(start);
        let reopened = desk.ledger.reopen(window.start(), window.end(), "wanted");
        assert_eq!(reopened.unwrap(), 1);
    }
    desk.tick().await;
    let all = ["2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z"];
    let cut = wanted.iter().chain(&all).map(|start| window(start));
    assert_same(&desk.sealed(), &Wave::default().objects(cut));
    let skipped = desk
        .entries()
        .iter()
        .filter(|e| e.state == State::Skipped)
        .count();
    assert_eq!(skipped, 2, "the rest of the downtime stays skipped");
}

#[tokio::test]
async fn what_is_given_up_during_its_upload_stays_given_up_and_its_files_are_set_aside() {
    let errors = Errors::watch();
    let store = Store::start();
    store.proxy.inject(Rule::puts(
        "hall",
        1,
        Fault::Slow(Duration::from_millis(800)),
    ));
    let rig = Rig::new(&store, "data", NOW);
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    running
        .until("sealed", |entries| {
            entries.len() == 1 && entries[0].state == State::Spooled
        })
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // As `lookoutd windows skip` does it, beside the daemon.
    let ledger = lookoutd::feed::Ledger::open_existing(&data_dir)
        .unwrap()
        .unwrap();
    let spool = Spool::attach(Arc::new(LocalDisk), &data_dir);
    let window = window(START);
    let moved = ledger.transition(&window, State::Spooled, State::Skipped, Some("not wanted"));
    assert!(moved.unwrap());
    assert!(spool.quarantine(&window).unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let entry = ledger.get(window.start()).unwrap().unwrap();
    assert_eq!(
        (entry.state, entry.reason.as_deref()),
        (State::Skipped, Some("not wanted"))
    );
    running.stop().await;
    assert!(objects_under(&data_dir.join("spool")).is_empty());
    assert_eq!(objects_under(&data_dir.join("quarantine")).len(), 4);
    drop(errors);
}

#[test]
fn what_was_given_up_before_a_crash_is_set_aside_at_the_next_start() {
    let directory = directory();
    let now = at(NOW);
    let (ledger, _) = lookoutd::feed::Ledger::open(directory.path(), now).unwrap();
    let spool = Spool::open(Arc::new(LocalDisk), directory.path()).unwrap();
    let window = window(START);
    spool
        .seal(&window, 1, Default::default(), Vec::new(), now)
        .unwrap();
    assert_eq!(recover(&spool, &ledger).unwrap().adopted, 1);
    let moved = ledger.transition(&window, State::Spooled, State::Skipped, Some("not wanted"));
    assert!(moved.unwrap());
    // The command was killed before it moved the files.
    assert_eq!(recover(&spool, &ledger).unwrap().aside, 1);
    assert!(spool.windows().unwrap().is_empty());
    let entry = ledger.get(window.start()).unwrap().unwrap();
    assert_eq!(entry.state, State::Skipped);
}

/// A disk on which everything that makes durable takes a while, as on an SD card; it counts what is under way and done.
#[derive(Default)]
struct SlowDisk {
    under_way: AtomicU64,
    done: AtomicU64,
}

impl SlowDisk {
    fn slowly<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(60));
        let outcome = work();
        self.done.fetch_add(1, Ordering::SeqCst);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        outcome
    }
}

impl Disk for SlowDisk {
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.write(path, bytes)
    }
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        LocalDisk.append(path, bytes)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.slowly(|| LocalDisk.sync(path))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.slowly(|| LocalDisk.sync_dir(path))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        LocalDisk.read(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        LocalDisk.list(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.slowly(|| LocalDisk.remove(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.slowly(|| LocalDisk.remove_dir(path))
    }
    fn free(&self, path: &Path) -> io::Result<u64> {
        LocalDisk.free(path)
    }
}

#[tokio::test]
async fn a_feeder_begins_where_another_ends_whatever_that_is_doing_to_the_disk() {
    let _errors = Errors::watch();
    let store = Store::start();
    let disk = Arc::new(SlowDisk::default());
    let mut now = at(NOW);
    // Handed over in the middle of a seal, of a removal, and of nothing.
    for pause in [100, 180, 260, 340, 420, 500, 900] {
        let rig = Rig {
            disk: disk.clone(),
            clock: lookoutd::clock::Clock::manual(now),
            ..Rig::new(&store, "data", NOW)
        };
        let running = rig.start().await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        running.hand_over().await;
        assert_eq!(disk.under_way.load(Ordering::SeqCst), 0, "after {pause} ms");
        let done = disk.done.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(disk.done.load(Ordering::SeqCst), done, "after {pause} ms");
        now += TimeDelta::minutes(5);
    }
    let rig = Rig {
        disk: disk.clone(),
        clock: lookoutd::clock::Clock::manual(now),
        ..Rig::new(&store, "data", NOW)
    };
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    running.settle().await;
    running.stop().await;
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows(START, 8)),
    );
    assert_spool_is_empty(&data_dir);
}

#[test]
fn what_a_disk_takes_is_counted_in_blocks_and_inodes() {
    let directory = directory();
    let spool = Spool::open(Arc::new(LocalDisk), directory.path()).unwrap();
    let room = spool.room().unwrap();
    assert!(room.bytes > 0 && room.block.is_power_of_two());
    let room = lookoutd::feed::disk::Room {
        bytes: 4096 * 1000,
        files: None,
        block: 4096,
    };
    // 24 files of 200 bytes take 24 blocks, their list two, and the directory one.
    assert_eq!(room.windows(24, 4_800, 0), 1000 / 27);
    assert_eq!(room.windows(24, 4_800, 4096 * 460), 20);
    let few = lookoutd::feed::disk::Room {
        files: Some(260),
        ..room
    };
    assert_eq!(few.windows(24, 4_800, 0), 10);
}

#[test]
fn windows_are_shown_retried_and_given_up_one_or_many_at_a_time() {
    use crate::commands::{run, show, succeed, text};
    let directory = directory();
    let data_dir = directory.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let (ledger, _) = lookoutd::feed::Ledger::open(&data_dir, at(NOW)).unwrap();
    let day = windows("2026-01-01T00:00:00Z", 288);
    let skipped = lookoutd::feed::Due {
        live: Some(day[100]),
        backlog: None,
        skipped: Some((day[0].start(), day[100].start(), "downtime")),
    };
    ledger.plan(&skipped).unwrap();
    for (n, state) in [
        (100, State::Shipped),
        (101, State::Quarantined),
        (102, State::Empty),
    ] {
        let entry = lookoutd::feed::Entry::new(&day[n], state);
        assert!(ledger.record(&entry).unwrap());
    }
    drop(ledger);
    let windows = |arguments: &[&str]| {
        let mut all = vec!["windows"];
        all.extend(arguments);
        all.extend(["--data-dir", show(&data_dir)]);
        all.iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<String>>()
    };
    let ok = |arguments: &[&str]| {
        let all = windows(arguments);
        succeed(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |arguments: &[&str]| {
        let all = windows(arguments);
        let output = run(&all.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!output.status.success(), "{arguments:?}");
        text(&output)
    };
    let within = "2026-01-01T03:00:00Z";
    let shown = ok(&["show", within]);
    assert!(
        shown.contains("downtime") && shown.contains("windows retry"),
        "{shown}"
    );
    assert!(ok(&["retry", within]).contains("will be cut again"));
    assert!(ok(&["show", within]).contains("due"));
    assert!(refused(&["retry", within]).contains("nothing to retry"));
    assert!(refused(&["show", "2026-01-02T00:00:00Z"]).contains("no window is recorded"));
    // An hour of the downtime, then what is set aside or empty wherever it is.
    let hour = [
        "--from",
        "2026-01-01T05:00:00Z",
        "--to",
        "2026-01-01T06:00:00Z",
    ];
    let said = ok(&[
        "retry", hour[0], hour[1], hour[2], hour[3], "--state", "skipped",
    ]);
    assert!(said.contains("12 windows will be cut again"), "{said}");
    let said = ok(&["retry", "--from", "2026-01-01T08:20:00Z"]);
    assert!(said.contains("2 windows will be cut again"), "{said}");
    assert!(refused(&["retry", "--state", "shipped"]).contains("nothing to retry"));
    // Given up again.
    let said = ok(&[
        "skip",
        hour[0],
        hour[1],
        hour[2],
        hour[3],
        "--reason",
        "not wanted",
    ]);
    assert!(said.contains("12 windows are skipped"), "{said}");
    let ledger = lookoutd::feed::Ledger::open_existing(&data_dir)
        .unwrap()
        .unwrap();
    let census = ledger.census().unwrap();
    assert_eq!((census.due, census.shipped, census.quarantined), (3, 1, 0));
    // Three ranges are left of the downtime, and twelve windows with a reason of their own.
    assert_eq!(census.skipped, 15);
}
