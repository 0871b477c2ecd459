//! `lookoutd results import`: folders of every era, from a directory and from a bucket, as `results`, `executions list` and
//! the console show them afterwards.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::executions::Place;
use lookoutd::ops::site::Site;
use lookoutd::signal::{Cadence, NameFormat};
use serde_json::Value;

use crate::admin::Desk;
use crate::commands::lookoutd;
use crate::rig::{Store, at, directory};

/// The lines of one window as the service wrote them in an era. The third line is an anomaly.
fn window(era: &str, start: DateTime<Utc>) -> (&'static str, String) {
    let mut text = String::new();
    for minute in 1..=5 {
        let anomalous = minute == 3;
        let time = start + TimeDelta::minutes(minute);
        let stamp = time.format("%Y-%m-%dT%H:%M:%S%.6f");
        let prediction = u8::from(anomalous);
        if era == "v0" {
            writeln!(text, "{},{prediction}", time.format("%Y-%m-%d %H:%M:%S")).unwrap();
            continue;
        }
        write!(
            text,
            "{{\"timestamp\": \"{stamp}\", \"prediction\": {prediction}"
        )
        .unwrap();
        if era >= "v2" {
            let reason = if anomalous {
                "ANOMALY_DETECTED"
            } else {
                "NO_ANOMALY_DETECTED"
            };
            write!(text, ", \"prediction_reason\": \"{reason}\"").unwrap();
        }
        if era >= "v3" {
            let score = if anomalous { 0.91 } else { 0.2 };
            write!(text, ", \"anomaly_score\": {score}").unwrap();
        }
        if anomalous || era >= "v4" {
            text.push_str(", \"diagnostics\": [{\"name\": \"pump\\\\a\", \"value\": 0.25}, {\"name\": \"pump\\\\b\", \"value\": 0.75}]");
        }
        text.push_str("}\n");
    }
    (
        if era == "v0" {
            "results.csv"
        } else {
            "results.jsonl"
        },
        text,
    )
}

const ERAS: [&str; 5] = ["v0", "v1", "v2", "v3", "v4"];

/// Two windows of each era: key below the output prefix, and bytes.
fn output() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (index, era) in ERAS.into_iter().enumerate() {
        for window_of_era in 0..2 {
            let start = at("2021-08-31T12:00:00Z")
                + TimeDelta::minutes(5 * (index as i64 * 2 + window_of_era));
            let (name, text) = window(era, start);
            files.insert(
                format!("{}/{name}", start.format("%Y-%m-%dT%H:%M:%SZ")),
                text,
            );
        }
    }
    files
}

fn lay_out(root: &Path) {
    for (name, text) in output() {
        put(&root.join(name), &text);
    }
}

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    lookoutd()
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap()
}

#[track_caller]
fn json(data_dir: &Path, arguments: &[&str], code: i32) -> Value {
    let output = run(data_dir, arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn import<'a>(from: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "results",
        "import",
        from,
        "--scheduler",
        "pump",
        "--output",
        "json",
    ];
    arguments.extend(more);
    arguments
}

fn archived(data_dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![data_dir.join("archive/pump")];
    while let Some(path) = left.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => left.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) if path.exists() => found.push(path),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

