//! The client half against the service, over HTTP with the real SDKs: keeping the scheduler in every state it can be in, and
//! archiving executions through restarts, crashes, damage and outages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use lookoutd::inference::{
    Archive, EnsureError, Execution, Index, Parts, ResultObject, Roster, Target, Wanted, Watcher,
    describe, ensure, hint, read_results,
};
use lookoutd::s3::Bucket;
use lookoutd::signal::{Cadence, Delimiter, NameFormat};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::service::plant::{BUCKET, Plant, ROLE, at, client, output};

pub fn target(wanted: Wanted) -> Target {
    Target {
        scheduler: "s".into(),
        model: "model-1".into(),
        wanted,
        cadence: Cadence::Pt5m,
        naming: NameFormat {
            delimiter: Delimiter::Hyphen,
            ..NameFormat::default()
        },
        delay_minutes: 0,
        input_bucket: BUCKET.into(),
        input_prefix: "in/".into(),
        output_bucket: BUCKET.into(),
        output_prefix: "out/".into(),
        role_arn: ROLE.into(),
        tags: vec![("lookoutd:late-files".into(), "score".into())],
    }
}

pub fn archive(plant: &Plant) -> Archive {
    Archive::new(plant.directory.path().join("archive"))
}

pub async fn watcher(plant: &Plant, wanted: Wanted) -> Watcher {
    watcher_of(plant, wanted, plant.api.clone()).await
}

async fn watcher_of(
    plant: &Plant,
    wanted: Wanted,
    client: aws_sdk_lookoutequipment::Client,
) -> Watcher {
    // A scheduler that is only observed is not copied either.
    let copy = (wanted != Wanted::Observe)
        .then(|| (Bucket::new(plant.s3.clone(), BUCKET), "archive/".into()));
    Watcher::open(Parts {
        roster: Roster::new(client.clone()),
        client,
        target: target(wanted),
        s3: plant.s3.clone(),
        archive: archive(plant),
        copy,
        poll: Duration::from_secs(30),
        clock: plant.clock.clone(),
        vitals: Default::default(),
    })
    .await
    .unwrap()
}

