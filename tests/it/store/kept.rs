//! `lookoutd store retention` from outside: what it tells and what it deletes, in the directory of `run` and in that of `serve`.

use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::clock::Clock;
use lookoutd::feed::{Entry, Ledger, State};
use lookoutd::signal::{Cadence, Window};
use lookoutd::store::export::Contents;
use lookoutd::store::{Options, Store};
use serde_json::Value;

use crate::commands::{json, run, succeed};

/// What the embedded store's bucket of `run` is called.
const EMBEDDED: &str = "lookoutd";

/// A data directory whose objects were written a month ago: `run`'s input, output, and what somebody else put beside them.
struct Plant {
    directory: tempfile::TempDir,
    written: DateTime<Utc>,
}

impl Plant {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let written = Utc::now() - TimeDelta::days(30);
        let options = Options {
            clock: Clock::manual(written),
            ..Options::default()
        };
        let plant = Self { directory, written };
        std::fs::create_dir(plant.data_dir()).unwrap();
        let store = Store::open(&plant.data_dir().join("s3"), &options).unwrap();
        store.create_bucket(EMBEDDED).unwrap();
        let mut keys: Vec<String> = (0..10).map(|n| plant.input(n)).collect();
        keys.extend(["input/notes.csv".into(), "exports/a".into()]);
        for key in keys {
            store.put_blocking(EMBEDDED, &key, b"x").unwrap();
        }
        plant
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn window(&self, n: i64) -> Window {
        let start = self.written.timestamp() / 300 * 300 + n * 300;
        let start = DateTime::from_timestamp(start, 0).unwrap();
        Window::new(start, Cadence::Pt5m).unwrap()
    }

    fn input(&self, n: i64) -> String {
        let stamp = self.window(n).start().format("%Y%m%d%H%M%S");
        format!("input/pump_{stamp}.csv")
    }

    fn asked(&self, more: &[&str]) -> Vec<String> {
        let data_dir = self.data_dir();
        let place = ["--data-dir", data_dir.to_str().unwrap()];
        let mut all = vec!["store", "retention"];
        all.extend(more);
        all.extend(place);
        all.into_iter().map(str::to_owned).collect()
    }

    /// Prefix, objects, due and waiting of each rule.
    fn told(&self, more: &[&str]) -> Vec<(String, u64, u64, u64)> {
        let asked = self.asked(&[more, &["--output", "json"]].concat());
        let told = json(&asked.iter().map(String::as_str).collect::<Vec<_>>());
        let number = |one: &Value, name: &str| one[name].as_u64().unwrap();
        let told = told.as_array().unwrap().iter().map(|one| {
            let prefix = one["prefix"].as_str().unwrap().to_owned();
            let (objects, due) = (number(one, "objects"), number(one, "due"));
            (prefix, objects, due, number(one, "waiting"))
        });
        told.collect()
    }

    fn keys(&self) -> Vec<String> {
        keys(&self.data_dir().join("s3"))
    }
}

fn keys(root: &Path) -> Vec<String> {
    Contents::open(root).unwrap().keys(EMBEDDED).unwrap()
}

fn told(prefix: &str, objects: u64, due: u64, waiting: u64) -> (String, u64, u64, u64) {
    (prefix.to_owned(), objects, due, waiting)
}

#[test]
fn where_run_was_its_input_goes_when_it_is_done_with_and_nothing_else() {
    let plant = Plant::new();
    let (ledger, _) = Ledger::open(&plant.data_dir(), plant.written).unwrap();
    for n in 0..10 {
        let entry = Entry::new(&plant.window(n), State::Spooled);
        assert!(ledger.record(&entry).unwrap());
        if n < 6 {
            ledger.shipped(&plant.window(n), plant.written).unwrap();
        }
    }
    drop(ledger);
    let wanted = [told("input/", 10, 6, 4), told("output/", 0, 0, 0)];
    assert_eq!(plant.told(&["--dry-run"]), wanted);
    assert_eq!(plant.told(&[]), wanted);
    assert_eq!(plant.keys().len(), 12, "telling deletes nothing");
    assert_eq!(plant.told(&["--apply"]), wanted);
    let left: Vec<String> = ["exports/a".into(), "input/notes.csv".into()]
        .into_iter()
        .chain((6..10).map(|n| plant.input(n)))
        .collect();
    assert_eq!(plant.keys(), left);
}

