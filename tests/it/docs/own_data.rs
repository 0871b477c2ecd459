//! The two assets of docs/own-data.md, done as it says in one directory: its files, its configuration and all its commands in
//! their order, until both are fed and scored. Only ports and the pace of time are others.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};

use super::two_machines::Process;
use super::{blocks, commands, root, words};
use crate::commands::lookoutd;
use crate::rig::directory;

/// How much faster time runs: a window every three seconds.
const SPEED: &str = "100";

#[test]
fn two_assets_are_fed_from_a_folder_of_parquet_files_as_the_document_says() {
    let text = std::fs::read_to_string(root().join("docs/own-data.md")).unwrap();
    let place = directory();
    let named = blocks(&text, "toml");
    let named: Vec<_> = named.iter().filter(|(name, _)| !name.is_empty()).collect();
    assert_eq!(named.len(), 1);
    for (name, configuration) in named {
        std::fs::write(place.path().join(name), configuration).unwrap();
    }
    let here = |line: &str| {
        let (_, arguments) = line.split_once("lookoutd ").unwrap();
        let mut command: Command = lookoutd();
        command.current_dir(place.path()).args(words(arguments));
        command
    };
    let said = |line: &str| {
        let output = here(line).output().unwrap();
        let (said, errors) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        // Three: something was found out.
        let is_well = matches!(output.status.code(), Some(0 | 3));
        assert!(is_well, "{line}: {:?}: {said}{errors}", output.status);
        said
    };
    let lines = commands(&text);
    let (run, after) = (
        lines
            .iter()
            .position(|line| line.starts_with("lookoutd run"))
            .unwrap(),
        ["lookoutd status", "lookoutd windows", "lookoutd results"],
    );
    for line in &lines[..run] {
        said(line);
    }
    let since = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let mut daemon = here(&lines[run]);
    daemon.args(["--speed", SPEED, "--since", &since]);
    for port in ["service.listen", "service.s3_listen"] {
        daemon.args(["--set", &format!("{port}=127.0.0.1:0")]);
    }
    let daemon = daemon
        .args(["--set", "admin.listen="])
        .stderr(Stdio::null())
        .spawn();
    let daemon = Process(daemon.unwrap());
    let line = |begin: &str| lines.iter().find(|line| line.starts_with(begin)).unwrap();
    let began = Instant::now();
    loop {
        let results = here(line(after[2])).output().unwrap();
        let results = String::from_utf8_lossy(&results.stdout).into_owned();
        let scored = |asset| {
            let mut of = results.lines().filter(|line| line.contains(asset));
            of.any(|line| line.contains("SUCCESS"))
        };
        if scored("machine-01") && scored("machine-02") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{results}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let status = said(line(after[0]));
    assert!(
        status.contains("machine-01") && status.contains("machine-02"),
        "{status}"
    );
    assert!(said(line(after[1])).contains("shipped"));
    daemon.stop();
}
