//! Backups of data directories that are in use, and their way back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lookoutd::backup::{MANIFEST, backup, restore};
use lookoutd::disk::LocalDisk;
use lookoutd::feed::{Found, InputFile, Ledger, Spool};
use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::signal::{Cadence, Window};
use lookoutd::store::export::Contents;
use lookoutd::store::{Options, Store};
use serde_json::Value;

use crate::commands::{Daemon, lookoutd, run, show, succeed, text};
use crate::rig::directory;
use crate::service::plant::{BUCKET, Plant};

/// A configuration in which everything is embedded.
fn embedded(directory: &Path) -> PathBuf {
    let options = SampleOptions {
        days: 1,
        signals: 8,
        ..SampleOptions::default()
    };
    write_sample(&directory.join("plant"), &options, &mut |_| {}).unwrap();
    let path = directory.join("lookoutd.toml");
    let text = format!(
        "data_dir = \"{0}/data\"\n[source]\nparquet = \"{0}/plant/signals.parquet\"\n\
         tags = \"{0}/plant/tags_description.csv\"\n[service]\nlisten = \"127.0.0.1:0\"\ns3_listen = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n",
        directory.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Whatever the ledger calls delivered is in the store.
fn assert_consistent(data_dir: &Path) {
    let ledger = Ledger::open_existing(data_dir).unwrap().unwrap();
    let contents = Contents::open(&data_dir.join("s3")).unwrap();
    assert!(contents.verify().unwrap().damaged.is_empty());
    let keys = contents.keys("lookoutd").unwrap();
    let mut delivered = 0;
    for entry in ledger.list(500).unwrap() {
        if entry.state.is_delivered() {
            let stamp = entry.start.format("%Y%m%d%H%M%S").to_string();
            let here = keys.iter().filter(|key| key.contains(&stamp)).count();
            assert_eq!(here as u64, u64::from(entry.files), "{entry:?}");
            delivered += 1;
        }
    }
    assert!(delivered > 0);
}

#[test]
fn a_backup_of_a_running_daemon_comes_back_whole_and_into_no_directory_that_is_used() {
    let directory = directory();
    let config = embedded(directory.path());
    let daemon = Daemon::spawn(lookoutd(), &config);
    daemon.says("window shipped", 1);
    let target = directory.path().join("backup");
    let told = succeed(&[
        "backup",
        show(&target),
        "--config",
        show(&config),
        "--output",
        "json",
    ]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["objects"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["damaged"], serde_json::json!([]));

    // What the running daemon says of its store.
    let ask = || -> Value {
        let said = run(&["status", "--config", show(&config), "--output", "json"]);
        serde_json::from_slice(&said.stdout).unwrap()
    };
    let mut status = ask();
    // What is kept it says from its first look at the store on.
    let began = std::time::Instant::now();
    while status["store"]["kept"][0].is_null()
        && began.elapsed() < std::time::Duration::from_secs(30)
    {
        std::thread::sleep(std::time::Duration::from_millis(100));
        status = ask();
    }
    assert_eq!(status["judged_by"], "daemon", "{status}");
    assert!(status["store"]["objects"].as_u64().is_some(), "{status}");
    assert_eq!(status["store"]["kept"][0]["prefix"], "input/", "{status}");
    assert_eq!(status["store"]["kept"][0]["keep"], "7days", "{status}");
    assert!(
        text(&run(&["status", "--config", show(&config)]))
            .contains("\nkept       lookoutd/input/ 7days: ")
    );

    // Not over what is there, and least of all under a daemon.
    let over = run(&["restore", show(&target), "--config", show(&config)]);
    assert_eq!(over.status.code(), Some(75), "{}", text(&over));
    let again = run(&["backup", show(&target), "--config", show(&config)]);
    assert!(
        !again.status.success() && text(&again).contains("is not empty"),
        "{}",
        text(&again)
    );
    let inside = directory.path().join("data/backup");
    let inside = run(&["backup", show(&inside), "--config", show(&config)]);
    assert!(
        text(&inside).contains("lies in the data directory"),
        "{}",
        text(&inside)
    );

    let other = directory.path().join("other");
    let back = [
        "restore",
        show(&target),
        "--config",
        show(&config),
        "--data-dir",
        show(&other),
    ];
    succeed(&back);
    assert_consistent(&other);
    let twice = run(&back);
    assert!(text(&twice).contains("is not empty"), "{}", text(&twice));
    drop(daemon);
    // A daemon goes on from there.
    let moved = std::fs::read_to_string(&config).unwrap();
    let moved = moved.replace("/data\"", "/other\"");
    let second = directory.path().join("other.toml");
    std::fs::write(&second, moved).unwrap();
    let daemon = Daemon::spawn(lookoutd(), &second);
    daemon.says("\"feeding\"", 1);
    drop(daemon);

    // A backup that was changed, or that was not finished, is put nowhere.
    let mut state = std::fs::read(target.join("ledger.db")).unwrap();
    state[100] ^= 1;
    std::fs::write(target.join("ledger.db"), state).unwrap();
    let third = directory.path().join("third");
    let back = [
        "restore",
        show(&target),
        "--config",
        show(&config),
        "--data-dir",
        show(&third),
    ];
    let changed = run(&back);
    assert!(
        text(&changed).contains("is not what was backed up"),
        "{}",
        text(&changed)
    );
    assert!(!third.join("ledger.db").exists());
    let started = run(&[
        "run",
        "--once",
        "--config",
        show(&config),
        "--data-dir",
        show(&third),
    ]);
    assert_eq!(started.status.code(), Some(73), "{}", text(&started));
    std::fs::remove_file(target.join(MANIFEST)).unwrap();
    let unfinished = run(&back);
    assert!(
        text(&unfinished).contains("no backup that was finished"),
        "{}",
        text(&unfinished)
    );
}

/// Schedulers may be called like what a data directory keeps for itself; their results are in the archive under that name.
#[test]
fn a_backup_holds_every_scheduler_whatever_it_is_called() {
    let directory = directory();
    let (data, target) = (
        directory.path().join("data"),
        directory.path().join("backup"),
    );
    let names = ["lock", "hold", "making-paper", "spool", "backup-json"];
    for name in names {
        let place = data.join("archive").join(name);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("results.jsonl"), name).unwrap();
    }
    for own in [
        "s3/hold",
        "service/hold",
        "service/models/.making-x",
        "lock",
    ] {
        let own = data.join(own);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(own, "ours").unwrap();
    }
    let manifest = backup(&data, &target, at()).unwrap();
    let mut held: Vec<_> = manifest
        .files
        .iter()
        .map(|file| show(&file.path).to_owned())
        .collect();
    held.sort();
    let mut wanted = names.map(|name| format!("archive/{name}/results.jsonl"));
    wanted.sort();
    assert_eq!(held, wanted);
}

/// Sealed windows that wait for their store are all there is of them, whichever asset they are of.
#[test]
fn a_backup_holds_the_sealed_windows_of_every_asset() {
    let directory = directory();
    let (data, target) = (
        directory.path().join("data"),
        directory.path().join("backup"),
    );
    let start = at();
    let window = Window::new(
        start.with_time(chrono::NaiveTime::MIN).unwrap(),
        Cadence::Pt5m,
    )
    .unwrap();
    let spool = |root: &Path, asset: &str| {
        let all = Spool::open(Arc::new(LocalDisk), root).unwrap();
        all.open_of(asset).unwrap()
    };
    for asset in ["", "pump 1", "asset-pump"] {
        let spool = spool(&data, asset);
        let file = InputFile {
            component: "c".into(),
            name: "c.csv".into(),
            key: format!("{asset}/c.csv"),
            bytes: 0,
            sha256: String::new(),
            rows: 1,
        };
        let files = vec![(file, b"Timestamp,a\n".to_vec())];
        spool
            .seal(&window, 1, Found::default(), files, start)
            .unwrap();
    }
    let manifest = backup(&data, &target, start).unwrap();
    let sealed = |root: &Path| {
        ["", "pump 1", "asset-pump"].map(|asset| {
            let manifest = spool(root, asset).sealed(&window).unwrap().unwrap();
            manifest.files[0].key.clone()
        })
    };
    let back = directory.path().join("back");
    restore(&target, &back).unwrap();
    assert_eq!(sealed(&back), sealed(&data), "{:?}", manifest.files);
}

/// Cut short after the first file had its place: the mark stays through another try, and no daemon starts on half of it.
#[test]
fn a_restore_that_was_cut_short_is_not_taken_for_one_that_is_done() {
    let directory = directory();
    let (data, target) = (
        directory.path().join("data"),
        directory.path().join("backup"),
    );
    std::fs::create_dir_all(data.join("archive/s")).unwrap();
    std::fs::write(data.join("archive/s/results.jsonl"), "x").unwrap();
    backup(&data, &target, at()).unwrap();
    let half = directory.path().join("half");
    std::fs::create_dir_all(half.join(".restoring")).unwrap();
    std::fs::write(half.join("ledger.db"), "has its place").unwrap();
    let refused = restore(&target, &half).unwrap_err();
    assert!(
        format!("{refused:#}").contains("is not empty"),
        "{refused:#}"
    );
    let started = run(&["run", "--once", "--data-dir", show(&half)]);
    assert_eq!(started.status.code(), Some(73), "{}", text(&started));

    // Before any file had its place another try does it all; while one is under way no second one touches what it has made.
    std::fs::remove_file(half.join("ledger.db")).unwrap();
    std::fs::write(half.join(".restoring/made"), "by the other").unwrap();
    let other = lookoutd::ops::lock::lock_to_restore(&half).unwrap();
    restore(&target, &half).unwrap_err();
    assert!(half.join(".restoring/made").exists());
    drop(other);
    restore(&target, &half).unwrap();
    assert_eq!(
        std::fs::read(half.join("archive/s/results.jsonl")).unwrap(),
        b"x"
    );
    assert!(!half.join(".restoring").exists() && !half.join("made").exists());
}

fn at() -> chrono::DateTime<chrono::Utc> {
    "2026-10-07T09:05:00Z".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_under_writes_holds_what_was_acknowledged_before_and_nothing_halfway() {
    let plant = Plant::start().await;
    let data_dir = plant.directory.path().to_owned();
    let size = |n: usize| [100, 3_000, 70_000, 300_000][n % 4] + n % 50;
    for n in 0..40 {
        plant.place(&format!("before/{n}"), &vec![n as u8; size(n)]);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4usize)
        .map(|writer| {
            let (store, stop) = (plant.store.clone(), stop.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return n;
                    }
                    let key = format!("during/{writer}/{}", n % 7);
                    let body = vec![(writer * 50 + n) as u8; size(n + writer) + n];
                    store.put_blocking(BUCKET, &key, &body).unwrap();
                    if n % 5 == 4 {
                        store.remove_blocking(BUCKET, &key).unwrap();
                    }
                }
                unreachable!()
            })
        })
        .collect();
    let elsewhere = tempfile::tempdir().unwrap();
    for round in 0..3 {
        plant.register(&format!("another-{round}")).await;
        let (from, to) = (data_dir.clone(), elsewhere.path().join(format!("b{round}")));
        let back = elsewhere.path().join(format!("r{round}"));
        let done = tokio::task::spawn_blocking(move || {
            let made = backup(&from, &to, chrono::Utc::now()).unwrap();
            assert_eq!(made.damaged, Vec::<String>::new());
            restore(&to, &back).unwrap();
            back
        });
        let back = done.await.unwrap();
        let state = back.join("state");
        lookoutd::service::store::examine(&state).unwrap();
        let unlike = lookoutd::service::store::unlike(&state).unwrap();
        assert_eq!(unlike, Vec::<String>::new());
        assert!(std::fs::read_dir(state.join("models")).unwrap().count() > 0);
        let store = Store::open(&back.join("s3"), &Options::default()).unwrap();
        let contents = store.contents(BUCKET).unwrap();
        for n in 0..40 {
            assert!(
                contents[&format!("before/{n}")] == vec![n as u8; size(n)],
                "{n}"
            );
        }
        for (key, body) in &contents {
            assert!(
                body.windows(2).all(|pair| pair[0] == pair[1]),
                "{key} is of two writes"
            );
        }
    }
    stop.store(true, Ordering::SeqCst);
    let written: usize = writers
        .into_iter()
        .map(|writer| writer.join().unwrap())
        .sum();
    assert!(written > 20, "{written}");
    // What was held back meanwhile goes with the next write.
    plant.place("after", b"x");
    let all = plant.store.contents(BUCKET).unwrap();
    let large: std::collections::BTreeSet<_> =
        all.values().filter(|body| body.len() > 65_536).collect();
    for _ in 0..500 {
        let bodies = std::fs::read_dir(data_dir.join("s3/bodies"))
            .unwrap()
            .count();
        if bodies == large.len() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("bodies that nothing names are left");
}
