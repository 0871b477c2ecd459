//! Each state file cut short, with flipped bits, zeroed and gone: what opens it says so or is not wrong, and what was sealed or
//! trained stays. Everything in process; `LOOKOUTD_FULL=1` takes every place instead of some.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::TimeDelta;
use lookoutd::embedded::KeyPair;
use lookoutd::feed::disk::LocalDisk;
use lookoutd::feed::{Entry, Ledger, LedgerError, Opened, Spool, State, recover};
use lookoutd::inference::{Execution, Index};
use lookoutd::service::store::{Store as ServiceStore, StoreError};

use super::Harm;
use crate::rig::*;
use crate::service::plant::Plant;
use crate::time::Desk;

const START: &str = "2026-01-01T00:05:00Z";

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A data directory with two windows that were shipped and three that are sealed.
async fn fed(directory: &Path) {
    let mut desk = Desk::open(directory, &feed_config(), START);
    desk.clock.advance(TimeDelta::minutes(20));
    desk.tick().await;
    let oldest = desk.ledger.oldest_spooled(2).unwrap();
    let spool = Spool::attach(Arc::new(LocalDisk), directory);
    for window in oldest {
        desk.ledger.shipped(&window, desk.clock.now()).unwrap();
        spool.remove(&window).unwrap();
    }
    desk.ledger.rebuilt().unwrap();
    assert_eq!(desk.sealed().len(), 9);
}

/// What an entry is about.
fn identity(entry: &Entry) -> (i64, i64, State) {
    (entry.start.timestamp(), entry.end.timestamp(), entry.state)
}

#[tokio::test]
async fn every_damage_of_the_ledger_keeps_what_is_sealed_and_is_told() {
    let scratch = directory();
    let (whole, data_dir) = (scratch.path().join("whole"), scratch.path().join("data"));
    std::fs::create_dir(&whole).unwrap();
    fed(&whole).await;
    let bytes = std::fs::read(whole.join("ledger.db")).unwrap();
    assert!(!whole.join("ledger.db-wal").exists(), "not closed");
    let entries =
        |ledger: &Ledger| -> Vec<_> { ledger.list(100).unwrap().iter().map(identity).collect() };
    let now = at("2026-01-01T01:00:00Z");
    let before = entries(&Ledger::open(&whole, now).unwrap().0);
    let sealed = objects_under(&whole.join("spool"));
    let mut replaced = 0;
    for harm in Harm::some(bytes.len(), 150) {
        copy(&whole, &data_dir);
        harm.inflict(&data_dir.join("ledger.db"), &bytes);
        let (ledger, opened) = match Ledger::open(&data_dir, now) {
            Ok(opened) => opened,
            // A format that is newer by a flipped bit.
            Err(error @ LedgerError::Newer { .. }) => {
                assert!(error.to_string().contains("ledger.db"), "{harm:?}: {error}");
                continue;
            }
            Err(error) => panic!("{harm:?}: {error}"),
        };
        let spool = Spool::open(Arc::new(LocalDisk), &data_dir).unwrap();
        recover(&spool, &ledger).unwrap();
        assert_eq!(objects_under(&data_dir.join("spool")), sealed, "{harm:?}");
        let spooled = ledger.spooled().unwrap();
        assert_eq!(spooled, windows("2026-01-01T00:15:00Z", 3), "{harm:?}");
        match opened {
            Opened::Replaced(aside) => {
                let kept = std::fs::metadata(&aside).unwrap().len();
                let left = if let Harm::Cut(left) = harm {
                    left
                } else {
                    bytes.len()
                };
                assert_eq!(kept, left as u64, "{harm:?}: the damaged one is kept");
                replaced += 1;
            }
            // Nothing of it is known: it is rebuilt from the bucket.
            Opened::Fresh => {}
            Opened::Existing => assert_eq!(entries(&ledger), before, "{harm:?}"),
        }
    }
    assert!(replaced > 20, "{replaced} were found damaged");
}

