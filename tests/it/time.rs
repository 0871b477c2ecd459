//! Time in every form: lost, late and doubled ticks, stepped clocks, a week at once, days on which local clocks change;
//! and what must survive time: the ledger, the mapping of recorded time, and the spool, each damaged in every way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{TimeDelta, Timelike};
use lookoutd::clock::Clock;
use lookoutd::config;
use lookoutd::daemon::Plant;
use lookoutd::feed::disk::{Disk, LocalDisk};
use lookoutd::feed::{CatchUp, Config, Cut, Cutter, Entry, Ledger, Publish, Spool, State, Vitals};
use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::signal::{Cadence, NameFormat, RowRule, Window};
use lookoutd::source::replay::AtEnd;
use tempfile::TempDir;

use crate::errors::Errors;
use crate::rig::*;

/// A cutter without a shipper, stepped by hand.
pub struct Desk {
    pub cutter: Cutter,
    pub ledger: Ledger,
    pub clock: Clock,
    pub directory: PathBuf,
}

impl Desk {
    /// A cutter on `directory` that starts at `now`.
    pub fn open(directory: &Path, config: &Config, now: &str) -> Desk {
        Desk::on(Arc::new(LocalDisk), directory, config, now)
    }

    /// The same on another disk.
    pub fn on(disk: Arc<dyn Disk>, directory: &Path, config: &Config, now: &str) -> Desk {
        let clock = Clock::manual(at(now));
        let (ledger, _) = Ledger::open(directory, at(now)).expect("a ledger");
        let spool = Spool::open(disk, directory).expect("a spool");
        lookoutd::feed::recover(&spool, &ledger).expect("a recovery");
        let cut = Cut {
            source: Box::new(Wave::default()),
            naming: NameFormat::default(),
            prefix: PREFIX.to_owned(),
            rows: config.rows,
            blank: config.blank,
            spool,
            ledger: ledger.clone(),
        };
        let pulse = Vitals::default().pulse("cutter", std::time::Duration::from_secs(60));
        let (wake, sealed) = (Arc::default(), Arc::default());
        Desk {
            cutter: Cutter::new(config, cut, clock.clone(), wake, sealed, pulse),
            ledger,
            clock,
            directory: directory.to_owned(),
        }
    }

    /// One tick: everything that is due is cut.
    pub async fn tick(&mut self) {
        while self.cutter.step().await.expect("a step") {}
    }

    /// What is recorded, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = self.ledger.list(1_000_000).expect("the entries");
        entries.reverse();
        entries
    }

    /// The input files in the spool, by their keys.
    pub fn sealed(&self) -> Objects {
        objects_under(&self.directory.join("spool"))
            .into_iter()
            .filter(|(path, _)| path.ends_with(".csv"))
            .map(|(path, bytes)| {
                let name = path.rsplit('/').next().expect("a name");
                (format!("{PREFIX}{name}"), bytes)
            })
            .collect()
    }
}

