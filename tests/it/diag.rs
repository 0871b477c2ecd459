//! The support bundle: it is written whatever is wrong, it tells what a helper needs, it changes nothing, and no secret of
//! the machine is in it, wherever the secret lies.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::commands::{Daemon, gateway, lookoutd, show, text};
use crate::rig::{Store, directory};

/// Everything in a bundle by its name, and the bytes of the archive as they lie in it.
fn open(path: &Path) -> (BTreeMap<String, String>, Vec<u8>) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    let mut parts = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let (_, name) = name.split_once('/').unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        parts.insert(name.to_owned(), text);
    }
    (parts, bytes)
}

#[track_caller]
fn json(parts: &BTreeMap<String, String>, name: &str) -> Value {
    serde_json::from_str(&parts[name])
        .unwrap_or_else(|error| panic!("{name}: {error}: {}", parts[name]))
}

#[track_caller]
fn written(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Every file of a directory with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

const PARTS: [&str; 15] = [
    "README.txt",
    "archive.json",
    "clock.json",
    "configuration.toml",
    "files.json",
    "health.json",
    "ledger.json",
    "log.txt",
    "machine.json",
    "metrics.txt",
    "notifications.json",
    "service.json",
    "spool.json",
    "unit.txt",
    "version.json",
];

/// One secret for every place; all contain this.
const PLANTED: &str = "pl4nted";

#[test]
fn no_secret_of_this_machine_is_in_the_bundle_wherever_it_lies() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let store = Store::start();
    // Free again when it is to be listened on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    for (name, secret) in [
        ("admin-token", format!("{PLANTED}-admin-token-0001\n")),
        ("notify-secret", format!("{PLANTED}-notify-secret-0001\n")),
        (
            "tls.key",
            format!(
                "-----BEGIN PRIVATE KEY-----\nMIGH{PLANTED}AgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQ\n-----END PRIVATE KEY-----\n"
            ),
        ),
        (
            "aws-config",
            format!(
                "[default]\nregion = us-east-1\n[profile plant]\naws_secret_access_key = {PLANTED}/profile+key==\n\
                 credential_process = /usr/bin/get --pin {PLANTED}-process\n"
            ),
        ),
        (
            "aws-credentials",
            format!(
                "[default]\naws_access_key_id = AKIA{PLANTED}\naws_secret_access_key = {PLANTED}\\\"quoted\"key\n"
            ),
        ),
    ] {
        std::fs::write(at(name), secret).unwrap();
    }
    let more = format!(
        "[admin]\nlisten = \"127.0.0.1:{port}\"\ntoken_file = \"{}\"\n[notify]\n\
         webhook = \"http://me:{PLANTED}-password@127.0.0.1:9/services/{PLANTED}-hook?key={PLANTED}-query\"\n\
         secret_file = \"{}\"\ncommand = [\"/bin/true\", \"--pin={PLANTED}-argument\"]\nname = \"gw7\"\n",
        show(&at("admin-token")),
        show(&at("notify-secret"))
    );
    let config = gateway(directory.path(), &store, &more);
    let environment = [
        ("AWS_SECRET_ACCESS_KEY", format!("{PLANTED}-environment")),
        ("AWS_SESSION_TOKEN", format!("{PLANTED}-session")),
        ("AWS_CONFIG_FILE", show(&at("aws-config")).to_owned()),
        (
            "AWS_SHARED_CREDENTIALS_FILE",
            show(&at("aws-credentials")).to_owned(),
        ),
        ("PLANT_DB_PASSWORD", format!("{PLANTED}-variable")),
        (
            "HTTPS_PROXY",
            format!("http://me:{PLANTED}-proxy@127.0.0.1:9"),
        ),
        ("NO_PROXY", "127.0.0.1,localhost".to_owned()),
    ];
    let mut command = lookoutd();
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let daemon = Daemon::spawn(command, &config);
    daemon.says("console, metrics and health are up", 1);
    daemon.says("window shipped", 1);
    // Names that somebody chose, and an error that quotes what it should not.
    let data = at("data");
    std::fs::write(data.join(format!("{PLANTED}-name")), "x").unwrap();
    std::fs::create_dir(data.join(format!("spool/{PLANTED}-entry"))).unwrap();
    std::fs::create_dir(data.join(format!("quarantine/{PLANTED}-aside"))).unwrap();
    let ledger = rusqlite::Connection::open(data.join("ledger.db")).unwrap();
    ledger
        .execute(
            "UPDATE window SET last_error = ?1",
            [format!(
                "PUT https://s3/b/k?X-Amz-Signature={PLANTED}00ff: {PLANTED}/profile+key== refused"
            )],
        )
        .unwrap();
    // A log that quotes every one of them, as a careless program would.
    let keys = std::fs::read_to_string(store.credentials()).unwrap();
    let mut log = daemon.log().join("\n") + "\n";
    for name in [
        "admin-token",
        "notify-secret",
        "tls.key",
        "aws-config",
        "aws-credentials",
    ] {
        let secret = std::fs::read_to_string(at(name)).unwrap();
        log += &format!("{secret}\n{}\n{secret:?}\n", Value::from(secret.as_str()));
        for word in secret.split_whitespace() {
            log += &format!(
                "a word: {word}, {}\n",
                percent_encoding::utf8_percent_encode(word, percent_encoding::NON_ALPHANUMERIC)
            );
        }
    }
    for (name, value) in &environment {
        log += &format!("{value}\n{name}={value}\n");
    }
    log += &format!(
        "{keys}\n{more}\nauthorization: Bearer {PLANTED}-bearer\n{{\"password\":\"{PLANTED}-json\"}}\n\
         POST /services/{PLANTED}-hook?key={PLANTED}-query failed\nsecond to last\nlast line of the log\n"
    );
    std::fs::write(at("log"), log).unwrap();

    let mut diag = lookoutd();
    diag.envs(environment.iter().map(|(name, value)| (name, value)));
    let out = at("bundle.tar.gz");
    let output = diag
        .args([
            "diag",
            "--config",
            show(&config),
            "--out",
            show(&out),
            "--log",
            show(&at("log")),
        ])
        .args(["--set", &format!("admin.token={PLANTED}-flag")])
        .args(["--set", &format!("admin.tls_key={}", show(&at("tls.key")))])
        .output()
        .unwrap();
    let said = written(&output);
    let (parts, bytes) = open(&out);
    assert_eq!(parts.keys().map(String::as_str).collect::<Vec<_>>(), PARTS);
    // It has what a helper needs.
    let settings = &parts["configuration.toml"];
    for part in [
        format!("{}:", show(&config)),
        "webhook = \"http://[redacted]@127.0.0.1:9/[redacted]\"".into(),
        "command = [\"/bin/true\",\"[redacted]\"]".into(),
        format!("token_file = \"{}\"", show(&at("admin-token"))),
    ] {
        assert!(settings.contains(&part), "{part} not in {settings}");
    }
    let ledger = json(&parts, "ledger.json");
    assert_eq!(ledger["check"], "ok", "{ledger}");
    assert_eq!(ledger["problems"], Value::Array(Vec::new()), "{ledger}");
    assert!(
        ledger["tables"]["window"]["rows"].as_u64() >= Some(1),
        "{ledger}"
    );
    assert_eq!(ledger["newest_windows"][0]["state"], "shipped");
    assert!(
        ledger["newest_windows"][0]["last_error"]
            .as_str()
            .unwrap()
            .contains("refused")
    );
    let files = json(&parts, "files.json");
    assert_eq!(files["other_entries"], 1, "{files}");
    assert_eq!(files["directory"]["mode"], "0700");
    assert_eq!(
        files["entries"]["credentials"],
        Value::Null,
        "a gateway has no key pair: {files}"
    );
    assert!(
        files["beside_it"]["notify.secret_file"]["mode"].is_string(),
        "{files}"
    );
    let spool = json(&parts, "spool.json");
    assert_eq!(
        (&spool["waiting"], &spool["set_aside"]),
        (&0.into(), &1.into()),
        "{spool}"
    );
    assert!(
        parts["metrics.txt"].contains("lookoutd_build_info"),
        "{}",
        parts["metrics.txt"]
    );
    assert!(json(&parts, "health.json")["ready"].is_boolean());
    assert!(
        json(&parts, "clock.json")["offset_seconds_by_one_question"].is_number(),
        "{}",
        parts["clock.json"]
    );
    let machine = json(&parts, "machine.json");
    assert!(
        machine["disk_of_data_dir"]["free_bytes"].as_u64() > Some(0),
        "{machine}"
    );
    assert!(machine["memory"]["MemAvailable"].is_string());
    let names = machine["daemon"]["environment_names"].as_array().unwrap();
    assert!(
        names.contains(&"AWS_SECRET_ACCESS_KEY".into())
            && !names.contains(&"PLANT_DB_PASSWORD".into()),
        "{names:?}"
    );
    assert_eq!(
        json(&parts, "version.json")["version"],
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(json(&parts, "notifications.json")["check"], "ok");
    assert!(
        parts["log.txt"].ends_with("second to last\nlast line of the log\n"),
        "{}",
        parts["log.txt"]
    );
    for name in PARTS.iter().filter(|name| **name != "README.txt") {
        assert!(
            said.contains(name) && parts["README.txt"].contains(name),
            "{name} is not listed in {said}"
        );
    }
    // And no secret: not in a part, not in a name, not in what was said.
    let key = keys
        .lines()
        .find_map(|line| line.strip_prefix("aws_secret_access_key = "))
        .unwrap();
    for secret in [PLANTED, key] {
        for (name, part) in &parts {
            let line = part.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} in {name}: {line:?}");
        }
        let all = String::from_utf8_lossy(&bytes);
        assert!(
            !all.contains(secret) && !said.contains(secret),
            "{secret}: {said}"
        );
    }
    assert_eq!(
        std::fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // The same name a second time would replace what somebody has not sent yet.
    let again = lookoutd()
        .args([
            "diag",
            "--offline",
            "--config",
            show(&config),
            "--out",
            show(&out),
        ])
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("not there yet"), "{}", text(&again));
}