/// Name and bytes of every file of the archive but the index.
pub fn files(plant: &Plant) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(directory: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("index.")
            {
                found.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(archive(plant).root(), &mut found);
    found.sort();
    found
}

// === the scheduler ===

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_scheduler_is_created_as_configured_and_a_kept_one_left_alone() {
    let plant = Plant::start().await;
    let ensured = ensure(&plant.api, &target(Wanted::Running)).await.unwrap();
    let have = ensured.scheduler.unwrap();
    assert_eq!((have.status.as_str(), ensured.calls), ("RUNNING", 1));
    assert_eq!(have.differences(&target(Wanted::Running)), []);
    assert_eq!(have.delimiter.as_deref(), Some("-"));
    let again = ensure(&plant.api, &target(Wanted::Running)).await.unwrap();
    assert_eq!(again.calls, 0);
    assert_eq!(again.scheduler.unwrap().updated_at, have.updated_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_scheduler_that_differs_is_stopped_updated_and_started() {
    let plant = Plant::start().await;
    plant
        .run("s", |request| {
            request
                .data_delay_offset_in_minutes(7)
                .data_output_configuration(output("elsewhere/"))
        })
        .await;
    let ensured = ensure(&plant.api, &target(Wanted::Running)).await.unwrap();
    let have = ensured.scheduler.unwrap();
    assert_eq!((have.status.as_str(), ensured.calls), ("RUNNING", 3));
    assert_eq!(have.differences(&target(Wanted::Running)), []);
    assert_eq!(
        (have.delay_minutes, have.output_prefix.as_str()),
        (0, "out/")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_scheduler_is_started_or_left_stopped_as_wanted() {
    let plant = Plant::start().await;
    let stopped = ensure(&plant.api, &target(Wanted::Stopped)).await.unwrap();
    assert_eq!(stopped.scheduler.unwrap().status, "STOPPED");
    assert_eq!(
        ensure(&plant.api, &target(Wanted::Stopped))
            .await
            .unwrap()
            .calls,
        0
    );
    assert_eq!(
        ensure(&plant.api, &target(Wanted::Observe))
            .await
            .unwrap()
            .calls,
        0
    );
    let started = ensure(&plant.api, &target(Wanted::Running)).await.unwrap();
    assert_eq!(
        (started.scheduler.unwrap().status.as_str(), started.calls),
        ("RUNNING", 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_model_is_said_and_nothing_is_changed() {
    let plant = Plant::start().await;
    let missing = Target {
        model: "model-9".into(),
        ..target(Wanted::Running)
    };
    let error = ensure(&plant.api, &missing).await.unwrap_err();
    assert!(
        matches!(&error, EnsureError::NoModel { model } if model == "model-9"),
        "{error}"
    );
    assert_eq!(describe(&plant.api, "s").await.unwrap(), None);
    plant.run("s", |request| request).await;
    plant.register("model-2").await;
    let wrong = Target {
        model: "model-2".into(),
        ..target(Wanted::Running)
    };
    let error = ensure(&plant.api, &wrong).await.unwrap_err();
    assert!(
        matches!(&error, EnsureError::WrongModel { have, .. } if have == "model-1"),
        "{error}"
    );
    assert_eq!(plant.status("s").await, "RUNNING");
}

// === the archive ===

#[tokio::test(flavor = "multi_thread")]
async fn executions_are_archived_once_through_restarts_and_crashes_between_steps() {
    let plant = Plant::start().await;
    let mut first = watcher(&plant, Wanted::Running).await;
    first.round().await;
    for (start, end) in [
        ("2026-03-01T10:00:00Z", "2026-03-01T10:05:00Z"),
        ("2026-03-01T10:05:00Z", "2026-03-01T10:10:00Z"),
    ] {
        plant.feed(start).await;
        plant.execute("s", end).await;
    }
    first.round().await;
    drop(first);
    let whole = files(&plant);
    assert_eq!(whole.len(), 4, "{whole:?}");
    let results = &whole
        .iter()
        .find(|(path, _)| path.ends_with("s/2026/03/01/100000.jsonl"))
        .unwrap()
        .1;
    assert_eq!(
        String::from_utf8_lossy(results),
        plant.get("out/2026-03-01T10:00:00Z/results.jsonl").await
    );
    assert_eq!(read_results(results).unwrap().len(), 5);
    // The copy in S3 is the same bytes under the same names.
    assert_eq!(
        plant
            .get("archive/s/2026/03/01/100500.jsonl")
            .await
            .into_bytes(),
        whole
            .iter()
            .find(|(path, _)| path.ends_with("100500.jsonl"))
            .unwrap()
            .1
    );
    let day = archive(&plant).root().join("s/2026/03/01");
    // What a crash after each durable step leaves behind.
    let crashes: [&[PathBuf]; 5] = [
        &[],
        &[archive(&plant).root().join("index.db")],
        &[
            archive(&plant).root().join("index.db"),
            day.join("100500.json"),
        ],
        &[
            archive(&plant).root().join("index.db"),
            day.join("100500.json"),
            day.join("100500.jsonl"),
        ],
        &[archive(&plant).root().to_owned()],
    ];
    for lost in crashes {
        for path in lost {
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
                for suffix in ["db-wal", "db-shm"] {
                    let _ = std::fs::remove_file(path.with_extension(suffix));
                }
            }
        }
        let mut again = watcher(&plant, Wanted::Running).await;
        again.round().await;
        again.round().await;
        assert_eq!(files(&plant), whole, "after losing {lost:?}");
        let known = again.index().range("s", None, None).unwrap();
        assert_eq!(known.len(), 2);
        assert!(
            known
                .iter()
                .all(|row| row.archived_at.is_some() && row.summary.rows == 5)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_results_are_set_aside_and_fetched_again() {
    let plant = Plant::start().await;
    let mut first = watcher(&plant, Wanted::Running).await;
    first.round().await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    first.round().await;
    drop(first);
    let whole = files(&plant);
    let path = archive(&plant).root().join("s/2026/03/01/100000.jsonl");
    std::fs::write(&path, b"{\"timestamp\": ").unwrap();
    std::fs::remove_file(archive(&plant).root().join("index.db")).unwrap();
    let mut again = watcher(&plant, Wanted::Running).await;
    again.round().await;
    let mended = files(&plant);
    assert!(whole.iter().all(|file| mended.contains(file)), "{mended:?}");
    assert_eq!(
        mended.len(),
        whole.len() + 1,
        "the damaged file is kept aside: {mended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_execution_is_kept_with_its_reason_and_has_a_hint() {
    let plant = Plant::start().await;
    let mut watcher = watcher(&plant, Wanted::Running).await;
    watcher.round().await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    watcher.round().await;
    let known = watcher
        .index()
        .get("s", at("2026-03-01T10:00:00Z"))
        .unwrap()
        .unwrap();
    assert_eq!(known.execution.status, "FAILED");
    let reason = known.execution.failed_reason.unwrap();
    assert!(
        reason.contains("pump-1") && reason.contains("fan"),
        "{reason}"
    );
    assert!(hint(&reason).unwrap().contains("lookoutd"), "{reason}");
    assert_eq!(files(&plant).len(), 1, "a record and no results");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_scored_hours_late_is_archived_beside_its_failure() {
    let plant = Plant::start().await;
    let mut watcher = watcher(&plant, Wanted::Running).await;
    watcher.round().await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    watcher.round().await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.feed("2026-03-01T13:00:00Z").await;
    plant.execute("s", "2026-03-01T13:05:00Z").await;
    // The late window is scored after the one that was due.
    for _ in 0..4_800 {
        if plant
            .executions("s")
            .await
            .iter()
            .all(|one| one.status().unwrap().as_str() == "SUCCESS")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // The first round moves the cursor beyond the failure, the second asks for it again.
    watcher.round().await;
    watcher.round().await;
    let known = watcher
        .index()
        .get("s", at("2026-03-01T10:00:00Z"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (known.execution.status.as_str(), known.summary.rows),
        ("SUCCESS", 5)
    );
    let day = archive(&plant).root().join("s/2026/03/01");
    for name in [
        "100000.json",
        "100000.late.json",
        "100000.late.jsonl",
        "130000.jsonl",
    ] {
        assert!(day.join(name).exists(), "{name}");
    }
    // An index built again from these files knows the later record.
    drop(watcher);
    std::fs::remove_file(archive(&plant).root().join("index.db")).unwrap();
    let rebuilt = Index::open(&archive(&plant), plant.clock.now()).unwrap();
    assert_eq!(
        rebuilt
            .get("s", at("2026-03-01T10:00:00Z"))
            .unwrap()
            .unwrap()
            .summary
            .rows,
        5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_down_at_the_start_only_delays() {
    let plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    let address = unused().await;
    let api = client(address, "AKIDTEST", "secret");
    let mut watcher = watcher_of(&plant, Wanted::Running, api).await;
    assert!(!watcher.round().await);
    assert!(!watcher.round().await);
    assert!(files(&plant).is_empty());
    let _proxy = Proxy::start(address, plant.address).await;
    watcher.round().await;
    assert_eq!(files(&plant).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_listed_once_and_then_only_what_is_new() {
    const HISTORY: i64 = 3_000;
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    plant.down().await;
    let state = rusqlite::Connection::open(plant.directory.path().join("state/state.db")).unwrap();
    let copied = state
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output,
                                    model_version, model_version_arn, failed_reason)
             SELECT scheduler_uuid, boundary_us - i * 300000000, start_us - i * 300000000, scheduled_us - i * 300000000,
                    status, input, output, model_version, model_version_arn, failed_reason FROM execution, n",
            [HISTORY],
        )
        .unwrap();
    assert_eq!(copied as i64, HISTORY);
    drop(state);
    plant.up().await;
    let address = unused().await;
    let proxy = Proxy::start(address, plant.address).await;
    let mut watcher = watcher_of(
        &plant,
        Wanted::Observe,
        client(address, "AKIDTEST", "secret"),
    )
    .await;
    let mut rounds = 1;
    while watcher.round().await {
        rounds += 1;
    }
    assert!(rounds > 20, "history comes in batches: {rounds}");
    let known = watcher.index().range("s", None, None).unwrap();
    assert_eq!(known.len() as i64, HISTORY + 1);
    assert!(known.iter().all(|row| row.archived_at.is_some()));
    let history = proxy.answered();
    // A restart, and one execution more.
    drop(watcher);
    plant.feed("2026-03-01T10:05:00Z").await;
    plant.execute("s", "2026-03-01T10:10:00Z").await;
    let mut watcher = watcher_of(
        &plant,
        Wanted::Observe,
        client(address, "AKIDTEST", "secret"),
    )
    .await;
    let before = proxy.answered();
    watcher.round().await;
    let new = proxy.answered() - before;
    assert!(
        new < 40_000 && history > 1_000_000,
        "{new} of {history} bytes were read again"
    );
    let newest = watcher.index().newest("s").unwrap().unwrap();
    assert_eq!(newest.execution.data_start, at("2026-03-01T10:05:00Z"));
    assert_eq!(newest.summary.rows, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_of_a_time_to_come_hides_none_that_comes_after_it() {
    let mut plant = Plant::start().await;
    plant.run("s", |request| request).await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    let state = plant.directory.path().join("state/state.db");
    plant.down().await;
    // As of a service whose clock was two days ahead for a moment.
    let ahead = "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output,
                     model_version, model_version_arn, result_key)
                 SELECT scheduler_uuid, boundary_us + 172800000000, start_us + 172800000000, scheduled_us + 172800000000,
                     status, input, output, model_version, model_version_arn, result_key FROM execution";
    let changed = |sql: &str| {
        let state = rusqlite::Connection::open(&state).unwrap();
        assert_eq!(state.execute(sql, []).unwrap(), 1);
    };
    changed(ahead);
    plant.up().await;
    let mut watcher = watcher(&plant, Wanted::Observe).await;
    watcher.round().await;
    let archived = |watcher: &Watcher| -> Vec<String> {
        let known = watcher.index().range("s", None, None).unwrap();
        let archived = known.iter().filter(|row| row.archived_at.is_some());
        archived
            .map(|row| row.execution.data_start.format("%d %H:%M").to_string())
            .collect()
    };
    assert_eq!(archived(&watcher), ["01 10:00", "03 10:00"]);
    drop(watcher);
    plant.down().await;
    changed("DELETE FROM execution WHERE boundary_us = (SELECT max(boundary_us) FROM execution)");
    plant.up().await;
    plant.feed("2026-03-01T10:05:00Z").await;
    plant.execute("s", "2026-03-01T10:10:00Z").await;
    let mut watcher = self::watcher(&plant, Wanted::Observe).await;
    watcher.round().await;
    assert_eq!(archived(&watcher), ["01 10:00", "01 10:05", "03 10:00"]);
}

#[tokio::test]
async fn missing_results_keep_no_older_ones_waiting_and_are_said_as_a_number() {
    let plant = Plant::start().await;
    let mut watcher = watcher(&plant, Wanted::Observe).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Sink(sink.clone()))
            .finish(),
    );
    let mut listed = Vec::new();
    for back in 1..=200 {
        let start = at("2026-03-01T10:00:00Z") - TimeDelta::minutes(5 * back);
        let key = format!("out/{back}/results.jsonl");
        if back > 150 {
            let line =
                start.format("{\"timestamp\": \"%Y-%m-%dT%H:%M:%S.000000\", \"prediction\": 0}\n");
            plant.put(&key, line.to_string()).await;
        }
        listed.push(Execution {
            scheduler: "s".into(),
            model: "model-1".into(),
            model_version: None,
            scheduled: None,
            data_start: start,
            data_end: start + TimeDelta::minutes(5),
            status: "SUCCESS".into(),
            failed_reason: None,
            result: Some(ResultObject {
                bucket: BUCKET.into(),
                key,
            }),
            input: String::new(),
        });
    }
    watcher.index().note(&listed).unwrap();
    while watcher.round().await {}
    for _ in 0..3 {
        watcher.round().await;
    }
    let known = watcher.index().range("s", None, None).unwrap();
    let archived = known.iter().filter(|row| row.archived_at.is_some());
    assert_eq!(archived.count(), 50);
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let warned: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warned.len(), 1, "{text}");
    assert!(warned[0].contains("windows=150"), "{}", warned[0]);
}

#[tokio::test]
async fn an_execution_that_does_not_come_is_said_once() {
    let plant = Plant::start().await;
    let mut watcher = watcher(&plant, Wanted::Running).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    let _guard = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Sink(sink.clone()))
            .finish(),
    );
    watcher.round().await;
    plant.feed("2026-03-01T10:00:00Z").await;
    plant.execute("s", "2026-03-01T10:05:00Z").await;
    watcher.round().await;
    // Two boundaries pass unseen: without catch-up the service runs only the last of the three.
    plant.feed("2026-03-01T10:15:00Z").await;
    plant.execute("s", "2026-03-01T10:20:00Z").await;
    watcher.round().await;
    plant.clock.advance(TimeDelta::minutes(1));
    watcher.round().await;
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let warned: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("expected executions did not come"))
        .collect();
    assert_eq!(warned.len(), 1, "{text}");
    assert!(
        warned[0].contains("windows=2")
            && warned[0].contains("2026-03-01T10:05:00Z")
            && warned[0].contains("2026-03-01T10:10:00Z"),
        "{}",
        warned[0]
    );
    assert!(!text.contains("ERROR"), "{text}");
    assert_eq!(watcher.index().range("s", None, None).unwrap().len(), 2);
}

// === the command line ===

#[tokio::test(flavor = "multi_thread")]
async fn serve_answers_signed_requests_and_stops_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookoutd"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--s3-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "",
            "--data-dir",
        ])
        .arg(directory.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let lines = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        std::io::BufReader::new(out)
            .lines()
            .map(Result::unwrap)
            .take(3)
            .collect::<Vec<_>>()
    })
    .await
    .unwrap();
    let url = lines[0].split_whitespace().last().unwrap().to_owned();
    assert!(
        lines[1].contains("bucket lookoutd") && lines[2].contains("credentials"),
        "{lines:?}"
    );
    let keys = lookoutd::embedded::KeyPair::load_or_create(directory.path()).unwrap();
    let good = lookoutd::inference::local_client(&url, &keys.access_key, &keys.secret_key);
    assert_eq!(
        lookoutd::inference::list_schedulers(&good, "")
            .await
            .unwrap(),
        []
    );
    let wrong = lookoutd::inference::local_client(&url, &keys.access_key, "wrong");
    let error = lookoutd::inference::list_schedulers(&wrong, "")
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("InvalidSignatureException"), "{error}");
    let sent = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let status = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn serve_refuses_other_machines_without_keys() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lookoutd"))
        .args([
            "serve",
            "--no-auth",
            "--listen",
            "0.0.0.0:0",
            "--s3-listen",
            "127.0.0.1:0",
            "--admin-listen",
            "",
            "--data-dir",
        ])
        .arg(directory.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("refusing to listen on 0.0.0.0:0 without access keys"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_beside_a_running_daemon_can_be_read() {
    let plant = Plant::start().await;
    let watcher = watcher(&plant, Wanted::Observe).await;
    let beside = Index::open_existing(&archive(&plant)).unwrap().unwrap();
    assert_eq!(beside.newest("").unwrap(), None);
    drop(watcher);
    assert!(
        Index::open_existing(&Archive::new("/nonexistent"))
            .unwrap()
            .is_none()
    );
}

// === helpers ===

async fn unused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Passes connections on and counts the bytes of the answers.
struct Proxy {
    answered: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn start(listen: SocketAddr, to: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(listen).await.unwrap();
        let answered = Arc::new(AtomicU64::new(0));
        let count = answered.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to, count.clone()));
            }
        });
        Proxy { answered, task }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, to: SocketAddr, count: Arc<AtomicU64>) {
    use tokio::io::AsyncReadExt;
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked =
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
        count.fetch_add(read as u64, Ordering::SeqCst);
        if to_client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    asked.abort();
}

struct Sink(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
