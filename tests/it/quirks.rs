//! Stores and environments of others, each with a quirk of its own, and the binary against them: `run` delivers, or holds and
//! says the right reason; `check` says beforehand what `run` will meet. The service against the same quirks is in `sim::quirks`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::Value;

use crate::commands::{Daemon, gateway, lookoutd, show, text};
use crate::preload::Library;
use crate::proxy::{Fault, Rule};
use crate::rig::{Objects, Store, directory};

/// Lets a process's pauses and deadlines pass ten times as fast.
static HURRY: Library = Library::of("tests/it/quirks/hurry.c");
/// A day's worth of patience on a busy machine.
const LONG: Duration = Duration::from_secs(150);

/// What becomes of windows.
pub enum Fate {
    /// They are delivered; the log has this.
    Delivered(&'static str),
    /// They are not, for a reason with these words, of this code, until the quirk is gone.
    Waits(&'static str, &'static str),
}

/// What becomes of executions.
pub enum Served {
    /// They succeed.
    Succeed,
    /// They fail with these words until the quirk is gone.
    Fail(&'static str),
    /// The same, after they have been tried again for as long as a store may be away.
    FailLate(&'static str),
}

/// One quirk, and what comes of it.
pub struct Quirk {
    pub name: &'static str,
    pub rules: Vec<Rule>,
    fate: Fate,
    /// Exit status of `check`, and what it says.
    check: (i32, &'static str),
    pub served: Served,
}

/// Every quirk that we know of.
pub fn quirks() -> Vec<Quirk> {
    use Fate::{Delivered, Waits};
    use Served::{Fail, FailLate, Succeed};
    let condition = |status, code| {
        vec![Rule::all(
            Method::PUT,
            Fault::RefuseHeader("if-none-match", status, code),
        )]
    };
    let checksums = vec![Rule::all(
        Method::PUT,
        Fault::RefuseHeader("x-amz-checksum", 501, "NotImplemented"),
    )];
    let puts = |fault| vec![Rule::all(Method::PUT, fault)];
    const NO_CONDITION: &str = "has no conditional creates";
    const EMPTY_TOKEN: &str = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                               <NextContinuationToken></NextContinuationToken></ListBucketResult>";
    vec![
        Quirk {
            name: "501 to a condition",
            rules: condition(501, "NotImplemented"),
            fate: Delivered("the store refuses If-None-Match"),
            check: (3, NO_CONDITION),
            served: Succeed,
        },
        Quirk {
            name: "400 to a condition",
            rules: condition(400, "InvalidArgument"),
            fate: Delivered("the store refuses If-None-Match"),
            check: (3, NO_CONDITION),
            served: Succeed,
        },
        Quirk {
            name: "501 without a word to a condition",
            rules: condition(501, ""),
            fate: Delivered("the store refuses If-None-Match"),
            check: (3, NO_CONDITION),
            served: Succeed,
        },
        Quirk {
            name: "refused checksums",
            rules: checksums,
            fate: Waits("store-refuses", "AWS_REQUEST_CHECKSUM_CALCULATION"),
            check: (3, "AWS_REQUEST_CHECKSUM_CALCULATION"),
            served: Fail("AWS_REQUEST_CHECKSUM_CALCULATION"),
        },
        Quirk {
            name: "301 without a word",
            rules: puts(Fault::Answer(301, "")),
            fate: Waits("store-refuses", "in another region"),
            check: (3, "in another region"),
            served: Fail("in another region"),
        },
        Quirk {
            name: "no XML",
            rules: puts(Fault::Portal),
            fate: Waits("store-unreachable", "answers in its place"),
            check: (3, "answers in its place"),
            served: FailLate("answers in its place"),
        },
        Quirk {
            name: "409",
            rules: puts(Fault::Answer(409, "OperationAborted")),
            fate: Waits("store-unreachable", "OperationAborted"),
            check: (3, "OperationAborted"),
            served: FailLate("OperationAborted"),
        },
        Quirk {
            name: "an empty token",
            rules: vec![Rule {
                path: "/plant".into(),
                ..Rule::all(Method::GET, Fault::Document(EMPTY_TOKEN))
            }],
            fate: Waits("store-unreachable", "stands still"),
            check: (0, "takes conditional creates"),
            served: FailLate("stands still"),
        },
        Quirk {
            name: "a slow link",
            rules: vec![Rule::any(
                usize::MAX,
                Fault::Slow(Duration::from_millis(700)),
            )],
            fate: Delivered("window shipped"),
            check: (0, "takes conditional creates"),
            served: Succeed,
        },
        Quirk {
            name: "silence",
            rules: vec![Rule::any(usize::MAX, Fault::Hang)],
            fate: Waits("store-unreachable", "timed out"),
            check: (3, "timed out"),
            served: FailLate("no answer in time"),
        },
        Quirk {
            name: "silence once",
            rules: vec![Rule::any(1, Fault::Hang)],
            fate: Delivered("window shipped"),
            check: (0, "takes conditional creates"),
            served: Succeed,
        },
    ]
}

#[test]
fn each_quirk_of_a_store_is_delivered_through_or_held_with_its_reason() {
    std::thread::scope(|threads| {
        for quirk in quirks() {
            threads.spawn(move || survives(quirk));
        }
    });
}

fn survives(quirk: Quirk) {
    let name = quirk.name;
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "[admin]\nlisten = \"\"\n");
    for rule in &quirk.rules {
        store.proxy.inject(rule.clone());
    }
    let checked = check(hurried(), &config);
    let said = text(&checked);
    assert_eq!(checked.status.code(), Some(quirk.check.0), "{name}: {said}");
    assert!(said.contains(quirk.check.1), "{name}: {said}");
    store.proxy.heal();
    for rule in &quirk.rules {
        store.proxy.inject(rule.clone());
    }
    let daemon = Daemon::spawn(hurried(), &config);
    match quirk.fate {
        Fate::Delivered(said) => {
            daemon.says(said, 1);
            daemon.says("window shipped", 1);
        }
        Fate::Waits(code, part) => {
            let reason = reason(&config, code);
            let told = format!("{} {}", reason["text"], reason["remedy"]);
            assert!(told.contains(part), "{name}: {told}");
            assert!(store.objects().is_empty(), "{name}");
            store.proxy.heal();
            daemon.says("window shipped", 1);
        }
    }
    assert!(!store.objects().is_empty(), "{name}");
}

/// The binary, with less patience.
fn hurried() -> Command {
    let mut command = lookoutd();
    command.env("LD_PRELOAD", HURRY.path());
    command
}

/// Waits until `status` tells this reason.
fn reason(config: &std::path::Path, code: &str) -> Value {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < LONG {
        let status = lookoutd()
            .args(["status", "--output", "json", "--config", show(config)])
            .output()
            .unwrap();
        last = text(&status);
        let document: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let reasons = document["reasons"].as_array().cloned().unwrap_or_default();
        if let Some(reason) = reasons.into_iter().find(|reason| reason["code"] == code) {
            return reason;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    panic!("no {code}: {last}");
}

fn check(mut command: Command, config: &std::path::Path) -> Output {
    command
        .args(["check", "--config", show(config)])
        .output()
        .unwrap()
}

#[test]
fn what_is_there_is_not_overwritten_in_a_store_without_conditional_creates() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "[admin]\nlisten = \"\"\n");
    let refuse = Fault::RefuseHeader("if-none-match", 501, "NotImplemented");
    store.proxy.inject(Rule::all(Method::PUT, refuse));
    let daemon = Daemon::spawn(lookoutd(), &config);
    daemon.says("window shipped", 1);
    for key in store.objects().keys() {
        let requests: Vec<Method> = store
            .proxy
            .seen()
            .into_iter()
            .filter(|seen| seen.path.ends_with(key.as_str()) && seen.status != 501)
            .map(|seen| seen.method)
            .collect();
        assert_eq!(requests, [Method::HEAD, Method::PUT], "{key}");
    }
    drop(daemon);
    let others: Objects = store
        .objects()
        .into_keys()
        .map(|key| (key, b"another gateway's".to_vec()))
        .collect();
    for (key, bytes) in &others {
        store.place(key, bytes);
    }
    std::fs::remove_dir_all(directory.path().join("data")).unwrap();
    let daemon = Daemon::spawn(lookoutd(), &config);
    daemon.says("a key is taken by other bytes", 1);
    let after = store.objects();
    for (key, bytes) in &others {
        assert_eq!(&after[key], bytes, "{key}");
    }
}

#[test]
fn checksums_are_left_out_where_the_sdk_is_told_so() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "[admin]\nlisten = \"\"\n");
    for name in ["x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer"] {
        let refuse = Fault::RefuseHeader(name, 501, "NotImplemented");
        store.proxy.inject(Rule::any(usize::MAX, refuse));
    }
    let told = |mut command: Command| {
        command.env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required");
        command.env("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required");
        command
    };
    let checked = check(told(lookoutd()), &config);
    assert!(checked.status.success(), "{}", text(&checked));
    let daemon = Daemon::spawn(told(lookoutd()), &config);
    daemon.says("window shipped", 1);
}

// --- credentials ---

#[test]
fn credentials_that_come_later_or_are_replaced_are_taken_without_a_restart() {
    std::thread::scope(|threads| {
        for (first, said) in [
            (None, "credentials is not there"),
            (Some(String::new()), "credentials is empty"),
            (Some(keys("AKIDWRONG", "secret")), "InvalidAccessKeyId"),
        ] {
            threads.spawn(move || {
                let directory = directory();
                let store = Store::start();
                let file = directory.path().join("credentials");
                if let Some(first) = &first {
                    std::fs::write(&file, first).unwrap();
                }
                let config = gateway(directory.path(), &store, "[admin]\nlisten = \"\"\n");
                let configured = std::fs::read_to_string(&config).unwrap();
                let own = store.credentials();
                let configured = configured.replace(show(&own), show(&file));
                std::fs::write(&config, configured).unwrap();
                let daemon = Daemon::spawn(lookoutd(), &config);
                let reason = reason(&config, "store-refuses");
                let told = format!("{} {}", reason["text"], reason["remedy"]);
                assert!(told.contains(said), "{told}");
                std::fs::copy(&own, &file).unwrap();
                let replaced = Instant::now();
                daemon.says("window shipped", 1);
                assert!(replaced.elapsed() < Duration::from_secs(60), "{said}");
            });
        }
    });
}

fn keys(id: &str, secret: &str) -> String {
    format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
}

/// Answers every request with one JSON document, and writes down what it was asked.
fn metadata(document: String) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.push(byte[0]);
            }
            noted
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&request).into_owned());
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{document}",
                document.len()
            );
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    (port, asked)
}

