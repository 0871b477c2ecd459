//! Records of the archive: damage stays with its record, is seen, and is mended from the store while it has the results.

use std::path::PathBuf;

use lookoutd::inference::{Archive, Execution, Wanted, Watcher};

use super::Harm;
use crate::errors::Errors;
use crate::inference::{archive, files, watcher};
use crate::service::plant::{BUCKET, Plant, at};

const STARTS: [&str; 3] = [
    "2026-03-01T10:00:00Z",
    "2026-03-01T10:05:00Z",
    "2026-03-01T10:10:00Z",
];
const ENDS: [&str; 3] = [
    "2026-03-01T10:05:00Z",
    "2026-03-01T10:10:00Z",
    "2026-03-01T10:15:00Z",
];

/// A plant whose three windows are scored and archived.
async fn archived(wanted: Wanted) -> (Plant, Watcher) {
    let plant = Plant::start().await;
    let mut first = watcher(&plant, Wanted::Running).await;
    first.round().await;
    drop(first);
    for (start, end) in STARTS.into_iter().zip(ENDS) {
        plant.feed(start).await;
        plant.execute("s", end).await;
    }
    let _ = std::fs::remove_dir_all(archive(&plant).root());
    let mut watcher = watcher(&plant, wanted).await;
    watcher.round().await;
    (plant, watcher)
}

fn set_aside(files: &[(PathBuf, Vec<u8>)]) -> usize {
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files
        .iter()
        .filter(|(path, _)| name(path).contains(".damaged"))
        .count()
}