/// Entries that follow each other without a gap, all in one state.
#[track_caller]
fn assert_tiled(entries: &[Entry], state: State) {
    for pair in entries.windows(2) {
        assert_eq!(pair[0].end, pair[1].start, "a gap or an overlap");
    }
    let odd: Vec<_> = entries.iter().filter(|e| e.state != state).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

fn skip() -> Config {
    Config {
        catch_up: CatchUp::Skip,
        ..feed_config()
    }
}

#[tokio::test]
async fn a_week_of_lost_late_and_doubled_ticks_gives_every_window_once() {
    let _errors = Errors::watch();
    let directory = directory();
    // Even `skip` gives nothing up that was missed while the daemon ran.
    let mut desk = Desk::open(directory.path(), &skip(), "2026-01-01T00:00:00Z");
    let mut random = fastrand::Rng::with_seed(7);
    let end = at("2026-01-08T00:00:00Z");
    desk.tick().await;
    while desk.clock.now() < end {
        let step = match random.u8(..10) {
            // Several boundaries pass unnoticed.
            0 => random.i64(300..3_000),
            // Early, late, or right on the boundary.
            1..=5 => random.i64(1..300),
            _ => 300 - i64::from(desk.clock.now().minute() % 5 * 60 + desk.clock.now().second()),
        };
        desk.clock
            .advance_to((desk.clock.now() + TimeDelta::seconds(step)).min(end));
        for _ in 0..random.u8(1..3) {
            desk.tick().await;
        }
    }
    let entries = desk.entries();
    assert_eq!(entries.len(), 7 * 288 + 1);
    assert_tiled(&entries, State::Spooled);
    let expected = Wave::default().objects(windows("2026-01-01T00:00:00Z", 7 * 288 + 1));
    assert_same(&desk.sealed(), &expected);
}

#[tokio::test]
async fn a_clock_stepped_back_cuts_nothing_again_and_forth_again_misses_nothing() {
    let _errors = Errors::watch();
    for back in [TimeDelta::seconds(3), TimeDelta::hours(1)] {
        let directory = directory();
        let mut desk = Desk::open(directory.path(), &skip(), "2026-01-01T10:00:00Z");
        for _ in 0..24 {
            desk.tick().await;
            desk.clock.advance(TimeDelta::minutes(5));
        }
        desk.tick().await;
        let before = desk.entries();
        desk.clock.advance(-back);
        desk.tick().await;
        assert_eq!(desk.entries(), before, "stepped back by {back}");
        for _ in 0..=back.num_minutes() / 5 + 1 {
            desk.clock.advance(TimeDelta::minutes(5));
            desk.tick().await;
        }
        let entries = desk.entries();
        assert!(entries.len() > before.len());
        assert_tiled(&entries, State::Spooled);
    }
}

#[tokio::test]
async fn a_step_back_by_a_year_and_forth_again_is_no_burst() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut desk = Desk::open(directory.path(), &skip(), "2026-06-01T10:00:00Z");
    desk.tick().await;
    desk.clock.advance_to(at("2025-06-01T10:00:10Z"));
    desk.tick().await;
    desk.clock.advance(TimeDelta::minutes(5));
    desk.tick().await;
    desk.clock.advance_to(at("2026-06-01T10:10:00Z"));
    desk.tick().await;
    let starts: Vec<_> = desk.entries().iter().map(|e| e.start).collect();
    assert_eq!(
        starts,
        [
            "2025-06-01T10:00:00Z",
            "2025-06-01T10:05:00Z",
            "2026-06-01T10:00:00Z",
            "2026-06-01T10:05:00Z",
            "2026-06-01T10:10:00Z"
        ]
        .map(at)
    );
}

#[tokio::test]
async fn a_clock_that_was_ahead_and_is_put_right_costs_no_window() {
    let _errors = Errors::watch();
    for catch_up in [CatchUp::Skip, CatchUp::Backfill] {
        let directory = directory();
        let config = Config {
            catch_up,
            ..feed_config()
        };
        let mut desk = Desk::open(directory.path(), &config, "2026-01-01T10:00:10Z");
        desk.tick().await;
        // Two days ahead for some seconds.
        desk.clock.advance(TimeDelta::days(2));
        desk.tick().await;
        let ahead = desk.entries().len();
        assert!(ahead > 100, "{catch_up:?}: {ahead} records");
        desk.clock
            .advance(TimeDelta::seconds(20) - TimeDelta::days(2));
        desk.tick().await;
        let future: Vec<Entry> = desk
            .entries()
            .into_iter()
            .filter(|entry| entry.start > desk.clock.now())
            .collect();
        assert!(!future.is_empty());
        assert!(
            future.iter().all(|entry| entry.state == State::Spooled),
            "only what was sealed stays of a time to come: {future:?}"
        );
        // What is missed while the daemon runs, and in a downtime that is to be filled, is cut.
        desk.clock.advance_to(at("2026-01-01T11:00:10Z"));
        desk.tick().await;
        if catch_up == CatchUp::Backfill {
            drop(desk);
            desk = Desk::open(directory.path(), &config, "2026-01-01T11:55:10Z");
            desk.tick().await;
        }
        let now = desk.clock.now();
        let past: Vec<Entry> = desk
            .entries()
            .into_iter()
            .filter(|entry| entry.start <= now)
            .collect();
        assert_tiled(&past, State::Spooled);
        assert_eq!(past[0].start, at("2026-01-01T10:00:00Z"));
        assert!(past.last().unwrap().end > now);
        // Their time comes: they count, nothing is cut again, and what is missing between is not forgotten.
        let sealed = desk.sealed().len();
        desk.clock.advance_to(at("2026-01-03T10:10:10Z"));
        desk.tick().await;
        let entries = desk.entries();
        // What was given up may have been cut before, while the clock was ahead.
        let mut reached = entries[0].start;
        for entry in &entries {
            assert!(entry.start <= reached, "a gap before {entry:?}");
            reached = reached.max(entry.end);
        }
        assert!(desk.sealed().len() > sealed);
        assert!(
            entries
                .iter()
                .all(|e| matches!(e.state, State::Spooled | State::Skipped))
        );
    }
}