#[test]
fn neither_this_machine_nor_its_metadata_is_asked_through_a_proxy() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let configured = std::fs::read_to_string(&config).unwrap();
    let without: String = configured
        .lines()
        .filter(|line| !line.starts_with("credentials_file"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&config, &without).unwrap();
    let (port, asked) = metadata(format!(
        "{{\"AccessKeyId\":\"{}\",\"SecretAccessKey\":\"{}\",\"Token\":\"t\",\"Expiration\":\"2099-01-01T00:00:00Z\"}}",
        store.keys.access_key, store.keys.secret_key
    ));
    let (proxy, proxied) = metadata("{}".into());
    let environment = |mut command: Command| {
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            command.env(name, format!("http://127.0.0.1:{proxy}"));
        }
        command
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .env(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                format!("http://localhost:{port}/creds"),
            )
            .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "container-token");
        command
    };
    let checked = check(environment(lookoutd()), &config);
    assert!(checked.status.success(), "{}", text(&checked));
    let asked = asked.lock().unwrap().clone();
    assert!(
        asked.iter().any(|it| it.contains("container-token")),
        "{asked:?}"
    );
    assert!(proxied.lock().unwrap().is_empty(), "{proxied:?}");
    // What is elsewhere still goes through it.
    let away = without.replace(&store.proxy.endpoint(), "http://store.example:9000");
    std::fs::write(&config, away).unwrap();
    assert_eq!(
        check(environment(lookoutd()), &config).status.code(),
        Some(3)
    );
    let proxied = proxied.lock().unwrap().clone();
    assert!(proxied.iter().any(|it| it.contains("store.example")));
}