#[test]
fn folders_of_every_era_are_imported_once_and_shown_by_every_command_and_the_console() {
    let directory = directory();
    let (data, old) = (
        directory.path().join("data"),
        directory.path().join("old/output"),
    );
    lay_out(&old);
    put(&old.join("readme.txt"), "not a result");
    let from = old.to_str().unwrap();

    let look = json(&data, &import(from, &["--dry-run"]), 0);
    assert_eq!((&look["imported"], &look["rows"]), (&10.into(), &50.into()));
    assert!(archived(&data).is_empty(), "a look has written");

    let report = json(&data, &import(from, &[]), 0);
    assert_eq!(report["imported"], 10);
    assert_eq!(report["anomalous_windows"], 10);
    assert_eq!(report["ignored"], 1);
    assert_eq!(report["first"], "2021-08-31T12:00:00Z");
    assert_eq!(report["last"], "2021-08-31T12:45:00Z");
    let files = archived(&data);
    assert_eq!(files.len(), 20);
    let again = json(&data, &import(from, &[]), 0);
    assert_eq!(
        (&again["imported"], &again["already_there"]),
        (&0.into(), &10.into())
    );
    assert_eq!(archived(&data), files);

    // Byte for byte.
    let raw = run(
        &data,
        &["results", "--scheduler", "pump", "--format", "jsonl"],
    );
    let expected: String = output().into_values().collect();
    assert_eq!(String::from_utf8_lossy(&raw.stdout), expected);
    let table = run(&data, &["results"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("10 windows, 10 with anomalies, 0 failed"),
        "{table}"
    );
    assert!(table.contains("pump\\b 75 %"), "{table}");

    // The newest of them, and how many are not.
    let newest = run(&data, &["results", "-n", "3"]);
    let newest = String::from_utf8_lossy(&newest.stdout).into_owned();
    assert!(
        newest.contains("3 windows, 3 with anomalies")
            && newest.contains("7 older windows are left out"),
        "{newest}"
    );
    assert!(
        newest.contains("12:45:00Z") && !newest.contains("12:30:00Z"),
        "{newest}"
    );
    let some = run(&data, &["results", "--format", "csv", "-n", "4"]);
    assert_eq!(
        String::from_utf8_lossy(&some.stdout).lines().count(),
        1 + 4 * 5
    );
    let told = String::from_utf8_lossy(&some.stderr).into_owned();
    assert!(told.contains("6 windows are left out"), "{told}");
    let listed = json(
        &data,
        &[
            "executions",
            "list",
            "pump",
            "--archived",
            "--output",
            "json",
        ],
        0,
    );
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 10);
    assert_eq!(
        listed[0]["data_start"], "2021-08-31T12:45:00Z",
        "the newest first"
    );
    assert_eq!(listed[0]["data_end"], "2021-08-31T12:50:00Z");

    let index = data.join("archive/index.db");
    let state = Place::archive(index, Cadence::Pt5m, NameFormat::default())
        .open()
        .unwrap();
    let schedulers = state
        .schedulers(DateTime::<Utc>::MAX_UTC, "", None, "", 10)
        .unwrap();
    assert_eq!(schedulers.len(), 1);
    assert_eq!(
        (schedulers[0].name.as_str(), schedulers[0].model.as_str()),
        ("pump", "imported")
    );
    let rows = state.executions("pump", None, None, None, 20).unwrap();
    assert_eq!(rows.len(), 10);
    assert!(
        rows.iter()
            .all(|row| row.file.as_ref().is_some_and(|file| file.is_file()))
    );
    assert_eq!(
        state.events("pump", None, None, 20).unwrap().len(),
        10,
        "one anomalous row in the middle of each window"
    );
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(console(&data));
}

/// The pages and the chart, years later, in a process whose service knows nothing of it.
async fn console(data: &Path) {
    let store = lookoutd::s3::local_client("http://127.0.0.1:9", "a", "b");
    let desk = Desk::over(Site {
        inputs: Vec::new(),
        store: None,
        clock: Clock::manual(at("2026-11-24T10:00:00Z")),
        assets: Vec::new(),
        history: None,
        archive: Some(Place::archive(
            data.join("archive/index.db"),
            Cadence::Pt5m,
            NameFormat::default(),
        )),
        s3: Some(store),
        vitals: lookoutd::vitals::Vitals::default(),
    })
    .await;
    assert!(
        desk.page("/schedulers")
            .await
            .contains("/scheduler?name=pump")
    );
    let page = desk.page("/scheduler?name=pump").await;
    assert!(
        page.contains("2021-08-31") && page.contains("pump\\b"),
        "{page}"
    );
    let chart: Value = serde_json::from_str(&desk.page("/api/score?name=pump").await).unwrap();
    assert_eq!(chart["windows"], 10);
    let scores = chart["score"].as_array().unwrap();
    let highest = scores.iter().filter_map(Value::as_f64).fold(0.0, f64::max);
    assert_eq!(
        highest, 1.0,
        "eras without a score count as their prediction"
    );
}

#[test]
fn a_bucket_is_imported_like_a_directory_and_keeps_where_the_results_lie() {
    let store = Store::start();
    for (key, text) in output() {
        store.place(
            &format!("demo/inference-data/output/{key}"),
            text.as_bytes(),
        );
    }
    let config = store.scratch("import").join("lookoutd.toml");
    std::fs::write(
        &config,
        format!(
            "[s3]\nbucket = \"plant\"\nendpoint_url = \"{}\"\nregion = \"us-east-1\"\ncredentials_file = \"{}\"\n\
             [source]\nparquet = \"x\"\ntags = \"y\"\n",
            store.proxy.endpoint(),
            store.credentials().display()
        ),
    )
    .unwrap();
    let data = store.scratch("import/data");
    let more = ["--config", config.to_str().unwrap()];
    let from = "s3://plant/demo/inference-data/output/";
    assert_eq!(json(&data, &import(from, &more), 0)["imported"], 10);
    let listed = json(
        &data,
        &[
            "executions",
            "list",
            "pump",
            "--archived",
            "--output",
            "json",
        ],
        0,
    );
    assert_eq!(
        listed[0]["result"]["key"],
        "demo/inference-data/output/2021-08-31T12:45:00Z/results.jsonl"
    );
    assert_eq!(json(&data, &import(from, &more), 0)["already_there"], 10);
}