#[test]
fn a_configuration_that_cannot_be_read_or_does_not_fit_is_told_without_what_it_quotes() {
    let directory = directory();
    let config = directory.path().join("lookoutd.toml");
    let out = |n: usize| directory.path().join(format!("{n}.tar.gz"));
    let data = directory.path().join("data");
    for (n, (broken, part)) in [
        // The error of the parser quotes the line.
        (
            format!("[notify]\nwebhook = \"https://h/{PLANTED}\n"),
            "TOML parse error at line 2",
        ),
        (
            format!("[admin]\ntoken = \"{PLANTED}\"\n[s3]\nsecret_access_key = \"{PLANTED}\"\n"),
            "admin.token is not a known key",
        ),
        (
            format!("[notify]\nwebhook = \"hooks.example.com/{PLANTED}\"\n"),
            "notify.webhook is not an address",
        ),
        (
            format!("[s3]\nbucket = \"b\"\nendpoint_url = \"http://me:{PLANTED}@h:1\"\n"),
            "source.history is needed",
        ),
        (
            format!("[notify]\ntimeout = \"5s\"\nwebhook = 5\ncommand = \"{PLANTED}\"\n"),
            "notify.command has a value that does not fit",
        ),
        (
            format!("[source]\nparquet = \"s3://me:{PLANTED}@b/k\"\n"),
            "source.tags is needed",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::write(&config, broken).unwrap();
        let output = lookoutd()
            .args([
                "diag",
                "--offline",
                "--config",
                show(&config),
                "--data-dir",
                show(&data),
                "--out",
                show(&out(n)),
            ])
            .output()
            .unwrap();
        let said = written(&output);
        let (parts, bytes) = open(&out(n));
        let settings = &parts["configuration.toml"];
        assert!(settings.contains(part), "{n}: {settings}");
        assert!(
            !String::from_utf8_lossy(&bytes).contains(PLANTED),
            "{n}: {settings}"
        );
        assert!(!said.contains(PLANTED), "{said}");
    }
    assert!(!data.exists(), "a look makes no data directory");
}

#[test]
fn a_damaged_data_directory_is_told_of_and_left_as_it_is() {
    let directory = directory();
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("spool/20260101T000000Z-PT5M")).unwrap();
    std::fs::create_dir_all(data.join("archive")).unwrap();
    std::fs::create_dir_all(data.join("service")).unwrap();
    std::fs::write(
        data.join("ledger.db"),
        b"SQLite format 3\0 and then nothing that is one",
    )
    .unwrap();
    std::fs::write(data.join("archive/index.db"), b"no database at all").unwrap();
    // A whole database, of which a page in the middle is overwritten.
    let state = data.join("service/state.db");
    let db = rusqlite::Connection::open(&state).unwrap();
    db.execute_batch(
        "CREATE TABLE execution (n INTEGER PRIMARY KEY, status TEXT); CREATE INDEX by_status ON execution (status);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
         INSERT INTO execution SELECT n, 'SUCCESS' FROM c;",
    )
    .unwrap();
    drop(db);
    let mut bytes = std::fs::read(&state).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    std::fs::write(&state, bytes).unwrap();
    let before = contents(&data);
    let out = directory.path().join("bundle.tar.gz");
    let output = lookoutd()
        .args([
            "diag",
            "--offline",
            "--data-dir",
            show(&data),
            "--out",
            show(&out),
        ])
        .output()
        .unwrap();
    let said = written(&output);
    for part in [
        "ledger.json          NOT THERE",
        "archive.json         NOT THERE",
        "service.json         NOT THERE",
        "1 windows wait, 1 damaged",
        "there is no",
    ] {
        assert!(said.contains(part), "{part:?} not in {said}");
    }
    let (parts, _) = open(&out);
    assert!(
        parts["spool.json"].contains("manifest.json is missing"),
        "{}",
        parts["spool.json"]
    );
    assert!(
        parts["service.json"].contains("is damaged")
            || json(&parts, "service.json")["check"] != "ok"
    );
    assert_eq!(contents(&data), before, "a look changes nothing");

    // To standard output, for a container without a place to write to.
    let piped = lookoutd()
        .args(["diag", "--offline", "--data-dir", show(&data), "--out", "-"])
        .output()
        .unwrap();
    assert!(
        piped.status.success() && text(&piped).contains("ledger.json"),
        "{}",
        piped.status
    );
    std::fs::write(directory.path().join("piped.tar.gz"), &piped.stdout).unwrap();
    assert_eq!(
        open(&directory.path().join("piped.tar.gz")).0.len(),
        PARTS.len()
    );
}