/// A service has no input of its own: what gateways elsewhere put there is theirs.
#[test]
fn where_only_serve_was_nothing_goes_that_is_not_configured() {
    let plant = Plant::new();
    assert_eq!(plant.told(&["--dry-run"]), []);
    assert_eq!(plant.told(&["--apply"]), []);
    assert_eq!(plant.keys().len(), 12);
    let config = plant.directory.path().join("lookoutd.toml");
    let rules = "[store]\nrules = [\"exports/=7d\", \"input/=forever\"]\n";
    std::fs::write(&config, rules).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let wanted = [told("exports/", 1, 1, 0), told("input/", 11, 0, 0)];
    assert_eq!(plant.told(&[&config[..], &["--apply"]].concat()), wanted);
    assert_eq!(plant.keys().len(), 11);
}

#[test]
fn where_the_tag_list_cannot_be_read_the_command_says_so_and_deletes_nothing() {
    let plant = Plant::new();
    drop(Ledger::open(&plant.data_dir(), plant.written).unwrap());
    let config = plant.directory.path().join("lookoutd.toml");
    let tags = plant.directory.path().join("tags.csv");
    let text = format!(
        "[source]\nhistory = \"h.parquet\"\ntags = \"{}\"\n",
        tags.display()
    );
    std::fs::write(&config, text).unwrap();
    let asked = plant.asked(&["--config", config.to_str().unwrap(), "--apply"]);
    let refused = run(&asked.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("tags.csv"), "{said}");
    assert_eq!(plant.keys().len(), 12);
}

/// Both commands end once, with the status that no unit restarts after, and begin no empty store in its place.
#[test]
fn a_database_that_is_gone_ends_run_and_serve_with_74() {
    let plant = Plant::new();
    let (data_dir, database) = (plant.data_dir(), plant.data_dir().join("s3/store.db"));
    std::fs::remove_file(&database).unwrap();
    let place = ["--data-dir", data_dir.to_str().unwrap()];
    let listen = ["--listen", "127.0.0.1:0", "--s3-listen", "127.0.0.1:0"];
    let embedded = ["--set", "service.s3_listen=127.0.0.1:0"];
    let runs = [
        ["run", "--once"].to_vec(),
        embedded.to_vec(),
        place.to_vec(),
    ]
    .concat();
    let serves = [["serve"].to_vec(), listen.to_vec(), place.to_vec()].concat();
    for command in [runs, serves] {
        let ended = run(&command);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(74), "{command:?} {said}");
        assert!(
            said.contains("put the database back from a backup"),
            "{said}"
        );
        assert!(!database.exists());
    }
}

/// What an export wrote is on disk and can be read; it changes nothing where it came from.
#[test]
fn an_export_by_the_command_is_told_in_numbers() {
    let plant = Plant::new();
    let (data_dir, out) = (plant.data_dir(), plant.directory.path().join("out"));
    let said = succeed(&[
        "store",
        "export",
        out.to_str().unwrap(),
        "--data-dir",
        data_dir.to_str().unwrap(),
    ]);
    assert!(said.contains("exported 12 objects, 12 bytes"), "{said}");
    assert_eq!(std::fs::read(out.join("lookoutd/exports/a")).unwrap(), b"x");
    assert!(!data_dir.join("s3/hold").exists());
}

/// What strangers send to the real binary is a warning with a number, and nothing of the protocol's crate is an error of ours.
#[test]
fn what_strangers_ask_of_serve_is_counted_and_no_error() {
    use std::io::{BufRead, BufReader, Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (data_dir, free) = (directory.path().join("data"), "127.0.0.1:0");
    let mut serve = crate::commands::lookoutd()
        .args([
            "serve",
            "--listen",
            free,
            "--s3-listen",
            free,
            "--admin-listen",
            "",
        ])
        .args(["--data-dir", data_dir.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(serve.stdout.take().unwrap()).lines();
    let line = said.find_map(|line| line.ok().filter(|line| line.starts_with("S3 ")));
    let line = line.expect("where the store is reached");
    let address = line.split("http://").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap();
    let ask = |first: &str, more: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = format!("{first} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for _ in 0..3 {
        for first in [
            "GET /",
            "GET /lookoutd/k",
            "DELETE /lookoutd/k",
            "PUT /other",
        ] {
            let answer = ask(first, "Content-Length: 0\r\n");
            assert!(answer.starts_with("HTTP/1.1 403"), "{first} {answer}");
            assert!(answer.contains("x-amz-request-id"), "{answer}");
        }
    }
    let odd = ask(
        "GET /lookoutd/k",
        "Authorization: AWS4-HMAC-SHA256 nonsense\r\n",
    );
    assert!(odd.contains("AuthorizationHeaderMalformed"), "{odd}");
    let told = || std::fs::read_to_string(&log).unwrap();
    for _ in 0..500 {
        if told().contains("\"refused\":10,") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    serve.kill().unwrap();
    serve.wait().unwrap();
    let log = told();
    assert!(!log.contains("ERROR"), "{log}");
    for count in ["\"refused\":1,", "\"refused\":10,"] {
        assert!(log.contains(count), "{count} {log}");
    }
}
