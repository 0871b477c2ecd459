//! The journal's history and its commands, beside the rest of the product.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lookoutd::disk::LocalDisk;
use lookoutd::journal::{Journal, Kind, Options, Quality, Sample, Timed};

use crate::commands::lookoutd;

const MINUTE: i64 = 60_000_000_000;
/// 2026-01-31T00:00:00Z.
const START: i64 = 1_769_817_600_000_000_000;

fn open(data_dir: &Path) -> Journal {
    let options = Options {
        floor: 0,
        segment: 100,
        settle: Duration::ZERO,
        ..Options::default()
    };
    Journal::open(&data_dir.join("journal"), Arc::new(LocalDisk), options).unwrap()
}

/// Three hours of two assets with two tags each; a value of each twentieth minute is bad, and some minutes come late.
async fn filled(data_dir: &Path) {
    let journal = open(data_dir);
    let minute = |at: i64, late: bool| {
        let mut samples = Vec::new();
        for (asset, tag) in [("pump-1", "amps"), ("pump-1", "level"), ("pump-2", "amps")] {
            let number = (tag.len() + asset.len()) as f64;
            samples.push(Sample {
                signal: journal.signal(asset, tag).unwrap(),
                time: START + at * MINUTE,
                value: at as f64 / 8.0 + number,
                quality: if at % 20 == 7 {
                    Quality::Bad
                } else {
                    Quality::Good
                },
                timed: Timed::Source,
                historical: late,
                kind: Kind::Value,
            });
        }
        samples
    };
    for at in (0..180).filter(|at| at % 50 != 3) {
        journal.append(minute(at, false)).await.unwrap();
    }
    journal.sweep(START + 180 * MINUTE).await.unwrap();
    for at in (0..180).filter(|at| at % 50 == 3) {
        journal.append(minute(at, true)).await.unwrap();
    }
    // Again, and corrected.
    let again = journal.append(minute(9, false)).await.unwrap();
    assert_eq!(again.collapsed, 3);
    let mut corrected = minute(10, false);
    corrected[0].value = 99.5;
    let corrected = journal.append(corrected).await.unwrap();
    assert_eq!((corrected.collapsed, corrected.differing), (2, 1));
    let swept = journal.sweep(START + 180 * MINUTE).await.unwrap();
    assert_eq!(swept.samples, 4 * 3 + 1);
}

/// The input files that a history gives.
fn replayed(history: &Path, scratch: &Path) -> Vec<(PathBuf, String)> {
    let tags = scratch.join("tags.csv");
    std::fs::write(&tags, "Tag,UOM,Subsystem\namps,A,motor\nlevel,m,tank\n").unwrap();
    let out = scratch.join("out");
    drop(std::fs::remove_dir_all(&out));
    let output = lookoutd()
        .args([
            "replay",
            "--cadence",
            "PT30M",
            "--from",
            "2026-01-31T00:00:00",
        ])
        .args(["--to", "2026-01-31T03:00:00", "--history"])
        .arg(history)
        .arg("--tags")
        .arg(&tags)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut files = Vec::new();
    let mut left = vec![out.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            files.push((path.strip_prefix(&out).unwrap().to_owned(), text));
        }
    }
    files.sort();
    files
}

fn journal_command(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = lookoutd()
        .arg("journal")
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test]
async fn the_history_that_a_journal_leaves_and_its_exports_are_read_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    filled(&data_dir).await;
    let grown = replayed(&data_dir.join("history/pump-1"), directory.path());
    assert_eq!(grown.len(), 2 * 6);
    let rows: usize = grown.iter().map(|(_, text)| text.lines().count() - 1).sum();
    assert_eq!(rows, 2 * 179, "each minute once, from the second on");
    let all: String = grown.iter().map(|(_, text)| text.as_str()).collect();
    assert!(all.contains(",99.5"), "what was corrected counts");
    for name in ["pump.csv", "pump.parquet"] {
        let file = directory.path().join(name);
        let arguments = ["export", file.to_str().unwrap(), "--asset", "pump-1"];
        let (code, said) = journal_command(&data_dir, &arguments);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("exported 360 samples of 2 tags"), "{said}");
        assert_eq!(replayed(&file, directory.path()), grown, "{name}");
    }
}

#[tokio::test]
async fn a_journal_is_verified_and_exported_while_it_is_in_use_and_damage_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let (code, said) = journal_command(&data_dir, &["verify"]);
    assert!(
        code != Some(0) && said.contains("there is no journal"),
        "{said}"
    );
    filled(&data_dir).await;
    let in_use = open(&data_dir);
    let (code, said) = journal_command(&data_dir, &["verify"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("samples of 3 tags"), "{said}");
    let (code, said) = journal_command(&data_dir, &["export", "-"]);
    assert!(
        code == Some(1) && said.contains("--asset: pump-1, pump-2"),
        "{said}"
    );
    let some = [
        "export",
        "-",
        "--asset",
        "pump-2",
        "--from",
        "2026-01-31T00:06:00",
        "--to",
        "2026-01-31T00:08:00",
    ];
    let (code, said) = journal_command(&data_dir, &some);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "Timestamp,tag,value,quality,timed",
            "2026-01-31T00:06:00Z,amps,10.75,good,source",
            "2026-01-31T00:07:00Z,amps,,bad,source"
        ]
    );
    let (_, said) = journal_command(
        &data_dir,
        &["export", "-", "--asset", "pump-2", "--tag", "ams"],
    );
    assert!(said.contains("no tag \"ams\"; it has amps"), "{said}");

    let segment = std::fs::read_dir(data_dir.join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("seg-")
        })
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let (code, said) = journal_command(&data_dir, &["verify"]);
    assert_eq!(code, Some(74), "{said}");
    assert!(
        said.contains("DAMAGED") && said.contains(segment.to_str().unwrap()),
        "{said}"
    );
    assert_eq!(
        std::fs::read(&segment).unwrap(),
        bytes,
        "nothing was changed"
    );
    drop(in_use);
}