// --- the environment's settings ---

#[test]
fn endpoints_of_the_environment_are_asked_in_path_style_and_paths_are_kept() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let configured = std::fs::read_to_string(&config).unwrap();
    let port = store.proxy.endpoint();
    let port = port.rsplit(':').next().unwrap();
    let local = format!("http://localhost:{port}");
    let without = configured.replace(
        &format!("endpoint_url = \"{}\"\n", store.proxy.endpoint()),
        "",
    );
    assert_ne!(without, configured);
    let profile = directory.path().join("config");
    let lines = format!("[default]\nregion = us-east-1\nendpoint_url = {local}\n");
    std::fs::write(&profile, lines).unwrap();
    std::fs::write(&config, &without).unwrap();
    for (name, value) in [
        ("AWS_ENDPOINT_URL_S3", local.as_str()),
        ("AWS_ENDPOINT_URL", &local),
        ("AWS_CONFIG_FILE", show(&profile)),
    ] {
        let mut command = lookoutd();
        command.env(name, value);
        let checked = check(command, &config);
        assert!(checked.status.success(), "{name}: {}", text(&checked));
    }
    let asked = |from: usize| -> Vec<String> {
        let seen = store.proxy.seen();
        seen.into_iter().skip(from).map(|seen| seen.path).collect()
    };
    let paths = asked(0);
    assert!(paths.len() >= 4, "{paths:?}");
    assert!(
        paths.iter().all(|it| it.starts_with("/plant/input/")),
        "{paths:?}"
    );
    for path in ["/s3", "/s3/"] {
        let from = store.proxy.seen().len();
        let whole = format!("{}{path}", store.proxy.endpoint());
        let with = configured.replace(&store.proxy.endpoint(), &whole);
        std::fs::write(&config, with).unwrap();
        check(lookoutd(), &config);
        let paths = asked(from);
        assert!(
            !paths.is_empty() && paths.iter().all(|it| it.starts_with("/s3/plant/input/")),
            "{path}: {paths:?}"
        );
    }
}