#[test]
fn every_damage_of_an_archive_record_is_seen_and_stays_with_that_record() {
    let directory = crate::rig::directory();
    let archive = Archive::new(directory.path());
    let results = b"{\"timestamp\": \"2026-03-01T10:05:00.000000\", \"prediction\": 0}\n";
    for start in STARTS.map(at) {
        let execution = Execution {
            scheduler: "s".into(),
            model: "m".into(),
            model_version: Some(1),
            scheduled: None,
            data_start: start,
            data_end: start + chrono::TimeDelta::minutes(5),
            status: "SUCCESS".into(),
            failed_reason: None,
            result: None,
            input: "s3://b/in/".into(),
        };
        archive.keep(&execution, Some(results)).unwrap();
    }
    let day = archive.root().join("s/2026/03/01");
    let whole: Vec<_> = archive.check_day(&day).unwrap();
    assert!(whole.len() == 3 && whole.iter().all(|one| one.damage.is_none()));
    for name in ["100500.jsonl", "100500.json"] {
        let path = day.join(name);
        let bytes = std::fs::read(&path).unwrap();
        for harm in Harm::all(bytes.len()) {
            harm.inflict(&path, &bytes);
            let found = archive.check_day(&day).unwrap();
            let of = |start: &str| {
                let start = Some(at(start));
                found.iter().find(|one| one.data_start == start)
            };
            for (other, start) in [(0, STARTS[0]), (2, STARTS[2])] {
                let one = of(start).unwrap();
                assert!(one.damage.is_none(), "{name} {harm:?}: {other}");
                assert_eq!(one.record, whole[other].record);
            }
            match (of(STARTS[1]), name, harm) {
                // Without its record a results file is no record.
                (None, "100500.json", Harm::Gone) => {}
                (Some(one), _, _) => match &one.damage {
                    Some((damaged, _)) => assert_eq!(*damaged, path, "{harm:?}"),
                    // White space around the values, or the case of a digit in an escape.
                    None => assert_eq!(one.record, whole[1].record, "{name} {harm:?}"),
                },
                (None, _, _) => panic!("{name} {harm:?}: the record is out of sight"),
            }
            std::fs::write(&path, &bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_damaged_archive_record_is_set_aside_said_and_fetched_again() {
    let errors = Errors::watch();
    let (plant, mut watcher) = archived(Wanted::Running).await;
    let whole = files(&plant);
    assert_eq!(whole.len(), 6);
    let day = archive(&plant).root().join("s/2026/03/01");
    let mut aside = 0;
    for name in ["100500.jsonl", "100500.json"] {
        let path = day.join(name);
        let bytes = std::fs::read(&path).unwrap();
        for harm in [Harm::Flip(bytes.len() / 2, 0), Harm::Cut(7), Harm::Zero] {
            harm.inflict(&path, &bytes);
            // A day later, or at the next start.
            drop(watcher);
            watcher = crate::inference::watcher(&plant, Wanted::Running).await;
            watcher.round().await;
            aside += 1;
            let mended = files(&plant);
            for file in &whole {
                assert!(mended.contains(file), "{name} {harm:?}: {:?}", file.0);
            }
            assert_eq!(set_aside(&mended), aside, "{name} {harm:?}");
            let known = watcher.index().range("s", None, None).unwrap();
            assert!(known.len() == 3 && known.iter().all(|row| row.archived_at.is_some()));
        }
    }
    assert!(errors.take().is_empty(), "nothing was lost");
}

#[tokio::test]
async fn archived_results_whose_object_is_gone_too_are_said_to_be_lost_and_what_is_left_is_kept() {
    let errors = Errors::watch();
    // Without a copy of the archive in the store.
    let (plant, watcher) = archived(Wanted::Observe).await;
    drop(watcher);
    let keys = plant.store.contents(BUCKET).unwrap().into_keys();
    for key in keys.filter(|key| key.starts_with("out/2026-03-01T10:05:00Z/")) {
        plant.store.remove_blocking(BUCKET, &key).unwrap();
    }
    plant.clock.advance(chrono::TimeDelta::days(2));
    let path = archive(&plant).root().join("s/2026/03/01/100500.json");
    let whole = files(&plant);
    // The record is damaged, the results are whole: they are kept.
    let bytes = std::fs::read(&path).unwrap();
    Harm::Flip(40, 1).inflict(&path, &bytes);
    let mut again = crate::inference::watcher(&plant, Wanted::Observe).await;
    again.round().await;
    let mended = files(&plant);
    assert!(whole.iter().all(|file| mended.contains(file)), "{mended:?}");
    assert!(errors.take().is_empty());
    drop(again);
    // The results are damaged.
    let path = path.with_extension("jsonl");
    let bytes = std::fs::read(&path).unwrap();
    Harm::Flip(40, 1).inflict(&path, &bytes);
    let mut again = crate::inference::watcher(&plant, Wanted::Observe).await;
    again.round().await;
    errors.expect("their object is gone");
    let left = std::fs::read(path.with_added_extension("damaged")).unwrap();
    assert!(left != bytes && left.len() == bytes.len());
    let past = Some(at(ENDS[2]));
    let known = again.index().range("s", None, past).unwrap();
    let counts: Vec<_> = known.iter().map(|row| row.summary.rows).collect();
    assert_eq!(counts, [5, 5, 5], "what is known of it stays");
    let kept: Vec<bool> = known
        .iter()
        .map(|row| archive(&plant).results(&row.execution).is_ok())
        .collect();
    assert_eq!(kept, [true, false, true]);
    // Said once.
    again.round().await;
    assert!(errors.take().is_empty());
}

#[tokio::test]
async fn results_beside_a_damaged_record_are_shown_and_the_damage_is_a_finding() {
    let (plant, watcher) = archived(Wanted::Observe).await;
    drop(watcher);
    let path = archive(&plant).root().join("s/2026/03/01/100500.jsonl");
    let bytes = std::fs::read(&path).unwrap();
    let run = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_lookoutd"))
            .args(["results", "--format", "jsonl", "--data-dir"])
            .arg(plant.directory.path())
            .output()
            .unwrap()
    };
    let whole = run();
    assert_eq!(whole.status.code(), Some(0));
    Harm::Flip(bytes.len() - 3, 0).inflict(&path, &bytes);
    let rest = run();
    let said = String::from_utf8_lossy(&rest.stderr).into_owned();
    assert_eq!(rest.status.code(), Some(3), "{said}");
    assert!(said.contains("100500.jsonl"), "{said}");
    let results = |start: &str| {
        let place = start.replace(['-', ':'], "").replace(['Z', 'T'], "");
        let (day, time) = place.split_at(8);
        assert_eq!(day, "20260301");
        std::fs::read(path.with_file_name(format!("{time}.jsonl"))).unwrap()
    };
    assert_eq!(
        rest.stdout,
        [results(STARTS[0]), results(STARTS[2])].concat()
    );
    assert!(Archive::read_checked(&path).is_err());
}
