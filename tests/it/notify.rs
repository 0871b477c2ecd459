//! Notifications over real sockets and real processes: signed, in order, until taken, once; a command that gets nothing but
//! the message; a secret that appears nowhere.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::config::Span;
use lookoutd::executions::Place;
use lookoutd::notify::{Config, Notifier, Pace};
use lookoutd::ops::site::Site;
use lookoutd::vitals::{Code, Trouble};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::{fed, site_of};
use crate::fleet::Fleet;
use crate::proxy::{Fault, Rule};
use crate::rig::Store;

const SECRET: &str = "a-secret-that-nobody-else-knows";
const PATH: &str = "/services/T0/PATHSECRET";
const PACE: Pace = Pace {
    every: Duration::from_millis(50),
    settle: Duration::ZERO,
    pause: Duration::from_millis(20),
};

/// What a receiver does with one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    Status(u16),
    /// Says nothing for longer than anybody waits.
    Hang,
    /// Closes the connection without an answer.
    Cut,
    /// Says 307, to another receiver.
    Elsewhere,
}

/// One request as it came.
#[derive(Clone, Debug)]
struct Got {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// A receiver on loopback: the scripted replies first, then 204 for ever.
struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    script: Arc<Mutex<VecDeque<Reply>>>,
    came: Arc<Notify>,
    stop: CancellationToken,
}