#[tokio::test]
async fn a_boot_in_1970_cuts_nothing_and_makes_no_week_up_when_the_clock_is_set() {
    let _errors = Errors::watch();
    for catch_up in [CatchUp::Skip, CatchUp::Backfill] {
        let directory = directory();
        let config = Config {
            catch_up,
            ..feed_config()
        };
        let mut desk = Desk::open(directory.path(), &config, "1970-01-01T00:01:30Z");
        desk.tick().await;
        desk.clock.advance(TimeDelta::minutes(20));
        desk.tick().await;
        assert!(desk.entries().is_empty());
        // As the daemon does when the clock is set: it begins anew.
        drop(desk);
        let mut desk = Desk::open(directory.path(), &config, "2026-01-01T10:00:10Z");
        desk.tick().await;
        desk.clock.advance(TimeDelta::minutes(5));
        desk.tick().await;
        let entries = desk.entries();
        assert_tiled(&entries, State::Spooled);
        assert_eq!(entries[0].start, at("2026-01-01T10:00:00Z"));
        assert_eq!(entries.len(), 2);
    }
}

#[tokio::test]
async fn a_step_forward_by_a_year_is_one_bounded_decision() {
    let _errors = Errors::watch();
    let directory = directory();
    let mut desk = Desk::open(directory.path(), &feed_config(), "2026-01-01T00:00:00Z");
    desk.tick().await;
    desk.clock.advance_to(at("2027-01-01T00:00:10Z"));
    desk.tick().await;
    let entries = desk.entries();
    assert_eq!(entries[1].state, State::Skipped);
    assert_eq!(
        entries[1].reason.as_deref(),
        Some("older than feed.max_age")
    );
    assert_eq!(entries[1].start, at("2026-01-01T00:05:00Z"));
    assert_eq!(entries[1].end, at("2026-12-31T00:05:00Z"));
    // The year is one row; the day within max_age is cut, and the live window.
    assert_eq!(entries.len(), 2 + 287 + 1);
    assert_tiled(&entries[2..], State::Spooled);
    assert_eq!(desk.ledger.census().unwrap().skipped, 1);
}

#[tokio::test]
async fn days_on_which_local_clocks_or_calendars_turn_are_like_any_other() {
    let _errors = Errors::watch();
    for turn in [
        "2026-03-29T00:00:00Z", // Europe springs forward
        "2026-10-25T00:00:00Z", // and falls back
        "2026-11-01T05:00:00Z", // so does America
        "2026-02-28T22:00:00Z", // a short February ends
        "2028-02-28T23:00:00Z", // a leap day begins
        "2026-12-31T22:00:00Z", // a year ends
    ] {
        for cadence in [Cadence::Pt5m, Cadence::Pt1h] {
            let directory = directory();
            let config = Config {
                cadence,
                ..feed_config()
            };
            let mut desk = Desk::open(directory.path(), &config, turn);
            let end = at(turn) + TimeDelta::hours(4);
            while desk.clock.now() < end {
                desk.tick().await;
                desk.clock.advance(cadence.duration());
            }
            let entries = desk.entries();
            assert_eq!(entries.len() as i64, 4 * 60 / cadence.minutes());
            assert_tiled(&entries, State::Spooled);
            let expected = entries
                .iter()
                .map(|e| Window::new(e.start, cadence).unwrap());
            assert_same(&desk.sealed(), &Wave::default().objects(expected));
        }
    }
}