#[test]
fn a_data_directory_that_may_not_be_read_gives_a_bundle_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("ledger.db"), "x").unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o000)).unwrap();
    let out = directory.path().join("bundle.tar.gz");
    let arguments = [
        "diag",
        "--offline",
        "--data-dir",
        show(&data),
        "--out",
        show(&out),
    ];
    // Root may read everything.
    let as_root = rustix::process::geteuid().is_root();
    let output = if as_root {
        let binary = env!("CARGO_BIN_EXE_lookoutd");
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", binary];
        match Command::new("setpriv")
            .args(nobody)
            .args(arguments)
            .env_remove("LOOKOUTD_CONFIG")
            .output()
        {
            Ok(output) if !text(&output).contains("failed to execute") => output,
            other => {
                crate::skipped::say(format!(
                    "setpriv does not run the binary as nobody: {other:?}"
                ));
                return;
            }
        }
    } else {
        lookoutd().args(arguments).output().unwrap()
    };
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    let said = written(&output);
    for name in ["ledger.json", "spool.json", "files.json", "archive.json"] {
        let line = said
            .lines()
            .find(|line| line.trim().starts_with(name))
            .unwrap();
        assert!(
            line.contains("NOT THERE") && line.contains("may not be read by"),
            "{line}"
        );
    }
    let (parts, _) = open(&out);
    assert_eq!(json(&parts, "files.json")["directory"]["mode"], "0000");
    assert!(
        parts["README.txt"].contains("as far as"),
        "{}",
        parts["README.txt"]
    );
}