impl Receiver {
    async fn start(script: &[Reply]) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Receiver {
            address: listener.local_addr().unwrap(),
            got: Arc::default(),
            script: Arc::new(Mutex::new(script.iter().copied().collect())),
            came: Arc::default(),
            stop: CancellationToken::new(),
        };
        receiver.listen(listener);
        receiver
    }

    fn listen(&self, listener: TcpListener) {
        let (got, script, came, stop) = (
            self.got.clone(),
            self.script.clone(),
            self.came.clone(),
            self.stop.clone(),
        );
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                tokio::spawn(answer(stream, got.clone(), script.clone(), came.clone()));
            }
        });
    }

    fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until so many requests came.
    async fn until(&self, count: usize) -> Vec<Got> {
        for _ in 0..4_800 {
            if self.got.lock().unwrap().len() >= count {
                return self.got();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("not {count} requests in 120 s: {:#?}", self.got());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn answer(
    mut stream: TcpStream,
    got: Arc<Mutex<Vec<Got>>>,
    script: Arc<Mutex<VecDeque<Reply>>>,
    came: Arc<Notify>,
) {
    loop {
        let Some(request) = read(&mut stream).await else {
            return;
        };
        got.lock().unwrap().push(request);
        came.notify_one();
        let reply = script.lock().unwrap().pop_front();
        let head = match reply.unwrap_or(Reply::Status(204)) {
            Reply::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
            Reply::Elsewhere => {
                "HTTP/1.1 307 X\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".into()
            }
            Reply::Hang => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return;
            }
            Reply::Cut => return,
        };
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Got> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).await.ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(Got {
        line,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
            .1
            .as_str()
    }

    fn message(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// State, kind and subject.
    fn told(&self) -> (String, String, String) {
        let message = self.message();
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        (text("state"), text("kind"), text("subject"))
    }

    /// Checked with another implementation than the product's own.
    fn assert_signed(&self) {
        let signed = format!(
            "{}.{}.{}",
            self.header("webhook-id"),
            self.header("webhook-timestamp"),
            self.body
        );
        let wanted =
            aws_smithy_types::base64::encode(hmac_sha256(SECRET.as_bytes(), signed.as_bytes()));
        assert_eq!(self.header("webhook-signature"), format!("v1,{wanted}"));
        let age = Utc::now().timestamp() - self.header("webhook-timestamp").parse::<i64>().unwrap();
        assert!((0..60).contains(&age), "{age} s old");
        assert_eq!(
            self.header("webhook-id"),
            self.message()["id"].as_str().unwrap()
        );
        assert_eq!(self.line, format!("POST {PATH} HTTP/1.1"));
    }
}

/// How many messages came, each counted once.
fn distinct(got: &[Got]) -> usize {
    let ids: std::collections::BTreeSet<_> =
        got.iter().map(|got| got.header("webhook-id")).collect();
    ids.len()
}

/// RFC 2104 in its own words.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|value| value ^ byte);
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(text)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

fn secret_file(directory: &Path) -> String {
    let path = directory.join("secret");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    path.display().to_string()
}

fn script(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// A notifier over one site.
fn start(
    config: &Config,
    data_dir: &Path,
    site: Site,
) -> (tokio::task::JoinHandle<()>, CancellationToken) {
    let stop = CancellationToken::new();
    let notifier = Notifier::open(config, data_dir).unwrap().unwrap();
    let (sites, seen) = watch::channel(Some(site));
    let task = notifier.start(seen, PACE, stop.clone());
    // The site stays known although its sender is gone.
    drop(sites);
    (task, stop)
}

/// A service's state with an anomaly and so many failing schedulers.
async fn troubled(directory: &Path, failing: usize, name: &str) -> PathBuf {
    let fleet = Fleet {
        schedulers: failing,
        executions: 100,
        with_files: 0,
        name: name.into(),
        reason: format!("Could not find data file {name}"),
        ..Fleet::default()
    };
    let places = fleet
        .write(&directory.join("service"), None, "plant", Utc::now())
        .await;
    // The schedulers wake long after the test.
    let db = rusqlite::Connection::open(&places.state).unwrap();
    db.execute_batch(
        "UPDATE scheduler SET status = 'RUNNING', delay_minutes = 60, due_us = due_us + 3540000000;
         UPDATE execution SET status = 'FAILED', failed_reason = 'Could not find data file' WHERE scheduler_uuid <> 's0'
             AND boundary_us = (SELECT max(boundary_us) FROM execution e WHERE e.scheduler_uuid = execution.scheduler_uuid);",
    )
    .unwrap();
    places.state
}

fn service_site(state: &Path, clock: Clock) -> Site {
    Site {
        inputs: Vec::new(),
        store: None,
        clock,
        assets: Vec::new(),
        history: Some(Place::service(state)),
        s3: None,
        vitals: lookoutd::vitals::Vitals::default(),
        archive: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_signed_retried_through_every_failure_and_kept_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let state = troubled(directory.path(), 3, "pump-42").await;
    let receiver = Receiver::start(&[
        Reply::Status(500),
        Reply::Hang,
        Reply::Cut,
        Reply::Elsewhere,
        Reply::Status(401),
        Reply::Status(204),
        Reply::Status(429),
    ])
    .await;
    let config = Config {
        webhook: receiver.url(),
        secret_file: secret_file(directory.path()),
        timeout: Span(Duration::from_secs(1)),
        name: "gw7".into(),
        ..Config::default()
    };
    let (task, stop) = start(
        &config,
        directory.path(),
        service_site(&state, Clock::system()),
    );
    let got = receiver.until(10).await;
    for request in &got {
        request.assert_signed();
    }
    let first: Vec<_> = got[..6].iter().map(|got| &got.body).collect();
    assert!(
        first.iter().all(|body| *body == first[0]),
        "the same bytes each time"
    );
    let mut told: Vec<_> = got.iter().map(Got::told).collect();
    told.dedup();
    let firing = |kind: &str, subject: &str| ("firing".into(), kind.into(), subject.into());
    assert_eq!(
        told,
        [
            firing("anomaly", "pump-42"),
            firing("execution-failed", "asset-0001"),
            firing("execution-failed", "asset-0002"),
            firing("execution-failed", "asset-0003"),
        ]
    );
    let anomaly = got[0].message();
    assert_eq!(anomaly["gateway"], "gw7");
    assert_eq!(
        anomaly["details"]["sensors"][0]["name"].as_str().unwrap(),
        "centrifugal-pump\\bearing_vibration"
    );
    let failed = got[9].message();
    assert!(
        failed["text"]
            .as_str()
            .unwrap()
            .contains("Could not find data file")
    );
    assert!(
        failed["remedy"].as_str().unwrap().contains("lookoutd plan"),
        "{failed}"
    );
    // Both over: the anomaly with its last window, the failure with its text.
    let db = rusqlite::Connection::open(&state).unwrap();
    db.execute_batch(
        "UPDATE execution SET anomalous = 0 WHERE scheduler_uuid = 's0' AND boundary_us = (SELECT max(boundary_us) FROM execution);
         UPDATE execution SET status = 'SUCCESS' WHERE scheduler_uuid = 's1';",
    )
    .unwrap();
    let got = receiver.until(12).await;
    let mut over: Vec<_> = got[10..].iter().map(Got::told).collect();
    over.sort();
    assert_eq!(
        over,
        [
            ("resolved".into(), "anomaly".into(), "pump-42".into()),
            (
                "resolved".into(),
                "execution-failed".into(),
                "asset-0001".into()
            ),
        ]
    );
    // The next one is another event; the service writes both in one transaction too.
    db.execute_batch(
        "BEGIN; INSERT INTO event SELECT scheduler_uuid, end_us + 120000000, end_us + 180000000, 2, diagnostics FROM event
             WHERE scheduler_uuid = 's0' ORDER BY start_us DESC LIMIT 1;
         INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                                model_version_arn, finished_us, rows, anomalous)
             SELECT scheduler_uuid, boundary_us + 300000000, boundary_us, scheduled_us + 300000000, 'SUCCESS', '{}', '{}', 1, 'v',
                    finished_us + 300000000, 5, 2
             FROM execution WHERE scheduler_uuid = 's0' ORDER BY boundary_us DESC LIMIT 1; COMMIT;",
    )
    .unwrap();
    let got = receiver.until(13).await;
    assert_eq!(
        got[12].told(),
        ("firing".into(), "anomaly".into(), "pump-42".into())
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.got().len(), 13, "and nothing is told twice");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_turns_health_red_is_told_and_so_is_its_end() {
    let store = Store::start();
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let config = Config {
        webhook: receiver.url(),
        secret_file: secret_file(directory.path()),
        leave_out: vec!["clock-stepped".into()],
        ..Config::default()
    };
    let (running, _desk) = fed(&store, |_| {}).await;
    running.settle().await;
    let site = site_of(&running, &store);
    let (task, stop) = start(&config, directory.path(), site.clone());
    store
        .proxy
        .inject(Rule::any(10_000, Fault::Answer(403, "AccessDenied")));
    running.clock.advance(TimeDelta::minutes(5));
    let got = receiver.until(1).await;
    assert_eq!(
        got[0].told(),
        ("firing".into(), "store-refuses".into(), String::new())
    );
    let message = got[0].message();
    assert!(
        message["text"].as_str().unwrap().contains("AccessDenied"),
        "{message}"
    );
    assert_eq!(message["severity"], "problem");
    running
        .feeder
        .vitals()
        .health()
        .stepped(-90, running.clock.now());
    store.proxy.heal();
    running.clock.advance(TimeDelta::minutes(5));
    running.settle().await;
    let got = receiver.until(2).await;
    assert_eq!(
        got[1].told(),
        ("resolved".into(), "store-refuses".into(), String::new())
    );
    // The scheduler it keeps.
    site.assets[0]
        .watched
        .seen("pump", None, "RUNNING", running.clock.now());
    running.clock.advance(TimeDelta::minutes(2));
    let got = receiver.until(3).await;
    assert_eq!(
        got[2].told(),
        ("firing".into(), "scheduler-gone".into(), "pump".into())
    );
    stop.cancel();
    task.await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_that_does_not_come_is_told_and_turns_nothing_red() {
    let directory = tempfile::tempdir().unwrap();
    let state = troubled(directory.path(), 0, "pump-42").await;
    let db = rusqlite::Connection::open(&state).unwrap();
    db.execute_batch("UPDATE execution SET anomalous = 0; DELETE FROM event;")
        .unwrap();
    let receiver = Receiver::start(&[]).await;
    let config = Config {
        webhook: receiver.url(),
        secret_file: secret_file(directory.path()),
        ..Config::default()
    };
    let clock = Clock::manual(Utc::now());
    let site = service_site(&state, clock.clone());
    let (task, stop) = start(&config, directory.path(), site);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(receiver.got().is_empty());
    // It was to wake at most 66 minutes from now.
    clock.advance(TimeDelta::minutes(80));
    let got = receiver.until(1).await;
    assert_eq!(
        got[0].told(),
        (
            "firing".into(),
            "execution-missing".into(),
            "pump-42".into()
        )
    );
    assert_eq!(got[0].message()["severity"], "attention");
    db.execute_batch("UPDATE scheduler SET due_us = due_us + 7200000000")
        .unwrap();
    let got = receiver.until(2).await;
    assert_eq!(
        got[1].told(),
        (
            "resolved".into(),
            "execution-missing".into(),
            "pump-42".into()
        )
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_tells_no_anomaly_and_no_failure_as_over() {
    let directory = tempfile::tempdir().unwrap();
    let state = troubled(directory.path(), 1, "pump-42").await;
    let receiver = Receiver::start(&[]).await;
    let config = Config {
        webhook: receiver.url(),
        secret_file: secret_file(directory.path()),
        ..Config::default()
    };
    let clock = Clock::manual(Utc::now());
    let site = service_site(&state, clock.clone());
    let vitals = site.vitals.clone();
    let (task, stop) = start(&config, directory.path(), site);
    receiver.until(2).await;
    let text = "a window of a time to come is recorded";
    let suspect = Trouble::new(Code::ClockSuspect, clock.now(), text, "set the clock");
    vitals.troubles().raise(suspect);
    receiver.until(3).await;
    clock.advance(-TimeDelta::days(2));
    // Other trouble comes and goes as ever, and each is told by a look at that time.
    let refused = Trouble::new(
        Code::ConfigurationRefused,
        clock.now(),
        "refused",
        "mend it",
    );
    vitals.troubles().raise(refused);
    receiver.until(4).await;
    vitals.troubles().all_over(Code::ConfigurationRefused);
    receiver.until(5).await;
    clock.advance(TimeDelta::days(2));
    vitals.troubles().all_over(Code::ClockSuspect);
    receiver.until(6).await;
    let db = rusqlite::Connection::open(&state).unwrap();
    db.execute_batch(
        "UPDATE execution SET anomalous = 0 WHERE scheduler_uuid = 's0' AND boundary_us = (SELECT max(boundary_us) FROM execution);",
    )
    .unwrap();
    let told: Vec<(String, String)> = receiver
        .until(7)
        .await
        .iter()
        .map(|got| {
            let (state, kind, _) = got.told();
            (state, kind)
        })
        .collect();
    let said = |state: &str, kind: &str| (state.to_owned(), kind.to_owned());
    assert_eq!(
        told,
        [
            said("firing", "anomaly"),
            said("firing", "execution-failed"),
            said("firing", "clock-suspect"),
            said("firing", "configuration-refused"),
            said("resolved", "configuration-refused"),
            said("resolved", "clock-suspect"),
            said("resolved", "anomaly"),
        ]
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_gets_hostile_names_as_json_and_nothing_of_this_process() {
    const EVIL: &str = "$(touch /tmp/owned); `id` \"'\n| <script>";
    let directory = tempfile::tempdir().unwrap();
    let state = troubled(directory.path(), 0, EVIL).await;
    let out = directory.path().join("out");
    let hook = format!(
        "cat >> {out}; env | cut -d= -f1 | sort > {out}.env; echo \"$#$1\" > {out}.args; echo done >&2",
        out = out.display()
    );
    let config = Config {
        command: vec![
            script(directory.path(), "hook", &hook),
            "one argument".into(),
        ],
        ..Config::default()
    };
    let (task, stop) = start(
        &config,
        directory.path(),
        service_site(&state, Clock::system()),
    );
    let read = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", out.display()));
    for _ in 0..4_800 {
        if read(".args").is_ok_and(|text| !text.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let text = read("").unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let message: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(message["subject"], EVIL.replace('\n', " "));
    assert_eq!(read(".args").unwrap(), "1one argument\n");
    for name in read(".env").unwrap().lines() {
        // The shell sets the other three itself.
        assert!(
            ["PATH", "LANG", "PWD", "SHLVL", "_"].contains(&name),
            "{name}"
        );
    }
    assert!(!Path::new("/tmp/owned").exists());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_all_it_started_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let state = troubled(directory.path(), 0, "pump-42").await;
    let log = directory.path().join("log");
    // The first run hangs in a child of its own, the second fails, the third works.
    let hook = format!(
        "echo run >> {log}; n=$(wc -l < {log}); if [ $n = 1 ]; then sleep 60 & echo $! > {log}.pid; wait; fi; [ $n = 3 ]",
        log = log.display()
    );
    let config = Config {
        command: vec![script(directory.path(), "hook", &hook)],
        timeout: Span(Duration::from_secs(1)),
        ..Config::default()
    };
    let (task, stop) = start(
        &config,
        directory.path(),
        service_site(&state, Clock::system()),
    );
    let queue = lookoutd::notify::Queue::open_existing(directory.path())
        .unwrap()
        .unwrap();
    let mut listed = Vec::new();
    for _ in 0..4_800 {
        listed = queue.list(10).unwrap();
        if listed
            .first()
            .is_some_and(|delivery| delivery.state == "sent")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(
        (listed[0].state.as_str(), listed[0].attempts),
        ("sent", 2),
        "{listed:?}"
    );
    let child = std::fs::read_to_string(format!("{}.pid", log.display())).unwrap();
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
    assert!(
        status.is_empty() || status.contains("State:\tZ"),
        "the child lives: {status}"
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_every_answer_each_message_comes_once_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    troubled(&data_dir, 9, "pump-42").await;
    // Killed with the answer to every second request unsaid.
    let script: Vec<_> = (0..12)
        .map(|n| {
            if n % 2 == 0 {
                Reply::Hang
            } else {
                Reply::Status(204)
            }
        })
        .collect();
    let receiver = Receiver::start(&script).await;
    let config = directory.path().join("serve.toml");
    std::fs::write(
        &config,
        format!(
            "[notify]\nwebhook = \"{}\"\nsecret_file = \"{}\"\n[log]\nlevel = \"debug\"\n",
            receiver.url(),
            secret_file(directory.path())
        ),
    )
    .unwrap();
    let log = directory.path().join("log");
    let mut kills = 0;
    while distinct(&receiver.got()) < 6 {
        let seen = receiver.got().len();
        let mut server = serve(&data_dir, &config, &log);
        receiver.until(seen + 1).await;
        // With the answer unsaid, or between it and the note that it came.
        tokio::time::sleep(Duration::from_millis(2 * (kills % 8))).await;
        server.0.kill().unwrap();
        server.0.wait().unwrap();
        kills += 1;
        assert!(kills < 40, "no progress");
    }
    eprintln!("killed {kills} times");
    // From here on everything is answered.
    receiver.script.lock().unwrap().clear();
    let server = serve(&data_dir, &config, &log);
    let mut ids: Vec<(String, String)> = Vec::new();
    for _ in 0..3_000 {
        ids.clear();
        for got in receiver.got() {
            got.assert_signed();
            let id = got.header("webhook-id").to_owned();
            match ids.iter().find(|(known, _)| *known == id) {
                Some((_, body)) => assert_eq!(*body, got.body, "one id, one message"),
                None => ids.push((id, got.body.clone())),
            }
        }
        if ids.len() >= 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(server);
    let subjects: Vec<String> = ids
        .iter()
        .map(|(_, body)| {
            let message: Value = serde_json::from_str(body).unwrap();
            message["subject"].as_str().unwrap().to_owned()
        })
        .collect();
    let wanted =
        std::iter::once("pump-42".to_owned()).chain((1..10).map(|n| format!("asset-{n:04}")));
    assert_eq!(subjects, wanted.collect::<Vec<_>>());
    // Nothing secret was said on the way.
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("notifications are on"), "{said}");
    for part in [SECRET, "PATHSECRET"] {
        assert!(!said.contains(part), "{part} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_command_says_what_was_sent_and_what_came_back_and_the_documents_code_verifies_it()
{
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Reply::Status(204), Reply::Status(500)]).await;
    let hook = script(directory.path(), "hook", "cat > /dev/null; echo paged >&2");
    let config = directory.path().join("lookoutd.toml");
    let text = format!(
        "data_dir = \"{}\"\n[notify]\nwebhook = \"{}\"\nsecret_file = \"{}\"\ncommand = [\"{hook}\"]\n",
        directory.path().join("data").display(),
        receiver.url(),
        secret_file(directory.path()),
    );
    std::fs::write(&config, text).unwrap();
    let run = |arguments: &[&str]| {
        let output = lookoutd()
            .args(arguments)
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = tokio::task::block_in_place(|| run(&["notify", "test"]));
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "sent  webhook-signature: v1,",
        "\"kind\":\"test\"",
        "took  204",
        "took  exit status 0: paged",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
    let got = receiver.got().remove(0);
    got.assert_signed();
    verified_by_the_documents_code(directory.path(), &got);
    let (code, failed) = tokio::task::block_in_place(|| run(&["notify", "test"]));
    assert_eq!(code, Some(69), "{failed}");
    assert!(failed.contains("FAILED  500"), "{failed}");
    let (code, listed) = run(&["notify", "list"]);
    assert_eq!(
        (code, listed.as_str()),
        (Some(0), "0 waiting, 0 held back since the last message\n")
    );
    let (code, checked) = run(&["check", "--offline"]);
    assert_eq!(code, Some(0), "{checked}");
    assert!(
        checked.contains(&format!(
            "notifications    to http://{}/..., {hook}",
            receiver.address
        )),
        "{checked}"
    );
    std::fs::write(directory.path().join("secret"), "short").unwrap();
    let (code, checked) = run(&["check", "--offline"]);
    assert_eq!(code, Some(3), "{checked}");
    assert!(checked.contains("the secret has 5 bytes"), "{checked}");
    for text in [&said, &failed, &listed, &checked] {
        for part in [SECRET, "PATHSECRET"] {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn what_cannot_be_told_is_found_before_anything_starts() {
    let config = Config {
        webhook: "hooks.example.com".into(),
        command: vec!["page".into()],
        per_hour: 0,
        leave_out: vec!["anomalies".into()],
        timeout: Span(Duration::from_millis(1)),
        ..Config::default()
    };
    let problems = config.problems();
    let keys: Vec<_> = problems.iter().map(|(key, _)| *key).collect();
    assert_eq!(
        keys,
        [
            "notify.webhook",
            "notify.command",
            "notify.timeout",
            "notify.per_hour",
            "notify.leave_out"
        ]
    );
    assert!(problems[4].1.contains("execution-failed"), "{problems:?}");
    assert!(Config::default().problems().is_empty() && !Config::default().is_on());
}

/// Runs the five lines of docs/operating.md over a request, and over one that was changed.
fn verified_by_the_documents_code(directory: &Path, got: &Got) {
    let document =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md"))
            .unwrap();
    let code = document
        .split("```python\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    let headers: std::collections::BTreeMap<_, _> = got.headers.iter().cloned().collect();
    std::fs::write(
        directory.join("headers.json"),
        serde_json::to_string(&headers).unwrap(),
    )
    .unwrap();
    std::fs::write(directory.join("body"), &got.body).unwrap();
    let program = format!(
        "{code}\nimport json\nsecret, headers, body = open('secret').read(), json.load(open('headers.json')), open('body', 'rb').read()\n\
         assert verify(secret, headers, body)\nassert not verify(secret, headers, body + b' ')\nassert not verify('other', headers, body)\n"
    );
    match Command::new("python3")
        .args(["-c", &program])
        .current_dir(directory)
        .output()
    {
        Ok(output) => assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(_) => crate::skipped::say("python3 is not installed: the document's code is not run"),
    }
}

fn lookoutd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookoutd"));
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("LOOKOUTD_CONFIG");
    command
}

/// A server that does not outlive its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(data_dir: &Path, config: &Path, log: &Path) -> Server {
    let log = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    let server = lookoutd()
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
        .arg(data_dir)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    Server(server)
}