#[tokio::test]
async fn a_downtime_is_skipped_or_backfilled_as_far_as_the_maximum_age() {
    let _errors = Errors::watch();
    let max_age = config::Span(std::time::Duration::from_secs(1_800));
    for (catch_up, skipped, cut) in [(CatchUp::Skip, 11, 0), (CatchUp::Backfill, 5, 6)] {
        let directory = directory();
        let config = Config {
            catch_up,
            max_age,
            ..feed_config()
        };
        let mut desk = Desk::open(directory.path(), &config, "2026-01-01T10:00:00Z");
        desk.tick().await;
        drop(desk);
        let mut desk = Desk::open(directory.path(), &config, "2026-01-01T11:00:00Z");
        desk.tick().await;
        let entries = desk.entries();
        assert_eq!(entries[1].state, State::Skipped);
        let minutes = (entries[1].end - entries[1].start).num_minutes();
        assert_eq!(minutes, skipped * 5, "{catch_up:?}");
        assert_eq!(entries.len() as i64, 2 + cut + 1, "{catch_up:?}");
        assert_tiled(&entries[2..], State::Spooled);
    }
}

#[tokio::test]
async fn published_behind_the_window_is_cut_when_it_has_ended() {
    let _errors = Errors::watch();
    let directory = directory();
    let config = Config {
        publish: Publish::Behind,
        rows: RowRule::Service,
        ..feed_config()
    };
    let mut desk = Desk::open(directory.path(), &config, "2026-01-01T10:04:59Z");
    desk.tick().await;
    desk.clock.advance(TimeDelta::seconds(1));
    desk.tick().await;
    let starts: Vec<_> = desk.entries().iter().map(|e| e.start).collect();
    assert_eq!(
        starts,
        ["2026-01-01T09:55:00Z", "2026-01-01T10:00:00Z"].map(at)
    );
}

// --- what must survive ---

