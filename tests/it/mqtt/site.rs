//! The way of docs/sources.md, with the binary: a sample plant, mosquitto, `simulate` and `run`, to files in the embedded S3.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Mosquitto;
use crate::commands::{lookoutd, succeed};
use crate::rig::directory;

/// A process that is ended with the test.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str], directory: &Path) -> Running {
        let mut command = lookoutd();
        command.args(arguments).current_dir(directory);
        Running(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn configuration(url: &str) -> String {
    format!(
        r#"data_dir = "data"
[source]
tags = "plant/tags_description.csv"
[input.plant]
kind = "mqtt"
url = "{url}"
payload = "json"
time = "/time"
quality = "/quality"
[admin]
listen = ""
[service]
listen = "127.0.0.1:0"
s3_listen = "127.0.0.1:0"
"#
    )
}

#[test]
fn a_plant_that_speaks_mqtt_is_in_the_embedded_s3_with_ten_lines_of_configuration() {
    let Some(mosquitto) = Mosquitto::start(&[]) else {
        return;
    };
    let directory = directory();
    let root = directory.path();
    let path = |name: &str| root.join(name).display().to_string();
    succeed(&[
        "sample",
        &path("plant"),
        "--addresses",
        "--days",
        "2",
        "--signals",
        "8",
    ]);
    std::fs::write(root.join("lookoutd.toml"), configuration(&mosquitto.url())).unwrap();
    // A window of five minutes is a second.
    let since = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    let rehearsal = ["--speed", "300", "--since", &since];
    let config = ["--config", "lookoutd.toml"];
    let run: Vec<&str> = [&["run"][..], &config, &rehearsal].concat();
    let _run = Running::start(&run, root);
    let url = mosquitto.url();
    let history = [
        "--history",
        "plant/signals.parquet",
        "--tags",
        "plant/tags_description.csv",
    ];
    let simulate = [&["simulate", "--to", &url][..], &history, &rehearsal].concat();
    let simulate = Running::start(&simulate, root);
    // Beside both, what comes is seen by tag.
    let test = lookoutd()
        .args([
            "source",
            "test",
            "--config",
            "lookoutd.toml",
            "--for",
            "3s",
            "--output",
            "json",
        ])
        .current_dir(root)
        .output()
        .unwrap();
    let seen: Value = serde_json::from_slice(&test.stdout).unwrap();
    let tags = seen["tags"].as_array().unwrap();
    assert_eq!(tags.len(), 8, "{seen}");
    assert!(
        tags.iter().all(|tag| tag["samples"].as_u64() > Some(0)),
        "{seen}"
    );
    assert_eq!(seen["never_came"].as_array().map(Vec::len), Some(0));
    // And what is there can be listed.
    let browse = ["source", "browse", "--url", &url, "--for", "2s"];
    let list = succeed(&browse);
    assert_eq!(list.lines().count(), 9, "{list}");
    let end = Instant::now() + Duration::from_secs(90);
    let windows = [
        "windows",
        "list",
        "--data-dir",
        &path("data"),
        "--output",
        "json",
    ]
    .map(str::to_owned);
    let shipped = loop {
        let output = lookoutd().args(&windows).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let all = answer
            .as_array()
            .or_else(|| answer["windows"].as_array())
            .cloned();
        let shipped: Vec<Value> = all
            .unwrap_or_default()
            .into_iter()
            .filter(|window| {
                (window["state"] == "shipped" || window["state"] == "partial")
                    && window["rows"].as_u64().is_some_and(|rows| rows >= 5)
            })
            .collect();
        if shipped.len() >= 3 {
            break shipped;
        }
        assert!(
            Instant::now() < end,
            "three windows in the bucket: {answer}"
        );
        std::thread::sleep(Duration::from_millis(300));
    };
    assert!(
        shipped
            .iter()
            .all(|window| window["files"].as_u64() > Some(0)),
        "{shipped:?}"
    );
    drop(simulate);
}