#[tokio::test]
async fn every_damage_of_a_spool_entry_is_seen_before_its_bytes_are_used() {
    let scratch = directory();
    fed(scratch.path()).await;
    let spool = Spool::attach(Arc::new(LocalDisk), scratch.path());
    let window = window("2026-01-01T00:15:00Z");
    let manifest = spool.sealed(&window).unwrap().unwrap();
    let entry = scratch.path().join("spool/20260101T001500Z-PT5M");
    let mut names = vec!["manifest.json".to_owned()];
    names.extend(manifest.files.iter().map(|file| file.name.clone()));
    assert_eq!(names.len(), 4);
    for name in names {
        let path = entry.join(&name);
        let bytes = std::fs::read(&path).unwrap();
        for harm in Harm::all(bytes.len()) {
            harm.inflict(&path, &bytes);
            // The end of the last line may be anything that is still one.
            if let Some(read) = spool.sealed(&window).unwrap() {
                assert_eq!(read, manifest, "{name} {harm:?}");
                assert_eq!(name, "manifest.json", "{harm:?}");
            }
            std::fs::write(&path, &bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn every_damage_of_the_services_state_is_refused_or_changes_no_model() {
    let scratch = directory();
    let (whole, state) = (scratch.path().join("whole"), scratch.path().join("state"));
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    plant.down().await;
    copy(&plant.directory.path().join("state"), &whole);
    drop(ServiceStore::open(&whole).unwrap());
    let _ = std::fs::remove_file(whole.join("state.db-wal"));
    let bytes = std::fs::read(whole.join("state.db")).unwrap();
    let models = objects_under(&whole.join("models"));
    assert_eq!(models.len(), 1);
    let mut refused = 0;
    for harm in Harm::some(bytes.len(), 100) {
        copy(&whole, &state);
        harm.inflict(&state.join("state.db"), &bytes);
        let damaged = std::fs::read(state.join("state.db")).ok();
        match ServiceStore::open(&state) {
            // After a clean stop not every page is read: then what meets the damage refuses.
            Ok(store) => refused += usize::from(store.sweep().await.is_err()),
            Err(error) => {
                let known = matches!(
                    error,
                    StoreError::Damaged { .. } | StoreError::Lost { .. } | StoreError::Newer { .. }
                );
                assert!(known, "{harm:?}: {error}");
                assert!(error.to_string().contains("state.db"), "{harm:?}: {error}");
                let left = std::fs::read(state.join("state.db")).ok();
                assert_eq!(
                    left.map(|bytes| bytes.len()),
                    damaged.map(|bytes| bytes.len())
                );
                refused += 1;
            }
        }
        assert_eq!(objects_under(&state.join("models")), models, "{harm:?}");
    }
    assert!(refused > 20, "{refused} were refused");
}

#[tokio::test]
async fn a_model_file_that_is_damaged_or_gone_fails_its_executions_with_the_reason() {
    for harm in [Harm::Flip(400, 3), Harm::Cut(300), Harm::Gone] {
        let mut plant = Plant::start().await;
        plant.run("s", |request| request).await;
        plant.down().await;
        let models = plant.directory.path().join("state/models");
        let file: PathBuf = std::fs::read_dir(&models)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let bytes = std::fs::read(&file).unwrap();
        harm.inflict(&file, &bytes);
        plant.up().await;
        plant.feed("2026-03-01T10:00:00Z").await;
        let ended = plant.execute("s", "2026-03-01T10:05:00Z").await;
        assert_eq!(ended.status().unwrap().as_str(), "FAILED", "{harm:?}");
        let reason = ended.failed_reason().unwrap_or_default().to_owned();
        assert!(reason.contains("model"), "{harm:?}: {reason}");
        plant.down().await;
    }
}

#[test]
fn every_damage_of_the_key_pair_is_refused_or_changes_nothing() {
    let scratch = directory();
    let pair = KeyPair::load_or_create(scratch.path()).unwrap();
    let path = scratch.path().join("credentials");
    let bytes = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for harm in Harm::all(bytes.len()) {
        harm.inflict(&path, &bytes);
        match KeyPair::load_or_create(scratch.path()) {
            // Clients are given the new one.
            Ok(new) if harm == Harm::Gone => assert!(new != pair),
            Ok(read) => assert!(read == pair, "{harm:?}"),
            Err(error) => {
                let said = error.to_string();
                assert!(
                    said.contains("credentials") && said.contains("backup"),
                    "{said}"
                );
                refused += 1;
            }
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(refused > 150, "{refused} were refused");
}

#[test]
fn every_damage_of_the_archives_index_is_mended_from_its_files() {
    let scratch = directory();
    let archive = lookoutd::inference::Archive::new(scratch.path().join("archive"));
    let now = at("2026-03-01T11:00:00Z");
    for start in ["2026-03-01T10:00:00Z", "2026-03-01T10:05:00Z"] {
        let execution = Execution {
            scheduler: "s".into(),
            model: "m".into(),
            model_version: Some(1),
            scheduled: None,
            data_start: at(start),
            data_end: at(start) + TimeDelta::minutes(5),
            status: "SUCCESS".into(),
            failed_reason: None,
            result: None,
            input: "s3://b/in/".into(),
        };
        let line = b"{\"timestamp\": \"2026-03-01T10:05:00.000000\", \"prediction\": 0}\n";
        archive.keep(&execution, Some(line)).unwrap();
    }
    let known = |index: &Index| -> Vec<_> {
        let rows = index.range("", None, None).unwrap();
        let archived = |row: &lookoutd::inference::Archived| {
            (
                row.execution.scheduler.clone(),
                row.execution.data_start,
                row.archived_at.is_some(),
            )
        };
        rows.iter().map(archived).collect()
    };
    let whole = known(&Index::open(&archive, now).unwrap());
    let path = archive.root().join("index.db");
    let bytes = std::fs::read(&path).unwrap();
    for harm in Harm::some(bytes.len(), 100) {
        for side in ["db-wal", "db-shm"] {
            let _ = std::fs::remove_file(path.with_extension(side));
        }
        harm.inflict(&path, &bytes);
        let index = Index::open(&archive, now).unwrap_or_else(|error| panic!("{harm:?}: {error}"));
        assert_eq!(known(&index), whole, "{harm:?}");
        drop(index);
        std::fs::write(&path, &bytes).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_object_of_the_embedded_store_is_not_taken_for_what_was_written() {
    let store = Store::start();
    let bucket = lookoutd::s3::Bucket::new(client(&store.proxy.endpoint(), &store.keys), BUCKET);
    let bytes = b"Timestamp,flow\n2026-01-01T00:05:00.000000,1.5\n";
    bucket.create("input/a.csv", bytes).await.unwrap();
    let large: Vec<u8> = bytes.iter().copied().cycle().take(300_000).collect();
    bucket.create("input/large.csv", &large).await.unwrap();
    // The small one lies in its row, the large one in a file of its own.
    let rows = rusqlite::Connection::open(store.root.join("store.db")).unwrap();
    let damaged = "UPDATE bodies SET data = ?1 WHERE data IS NOT NULL AND size = ?2";
    for harm in [Harm::Flip(40, 0), Harm::Cut(20), Harm::Cut(0), Harm::Zero] {
        let scratch = store.scratch("harm").join("row");
        std::fs::write(&scratch, bytes).unwrap();
        harm.inflict(&scratch, bytes);
        let values = (std::fs::read(&scratch).unwrap(), bytes.len() as i64);
        assert_eq!(rows.execute(damaged, values).unwrap(), 1);
        let error = bucket.get("input/a.csv").await.expect_err("damaged");
        assert!(error.to_string().contains("input/a.csv"), "{error}");
    }
    let file = std::fs::read_dir(store.root.join("bodies")).unwrap().next();
    let file = file.unwrap().unwrap().path();
    for harm in [
        Harm::Flip(290_000, 0),
        Harm::Cut(200_000),
        Harm::Cut(0),
        Harm::Zero,
        Harm::Gone,
    ] {
        harm.inflict(&file, &large);
        let error = bucket.get("input/large.csv").await.expect_err("damaged");
        assert!(error.to_string().contains("input/large.csv"), "{error}");
        std::fs::write(&file, &large).unwrap();
    }
    assert!(bucket.get("input/large.csv").await.unwrap() == Some(large));
}