/// A crashed daemon's data directory: three windows delivered, one sealed while the store was away.
async fn crashed(store: &Store) -> TempDir {
    let running = Rig::new(store, "origin", "2026-01-01T00:05:00Z")
        .start()
        .await;
    for _ in 0..2 {
        running.settle().await;
        running.clock.advance(TimeDelta::minutes(5));
    }
    running.settle().await;
    store.proxy.refuse();
    running.clock.advance(TimeDelta::minutes(5));
    running
        .until("sealed", |entries| {
            entries.len() == 4 && entries[0].state == State::Spooled
        })
        .await;
    // Copied as it is while the daemon runs, with its write-ahead log: what a power cut leaves.
    let copy = directory();
    copy_tree(&store.scratch("origin"), copy.path());
    running.stop().await;
    store.proxy.listen();
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// Restarts on a data directory five minutes later, and checks that all five windows are there once.
async fn comes_back(store: &Store, data_dir: &Path, what: &str) {
    let mut rig = Rig::new(store, "unused", "2026-01-01T00:25:00Z");
    rig.data_dir = data_dir.to_owned();
    rig.config.drain_per_minute = 6_000;
    let running = rig.start().await;
    running.settle().await;
    running.stop().await;
    let expected = Wave::default().objects(windows("2026-01-01T00:05:00Z", 5));
    let found = store.objects();
    assert!(found == expected, "{what}: {:?}", found.keys());
    assert_spool_is_empty(data_dir);
    // The next start has nothing left to repair.
    let mut rig = Rig::new(store, "unused", "2026-01-01T00:25:00Z");
    rig.data_dir = data_dir.to_owned();
    let running = rig.start().await;
    running.settle().await;
    running.stop().await;
}

/// A name and what is done to a data directory.
type Case = (String, Box<dyn Fn(&Path)>);

/// Runs every kind of damage on its own copy of the same crashed directory, at the same time.
async fn damaged(cases: Vec<Case>) {
    let all = cases.into_iter().map(|(name, damage)| async move {
        let store = Store::start();
        let data_dir = crashed(&store).await;
        damage(data_dir.path());
        comes_back(&store, data_dir.path(), &name).await;
    });
    futures_util::future::join_all(all).await;
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_ledger_that_is_deleted_cut_short_or_overwritten_loses_nothing_that_was_sealed() {
    let errors = Errors::watch();
    let mut cases: Vec<Case> = vec![
        (
            "deleted".into(),
            Box::new(|dir| {
                for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
                    drop(std::fs::remove_file(dir.join(name)));
                }
            }),
        ),
        (
            "without its write-ahead log".into(),
            Box::new(|dir| {
                for name in ["ledger.db-wal", "ledger.db-shm"] {
                    drop(std::fs::remove_file(dir.join(name)));
                }
            }),
        ),
        (
            "its write-ahead log cut in half".into(),
            Box::new(|dir| {
                drop(std::fs::remove_file(dir.join("ledger.db-shm")));
                edit(&dir.join("ledger.db-wal"), |bytes| {
                    bytes.truncate(bytes.len() / 2)
                });
            }),
        ),
        (
            "not a database".into(),
            Box::new(|dir| {
                drop(std::fs::remove_file(dir.join("ledger.db-wal")));
                std::fs::write(dir.join("ledger.db"), "once upon a time ".repeat(1_000)).unwrap();
            }),
        ),
    ];
    for length in [0, 1, 99, 512, 4_096, 5_000, 8_192] {
        cases.push((
            format!("cut to {length} bytes"),
            Box::new(move |dir| {
                checkpoint(dir);
                edit(&dir.join("ledger.db"), |bytes| bytes.truncate(length));
            }),
        ));
    }
    for seed in 0..12 {
        cases.push((
            format!("overwritten with seed {seed}"),
            Box::new(move |dir| {
                checkpoint(dir);
                let mut random = fastrand::Rng::with_seed(seed);
                edit(&dir.join("ledger.db"), |bytes| {
                    for _ in 0..40 {
                        let at = random.usize(..bytes.len());
                        bytes[at] = random.u8(..);
                    }
                });
            }),
        ));
    }
    damaged(cases).await;
    for line in errors.take() {
        assert!(line.contains("the ledger was damaged"), "{line}");
    }
}

/// Moves the write-ahead log into the ledger, so that damage to the file is damage to what is known.
fn checkpoint(dir: &Path) {
    drop(Ledger::open(dir, at("2026-01-01T00:20:00Z")).expect("the ledger"));
    assert!(!dir.join("ledger.db-wal").exists());
}

#[tokio::test]
async fn a_spool_entry_that_is_damaged_is_cut_again() {
    let _errors = Errors::watch();
    let entry = |dir: &Path| dir.join("spool/20260101T002000Z-PT5M");
    let file = move |dir: &Path| entry(dir).join("pump_20260101002000.csv");
    let manifest = move |dir: &Path| entry(dir).join("manifest.json");
    let cases: Vec<Case> = vec![
        (
            "a byte flipped".into(),
            Box::new(move |dir| edit(&file(dir), |bytes| bytes[40] ^= 1)),
        ),
        (
            "a file cut short".into(),
            Box::new(move |dir| edit(&file(dir), |bytes| bytes.truncate(10))),
        ),
        (
            "a file of zero length".into(),
            Box::new(move |dir| edit(&file(dir), |bytes| bytes.clear())),
        ),
        (
            "a file deleted".into(),
            Box::new(move |dir| std::fs::remove_file(file(dir)).unwrap()),
        ),
        (
            "the manifest deleted".into(),
            Box::new(move |dir| std::fs::remove_file(manifest(dir)).unwrap()),
        ),
        (
            "the manifest cut short".into(),
            Box::new(move |dir| edit(&manifest(dir), |bytes| bytes.truncate(50))),
        ),
        (
            "the manifest changed".into(),
            Box::new(move |dir| edit(&manifest(dir), |bytes| bytes[30] ^= 1)),
        ),
        (
            "the whole entry deleted".into(),
            Box::new(move |dir| std::fs::remove_dir_all(entry(dir)).unwrap()),
        ),
        (
            "the whole spool deleted".into(),
            Box::new(move |dir| std::fs::remove_dir_all(dir.join("spool")).unwrap()),
        ),
        (
            "the manifest deleted, and the ledger".into(),
            Box::new(move |dir| {
                std::fs::remove_file(manifest(dir)).unwrap();
                for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
                    drop(std::fs::remove_file(dir.join(name)));
                }
            }),
        ),
    ];
    damaged(cases).await;
}

