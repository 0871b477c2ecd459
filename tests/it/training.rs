//! `lookoutd model` on files, as a person at a command line uses it: train, score, evaluate, with a tag list and without.

use std::path::Path;
use std::process::Output;

use lookoutd::sample::{SampleOptions, write_sample};
use serde_json::Value;
use tempfile::TempDir;

use crate::commands::lookoutd;
use crate::rig::directory;

/// A small plant and a model of it, in files.
fn trained() -> TempDir {
    let directory = directory();
    let options = SampleOptions {
        days: 40,
        signals: 12,
        ..SampleOptions::default()
    };
    write_sample(directory.path(), &options, &mut |_| {}).unwrap();
    let arguments = [
        "train",
        "--parquet",
        "signals.parquet",
        "--tags",
        "tags_description.csv",
    ];
    let more = [
        "--labels",
        "labels.csv",
        "--sampling",
        "PT1M",
        "--out",
        "plant.model",
    ];
    good(model(directory.path(), &[&arguments[..], &more].concat()));
    directory
}

fn model(directory: &Path, arguments: &[&str]) -> Output {
    lookoutd()
        .arg("model")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

#[track_caller]
fn good(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_model_tells_the_components_of_a_history_where_no_tag_list_does() {
    let directory = trained();
    let at = directory.path();
    let range = [
        "--from",
        "2015-11-20T00:00:00",
        "--to",
        "2015-11-20T06:00:00",
    ];
    let score = [
        "score",
        "plant.model",
        "--parquet",
        "signals.parquet",
        "--out",
    ];
    good(model(at, &[&score[..], &["scores.csv"], &range].concat()));
    let tags = ["--tags", "tags_description.csv"];
    good(model(
        at,
        &[&score[..], &["with-tags.csv"], &tags, &range].concat(),
    ));
    let scores = std::fs::read_to_string(at.join("scores.csv")).unwrap();
    assert_eq!(
        scores,
        std::fs::read_to_string(at.join("with-tags.csv")).unwrap()
    );
    let header = scores.lines().next().unwrap();
    assert!(
        header.starts_with("Timestamp,u,anomaly_score,prediction,"),
        "{header}"
    );
    let sensors: Vec<_> = header.split(',').skip(4).collect();
    assert_eq!(sensors.len(), 12);
    assert!(
        sensors.iter().all(|sensor| sensor.contains('\\')),
        "{header}"
    );
    assert!(scores.lines().count() > 300);

    let evaluate = [
        "evaluate",
        "plant.model",
        "--parquet",
        "signals.parquet",
        "--labels",
        "labels.csv",
    ];
    let output = ["--output", "json", "--plot", "picture.png"];
    let answer = good(model(at, &[&evaluate[..], &range, &output].concat()));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(answer["labelled_events"]["total"].is_number(), "{answer}");
    let picture = std::fs::read(at.join("picture.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
}

/// Time and prediction of each row that `model score` gives from `from` to `to`, and its `u`.
fn predictions(directory: &Path, from: &str, to: &str) -> Vec<(String, String, f64)> {
    let score = [
        "score",
        "plant.model",
        "--parquet",
        "signals.parquet",
        "--out",
        "part.csv",
        "--from",
        from,
        "--to",
        to,
    ];
    good(model(directory, &score));
    let scores = std::fs::read_to_string(directory.join("part.csv")).unwrap();
    let lines = scores.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        (
            cells[0].to_owned(),
            cells[3].to_owned(),
            cells[1].parse().unwrap(),
        )
    });
    lines.collect()
}

#[test]
fn a_range_begins_as_a_longer_one_that_holds_it() {
    let directory = trained();
    for start in [
        "2015-11-20T00:00:00",
        "2015-11-21T07:13:00",
        "2015-11-23T15:00:30",
    ] {
        let end = format!("{}23:30:00", &start[..11]);
        let short = predictions(directory.path(), start, &end);
        let long = predictions(directory.path(), "2015-11-18T00:00:00", &end);
        let tail = &long[long.len() - short.len()..];
        assert!(
            short.len() > 100 && short[0].0.as_str() >= start,
            "{:?}",
            short[0]
        );
        for (a, b) in short.iter().zip(tail) {
            assert_eq!((&a.0, &a.1), (&b.0, &b.1), "from {start}");
            assert!((a.2 - b.2).abs() < 1e-6, "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_column_that_two_components_could_own_or_none_is_refused_with_what_to_do() {
    let directory = trained();
    let at = directory.path();
    let tags = std::fs::read_to_string(at.join("tags_description.csv")).unwrap();
    let tag = tags.lines().nth(1).unwrap().split(',').next().unwrap();
    for (name, columns) in [
        ("both", ["one", "two"].map(|part| format!("{part}__{tag}"))),
        ("none", ["one__x", "one__y"].map(str::to_owned)),
    ] {
        let mut text = format!("Timestamp,{}\n", columns.join(","));
        for minute in 0..3 * 1440_i64 {
            let time = chrono::DateTime::from_timestamp(1_767_225_600 + minute * 60, 0).unwrap();
            let wave = (minute as f64 / 100.0).sin();
            text += &format!(
                "{},{wave},{}\n",
                time.format("%Y-%m-%dT%H:%M:%S"),
                wave * 2.0 + (minute % 7) as f64 / 10.0
            );
        }
        std::fs::write(at.join("rows.csv"), text).unwrap();
        let out = format!("{name}.model");
        good(model(
            at,
            &[
                "train",
                "--parquet",
                "rows.csv",
                "--sampling",
                "PT1M",
                "--out",
                &out,
            ],
        ));
        let refused = model(
            at,
            &[
                "score",
                &out,
                "--parquet",
                "signals.parquet",
                "--out",
                "no.csv",
            ],
        );
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success());
        let expected = match name {
            "both" => format!(
                "its column {tag} may be one\\{tag} or two\\{tag} of the model; give the tag list (--tags)"
            ),
            _ => "is called like a sensor of the model, such as x".to_owned(),
        };
        assert!(errors.contains(&expected), "{errors}");
        assert!(!at.join("no.csv").exists());
    }
}