#[test]
fn what_needs_a_person_is_said_at_once_with_what_to_set() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "[admin]\nlisten = \"\"\n");
    let configured = std::fs::read_to_string(&config).unwrap();
    let endpoint = store.proxy.endpoint();
    for wrong in [
        "minio:9000",
        "127.0.0.1:9000",
        "ftp://minio:9000",
        "http://",
    ] {
        std::fs::write(&config, configured.replace(&endpoint, wrong)).unwrap();
        let checked = lookoutd()
            .args(["check", "--offline", "--config", show(&config)])
            .output()
            .unwrap();
        let said = text(&checked);
        assert_eq!(checked.status.code(), Some(78), "{wrong}: {said}");
        assert!(
            said.contains("endpoint_url") && said.contains("https://"),
            "{said}"
        );
    }
    // The same in the environment, where only a request meets it.
    let own = format!("endpoint_url = \"{endpoint}\"\n");
    std::fs::write(&config, configured.replace(&own, "")).unwrap();
    let mut command = lookoutd();
    command.env("AWS_ENDPOINT_URL", "minio:9000");
    let said = text(&check(command, &config));
    assert!(said.contains("\"minio:9000\" is not an endpoint"), "{said}");
    let nowhere = configured.replace("region = \"us-east-1\"\n", "");
    std::fs::write(&config, nowhere).unwrap();
    let checked = check(lookoutd(), &config);
    assert_eq!(checked.status.code(), Some(3));
    assert!(
        text(&checked).contains("set s3.region"),
        "{}",
        text(&checked)
    );
    let daemon = Daemon::spawn(lookoutd(), &config);
    let reason = reason(&config, "store-refuses");
    let remedy = reason["remedy"].as_str().unwrap();
    assert!(remedy.contains("s3.region"), "{remedy}");
    let again = daemon.log();
    assert!(
        !again
            .iter()
            .any(|line| line.contains("will be tried again")),
        "{again:?}"
    );
}