#[tokio::test]
async fn a_spool_entry_that_disappears_from_a_running_daemon_is_cut_again() {
    let _errors = Errors::watch();
    let store = Store::start();
    store.proxy.refuse();
    let rig = Rig::new(&store, "data", "2026-01-01T00:05:00Z");
    let data_dir = rig.data_dir.clone();
    let running = rig.start().await;
    running
        .until("sealed", |entries| {
            entries.len() == 1 && entries[0].state == State::Spooled
        })
        .await;
    std::fs::remove_dir_all(data_dir.join("spool/20260101T000500Z-PT5M")).unwrap();
    store.proxy.listen();
    running.settle().await;
    running.stop().await;
    assert_same(
        &store.objects(),
        &Wave::default().objects(windows("2026-01-01T00:05:00Z", 1)),
    );
}

#[tokio::test]
async fn the_mapping_of_recorded_time_survives_the_loss_of_either_copy() {
    let _errors = Errors::watch();
    let directory = directory();
    let options = SampleOptions {
        days: 1,
        signals: 4,
        ..SampleOptions::default()
    };
    write_sample(&directory.path().join("plant"), &options, &mut |_| {}).unwrap();
    let file = |name: &str| {
        directory
            .path()
            .join("plant")
            .join(name)
            .display()
            .to_string()
    };
    let mut config = config::Config::default();
    config.source.parquet = file("signals.parquet");
    config.source.tags = file("tags_description.csv");
    config.source.at_end = AtEnd::Loop;
    let data_dir = directory.path().join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    let open = |now: &'static str| Plant::open(&config, &data_dir, at(now));
    let first = open("2026-01-01T00:07:00Z").await.unwrap().info.rebase;
    let copies = ["rebase.json", "rebase.backup.json"].map(|name| data_dir.join(name));
    let kept = std::fs::read(&copies[0]).unwrap();
    for (copy, damage) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        match damage {
            0 => std::fs::remove_file(&copies[copy]).unwrap(),
            1 => edit(&copies[copy], |bytes| bytes[20] ^= 1),
            _ => edit(&copies[copy], |bytes| bytes.clear()),
        }
        let again = open("2026-01-02T11:11:00Z").await.unwrap().info.rebase;
        assert_eq!(again, first, "copy {copy}, damage {damage}");
        for copy in &copies {
            assert_eq!(std::fs::read(copy).unwrap(), kept, "{}", copy.display());
        }
    }
    // Without both, a new one begins at the live window, and is kept in turn.
    for copy in &copies {
        std::fs::write(copy, "lost").unwrap();
    }
    let new = open("2026-01-03T00:07:00Z").await.unwrap().info.rebase;
    assert_ne!(new, first);
    assert_eq!(
        new.recorded(at("2026-01-03T00:05:00Z").timestamp_micros()),
        first.recorded(at("2026-01-01T00:05:00Z").timestamp_micros())
    );
    assert_eq!(open("2026-01-04T00:00:00Z").await.unwrap().info.rebase, new);
}