#[test]
fn what_cannot_be_imported_is_refused_with_file_line_and_reason_and_the_rest_is_taken() {
    let directory = directory();
    let (data, old) = (directory.path().join("data"), directory.path().join("old"));
    lay_out(&old);
    let (_, good) = window("v3", at("2021-08-31T13:00:00Z"));
    put(
        &old.join("2021-08-31T13:00:00Z/results.jsonl"),
        &good.replacen("\"prediction\": 1", "\"prediction\": 7", 1),
    );
    put(&old.join("2021-08-31T13:05:00Z/results.jsonl"), &good);
    put(&old.join("latest/results.jsonl"), &good);
    put(
        &old.join("2021-08-31T13:10:00Z/results.csv"),
        "timestamp,prediction,anomaly_score\n2021-08-31 13:11:00,1,0.9\n",
    );
    std::fs::create_dir_all(old.join("2021-08-31T13:15:00Z")).unwrap();
    std::os::unix::fs::symlink(
        "/etc/passwd",
        old.join("2021-08-31T13:15:00Z/results.jsonl"),
    )
    .unwrap();
    let report = json(&data, &import(old.to_str().unwrap(), &[]), 3);
    assert_eq!(report["imported"], 10);
    let refused = report["refused"].as_array().unwrap();
    let of = |part: &str| {
        refused
            .iter()
            .find(|one| one["file"].as_str().unwrap().contains(part))
            .unwrap_or_else(|| panic!("{part} was taken: {refused:?}"))
    };
    assert_eq!(refused.len(), 5, "{refused:?}");
    assert_eq!(of("13:00:00Z")["line"], 3);
    assert!(
        of("13:05:00Z")["reason"]
            .as_str()
            .unwrap()
            .contains("outside the window")
    );
    assert!(
        of("latest/")["reason"]
            .as_str()
            .unwrap()
            .contains("2021-08-31T12:45:00Z")
    );
    assert_eq!(of("13:10:00Z")["line"], 1);
    assert!(of("13:15:00Z")["reason"].as_str().unwrap().contains("link"));

    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let said = run(
        &data,
        &[
            "results",
            "import",
            empty.to_str().unwrap(),
            "--scheduler",
            "pump",
        ],
    );
    assert_eq!(said.status.code(), Some(1));
    for name in ["../../evil", "a/b", ""] {
        let said = run(
            &data,
            &[
                "results",
                "import",
                old.to_str().unwrap(),
                "--scheduler",
                name,
            ],
        );
        assert!(!said.status.success(), "{name}");
        assert!(String::from_utf8_lossy(&said.stderr).contains("--scheduler"));
    }
    assert!(!directory.path().join("evil").exists());
}

#[test]
fn the_recorded_results_of_the_original_service_are_imported() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/contract");
    let directory = directory();
    let (data, old) = (directory.path().join("data"), directory.path().join("old"));
    let recorded_files = [
        ("results_v1_2021_docs.jsonl", "2021-03-11T22:20:00Z"),
        (
            "results_v1_2021_seed_notebook.jsonl",
            "2021-04-03T05:55:00Z",
        ),
        (
            "results_v3_2022_workshop_excerpt.jsonl",
            "2022-07-29T11:30:00Z",
        ),
        ("results_v4_2024_docs.jsonl", "2024-03-11T22:20:00Z"),
    ];
    for (name, start) in recorded_files {
        let text = std::fs::read_to_string(recorded.join(name)).unwrap();
        // The two documented files tell of the same minutes.
        let text = if name.contains("v4") {
            text.replace("2021-03-11", "2024-03-11")
        } else {
            text
        };
        put(&old.join(start).join("results.jsonl"), &text);
    }
    let report = json(&data, &import(old.to_str().unwrap(), &[]), 0);
    assert_eq!(report["imported"], recorded_files.len(), "{report}");
}
