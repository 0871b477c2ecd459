//! The binary as a script and an operator meet it: every command as documented, exit codes, JSON, signals, secrets, and an
//! error for every kind of bad input that names the place and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lookoutd::sample::{SampleOptions, write_sample};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::record::RowAccessor;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

use crate::proxy::{Fault, Rule};
use crate::rig::{Store, directory};

/// The binary with an environment in which no AWS client looks anywhere.
pub fn lookoutd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookoutd"));
    for (name, _) in std::env::vars() {
        if name.starts_with("AWS_") || name.starts_with("LOOKOUTD") {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .stdin(Stdio::null());
    command
}

pub fn run(arguments: &[&str]) -> Output {
    lookoutd().args(arguments).output().expect("lookoutd runs")
}

#[track_caller]
pub fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {:?}: {}",
        output.status,
        text(&output)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
pub fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(arguments)).expect("one JSON document")
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub fn show(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A sample plant of one day and eight signals.
fn plant(directory: &Path) -> (PathBuf, PathBuf) {
    let options = SampleOptions {
        days: 1,
        signals: 8,
        ..SampleOptions::default()
    };
    let plant = directory.join("plant");
    write_sample(&plant, &options, &mut |_| {}).expect("a sample plant");
    (
        plant.join("signals.parquet"),
        plant.join("tags_description.csv"),
    )
}

/// A configuration that feeds `store`.
pub fn gateway(directory: &Path, store: &Store, more: &str) -> PathBuf {
    let (parquet, tags) = plant(directory);
    // Daemons of tests side by side must not take each other's port.
    let own = match more.contains("[admin]") {
        true => "",
        false => "[admin]\nlisten = \"\"\n",
    };
    let path = directory.join("lookoutd.toml");
    let text = format!(
        "data_dir = \"{}\"\n[source]\nparquet = \"{}\"\ntags = \"{}\"\n[s3]\nbucket = \"plant\"\n\
         input_prefix = \"input/\"\nendpoint_url = \"{}\"\nregion = \"us-east-1\"\ncredentials_file = \"{}\"\n{more}\n{own}",
        directory.join("data").display(),
        parquet.display(),
        tags.display(),
        store.proxy.endpoint(),
        store.credentials().display()
    );
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// A daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Daemon {
    fn start(config: &Path) -> Daemon {
        Daemon::spawn(lookoutd(), config)
    }

    /// As [`Daemon::start`], with an environment of its own.
    pub fn spawn(mut command: Command, config: &Path) -> Daemon {
        let mut child = command
            .args(["run", "--config", show(config)])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lookoutd starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, heard) = (child.stderr.take().expect("its log"), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().unwrap().push(line);
            }
        });
        Daemon { child, log }
    }

    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has `count` lines with `part` in them.
    #[track_caller]
    pub fn says(&self, part: &str, count: usize) {
        for _ in 0..12_000 {
            if self.log().iter().filter(|line| line.contains(part)).count() >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{part:?} is not in the log:\n{}", self.log().join("\n"));
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for the end, at most `limit`.
    #[track_caller]
    fn ends_within(&mut self, limit: Duration) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("still running after {limit:?}:\n{}", self.log().join("\n"));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// --- replay ---

#[test]
fn a_recorded_day_is_replayed_with_every_row_once_in_every_component() {
    let Some(plant) = crate::skipped::shared("data/plant") else {
        return;
    };
    let parquet = plant.join("signals.parquet");
    let file = std::fs::File::open(&parquet).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let schema = reader.metadata().file_metadata().schema();
    let time = schema
        .get_fields()
        .iter()
        .position(|field| field.name() == "Timestamp")
        .unwrap();
    let mut projection = schema.clone();
    if let parquet::schema::types::Type::GroupType { fields, .. } = &mut projection {
        *fields = vec![fields[time].clone()];
    }
    let day = 1_578_614_400_000_000i64;
    let mut recorded = BTreeSet::new();
    for row in reader.get_row_iter(Some(projection)).unwrap() {
        let row = row.unwrap();
        let micros = row
            .get_timestamp_micros(0)
            .or_else(|_| row.get_timestamp_millis(0).map(|millis| millis * 1_000))
            .or_else(|_| row.get_long(0).map(|nanos| nanos / 1_000))
            .unwrap();
        if (day..day + 86_400_000_000).contains(&micros) {
            recorded.insert(micros - day);
        }
    }
    assert!(recorded.len() > 1_000, "{} rows", recorded.len());
    let out = directory();
    succeed(&[
        "replay",
        "--parquet",
        show(&parquet),
        "--tags",
        show(&plant.join("tags_description.csv")),
        "--from",
        "2020-01-10T00:00:00",
        "--to",
        "2020-01-11T00:00:00",
        "--at",
        "2026-01-01T00:00:00Z",
        "--cadence",
        "PT5M",
        "--rows",
        "notebook",
        "--out",
        show(out.path()),
    ]);
    let at = 1_767_225_600_000_000i64;
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for entry in std::fs::read_dir(out.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let (component, _) = name.rsplit_once('_').unwrap();
        *files.entry(component.to_owned()).or_default() += 1;
        let rows = found.entry(component.to_owned()).or_default();
        for line in std::fs::read_to_string(entry.path())
            .unwrap()
            .lines()
            .skip(1)
        {
            let (time, _) = line.split_once(',').unwrap();
            let time: chrono::NaiveDateTime = time.parse().unwrap();
            rows.push(time.and_utc().timestamp_micros() - at);
        }
    }
    assert_eq!(files.len(), 5);
    for (component, count) in files {
        assert_eq!(count, 288, "{component}");
        let mut rows = found[&component].clone();
        rows.sort_unstable();
        assert!(rows.iter().eq(&recorded), "{component} has other rows");
    }
}

#[test]
fn replaying_twice_into_the_embedded_bucket_changes_nothing() {
    let directory = directory();
    let (parquet, tags) = plant(directory.path());
    let data_dir = directory.path().join("data");
    let replay = || {
        json(&[
            "replay",
            "--parquet",
            show(&parquet),
            "--tags",
            show(&tags),
            "--from",
            "2015-11-30T04:00:00",
            "--to",
            "2015-11-30T05:00:00",
            "--at",
            "2026-01-01T00:00:00Z",
            "--data-dir",
            show(&data_dir),
            "--set",
            "service.s3_listen=127.0.0.1:0",
            "--output",
            "json",
        ])
    };
    let first = replay();
    let objects = crate::rig::stored(&data_dir.join("s3"), "lookoutd");
    assert_eq!(first["windows"], 12);
    assert_eq!(first["already_there"], 0);
    assert_eq!(first["files"], objects.len());
    private_secret(&data_dir);
    let again = replay();
    assert_eq!(again["already_there"], first["files"]);
    assert_eq!(
        crate::rig::stored(&data_dir.join("s3"), "lookoutd"),
        objects
    );
}

#[test]
fn a_history_in_s3_is_planned_replayed_and_checked_like_a_local_one() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let parquet = directory.path().join("plant/signals.parquet");
    store.place("history/signals.parquet", &std::fs::read(&parquet).unwrap());
    let there = "source.parquet=s3://plant/history/signals.parquet";
    let plan = |set: &[&str]| {
        let mut arguments = vec!["plan", "-n", "2", "--now", "2026-01-01T00:07:00Z"];
        arguments.extend(["--config", show(&config), "--output", "json"]);
        arguments.extend(set);
        json(&arguments)
    };
    assert_eq!(plan(&["--set", there])["windows"], plan(&[])["windows"]);
    let replay = |name: &str, set: &[&str]| {
        let out = directory.path().join(name);
        let mut arguments = vec![
            "replay",
            "--from",
            "2015-11-30T04:00",
            "--to",
            "2015-11-30T05:00",
        ];
        arguments.extend(["--config", show(&config), "--out", show(&out)]);
        arguments.extend(set);
        succeed(&arguments);
        crate::rig::objects_under(&out)
    };
    let local = replay("local", &[]);
    assert!(local.len() > 12);
    assert!(replay("far", &["--set", there]) == local);
    succeed(&["check", "--config", show(&config), "--set", there]);
    let missing = run(&[
        "check",
        "--config",
        show(&config),
        "--set",
        "source.parquet=s3://plant/history/none.parquet",
    ]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing));
    assert!(text(&missing).contains("s3://plant/history/none.parquet"));
}

#[test]
fn a_flag_about_the_history_wins_over_what_an_asset_has_of_its_own() {
    let directory = directory();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        show(&path).to_owned()
    };
    let history = write("h.csv", "when,a\n1577836800,1\n1577836860,2\n");
    let tags = write("tags.csv", "Asset,Tag,UOM,Subsystem\npump-1,a,,m\n");
    let config = write(
        "lookoutd.toml",
        &format!(
            "[source]\nhistory = \"/nowhere/{{asset}}.csv\"\ntags = \"{tags}\"\n[s3]\nbucket = \"plant\"\n\
             [asset.pump-1]\nhistory = \"/nowhere/own.csv\"\ntime_column = \"zeit\"\ntime_unit = \"ms\"\n"
        ),
    );
    let out = directory.path().join("out");
    succeed(&[
        "replay",
        "--config",
        &config,
        "--history",
        &history,
        "--time-column",
        "when",
        "--time-unit",
        "s",
        "--from",
        "2020-01-01T00:00",
        "--to",
        "2020-01-01T00:05",
        "--rows",
        "notebook",
        "--out",
        show(&out),
    ]);
    let files = crate::rig::objects_under(&out);
    let texts: Vec<String> = files
        .values()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0].lines().count(), 3, "{texts:?}");
}

// --- demo, plan ---

#[test]
fn the_demo_ends_by_itself_with_one_json_object_and_files_for_24_components() {
    if !crate::skipped::full("all of it, training the demo's model unoptimised takes a minute") {
        return;
    }
    let directory = directory();
    let data_dir = directory.path().join("data");
    let demo = lookoutd()
        .args([
            "demo",
            "--speed",
            "300",
            "--windows",
            "2",
            "--output",
            "json",
        ])
        .args(["--data-dir", show(&data_dir)])
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", text(&demo));
    let summary: Value = serde_json::from_slice(&demo.stdout).unwrap();
    // It ends with the results of the second window; windows go on being fed until they are there.
    let windows = summary["windows"].as_u64().unwrap();
    assert!(windows >= 2, "{summary}");
    assert_eq!(summary["files"], windows * 24);
    assert!(summary["executions"].as_u64() >= Some(2), "{summary}");
    assert_eq!(summary["failed"], 0);
    let keys = summary["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 24);
    let objects = crate::rig::stored(&data_dir.join("s3"), summary["bucket"].as_str().unwrap());
    for key in keys {
        assert!(objects.contains_key(key.as_str().unwrap()), "{key}");
    }
    let secret = private_secret(&data_dir);
    assert!(!text(&demo).contains(&secret), "the secret was printed");
    a_console_shows_what_was_left(&data_dir);
}

/// `lookoutd console DIR` over what the demo left: machine, windows and executions, with nobody at work.
fn a_console_shows_what_was_left(data_dir: &Path) {
    use std::io::{BufRead, BufReader};
    let mut console = lookoutd()
        .args(["console", show(data_dir)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(console.stdout.as_mut().unwrap())
        .read_line(&mut said)
        .unwrap();
    let address = said
        .trim()
        .rsplit('/')
        .find(|part| !part.is_empty())
        .unwrap();
    let get = |path: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer
    };
    let page = get("/");
    assert!(page.contains("nobody works on"), "{page}");
    assert!(page.contains("Stopped: nobody works here"), "{page}");
    assert!(get("/windows").contains("shipped"));
    assert!(get("/scheduler?name=demo-scheduler").contains("SUCCESS"));
    // Whoever wants to work on it is told who looks.
    let refused = lookoutd()
        .args(["demo", "--data-dir", show(data_dir)])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    Command::new("kill")
        .arg(console.id().to_string())
        .status()
        .unwrap();
    assert_eq!(console.wait().unwrap().code(), Some(0));
    // A directory of something else is not one.
    let other = directory();
    let refused = lookoutd()
        .args(["console", show(other.path())])
        .output()
        .unwrap();
    assert!(
        text(&refused).contains("is no data directory"),
        "{}",
        text(&refused)
    );
}

/// The secret of a data directory, which nobody but its owner can read.
#[track_caller]
fn private_secret(data_dir: &Path) -> String {
    let credentials = data_dir.join("credentials");
    let mode = std::fs::metadata(&credentials)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    secret(&credentials)
}

fn secret(credentials: &Path) -> String {
    std::fs::read_to_string(credentials)
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("aws_secret_access_key = "))
        .unwrap()
        .to_owned()
}

#[test]
fn the_plan_names_the_next_windows_their_keys_columns_and_rows() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let arguments = [
        "plan",
        "--config",
        show(&config),
        "-n",
        "3",
        "--now",
        "2026-01-01T00:07:00Z",
        "--output",
        "json",
    ];
    let plan = json(&arguments);
    let windows = plan["windows"].as_array().unwrap();
    let starts: Vec<_> = windows
        .iter()
        .map(|w| w["start"].as_str().unwrap())
        .collect();
    assert_eq!(
        starts,
        [
            "2026-01-01T00:05:00Z",
            "2026-01-01T00:10:00Z",
            "2026-01-01T00:15:00Z"
        ]
    );
    assert_eq!(windows[0]["expected_rows"], 5);
    let file = &windows[0]["files"][0];
    let component = file["component"].as_str().unwrap();
    assert_eq!(file["key"], format!("input/{component}_20260101000500.csv"));
    assert!(!file["columns"].as_array().unwrap().is_empty());
    // Looking fixes nothing.
    assert_eq!(json(&arguments), plan);
    assert!(!directory.path().join("data/rebase.json").exists());
}

/// Where nothing is configured there is no plant yet: the one that is looked at is gone afterwards.
#[test]
fn a_plan_of_a_plant_that_is_not_there_yet_leaves_nothing_behind() {
    let directory = directory();
    let (data, temporary) = (directory.path().join("data"), directory.path().join("tmp"));
    std::fs::create_dir(&temporary).unwrap();
    let plan = lookoutd()
        .env("TMPDIR", &temporary)
        .args(["plan", "-n", "1", "--data-dir", show(&data)])
        .output()
        .unwrap();
    assert!(plan.status.success(), "{}", text(&plan));
    assert!(text(&plan).contains("subsystem-"), "{}", text(&plan));
    assert!(!data.exists());
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

// --- run ---

#[test]
fn log_admin_notify_and_inference_change_with_a_reload_and_what_would_not_start_is_refused() {
    let directory = directory();
    let store = Store::start();
    let ports: Vec<u16> = (0..2)
        .map(|_| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        })
        .collect();
    let admin = |port: u16| format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n");
    let answers = |port: u16| {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
    };
    let config = gateway(directory.path(), &store, &admin(ports[0]));
    let plain = std::fs::read_to_string(&config).unwrap();
    let mut daemon = Daemon::start(&config);
    daemon.says("window shipped", 1);
    assert!(answers(ports[0]));
    assert!(!daemon.log().iter().any(|line| line.contains("DEBUG")));
    let told = directory.path().join("told");
    let program = directory.path().join("tell.sh");
    std::fs::write(&program, format!("#!/bin/sh\ncat >> {}\n", show(&told))).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let reload = |text: &str| {
        std::fs::write(&config, text).unwrap();
        daemon.signal("-HUP");
    };
    let notify = format!("[notify]\ncommand = [\"{}\"]\n", show(&program));
    let moved = plain.replace(&admin(ports[0]), &admin(ports[1]));
    let changed = format!(
        "{moved}{notify}[log]\nlevel = \"debug\"\n[inference]\nscheduler = \"pump\"\nmodel = \"m\"\n\
         endpoint_url = \"http://127.0.0.1:1\"\n"
    );
    reload(&changed);
    daemon.says("the new configuration is in place", 1);
    assert!(answers(ports[1]));
    assert!(std::net::TcpStream::connect(("127.0.0.1", ports[0])).is_err());
    daemon.says("notifications are on", 1);
    daemon.says("DEBUG", 1);
    // The scheduler is asked for from now on, at an address where nobody is.
    daemon.says("the inference side fails", 1);
    // Back to where it listened before, which is free again.
    reload(&changed.replace(&admin(ports[1]), &admin(ports[0])));
    daemon.says("the new configuration is in place", 2);
    assert!(answers(ports[0]));
    let absent = directory.path().join("absent");
    for wrong in [
        changed.replace(show(&program), show(&absent)),
        changed.replace(
            &admin(ports[1]),
            &format!("{}token_file = \"{}\"\n", admin(ports[1]), show(&absent)),
        ),
    ] {
        let refused = daemon
            .log()
            .iter()
            .filter(|line| line.contains("is refused, the old one stays"))
            .count();
        reload(&wrong);
        daemon.says("is refused, the old one stays", refused + 1);
        assert!(answers(ports[0]));
    }
    daemon.signal("-TERM");
    daemon.ends_within(Duration::from_secs(2));
}

#[test]
fn what_was_wrong_with_a_scheduler_goes_with_the_reload_that_keeps_another_or_none() {
    let directory = directory();
    let (parquet, tags) = plant(directory.path());
    let config = directory.path().join("lookoutd.toml");
    let write = |inference: &str| {
        let text = format!(
            "data_dir = \"{}\"\n[source]\nparquet = \"{}\"\ntags = \"{}\"\n[admin]\nlisten = \"\"\n\
             [service]\nlisten = \"127.0.0.1:0\"\ns3_listen = \"127.0.0.1:0\"\n\
             [inference]\nmodel = \"nobody\"\npoll = \"1s\"\n{inference}",
            directory.path().join("data").display(),
            show(&parquet),
            show(&tags),
        );
        std::fs::write(&config, text).unwrap();
    };
    // Which schedulers are refused, by the running daemon's judgement.
    let refused = || -> Vec<String> {
        let said = run(&["status", "--output", "json", "--config", show(&config)]);
        let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let reasons = json["reasons"].as_array().cloned().unwrap_or_default();
        reasons
            .iter()
            .filter(|reason| reason["code"] == "scheduler-refused")
            .map(|reason| reason["subject"]["thing"].as_str().unwrap().to_owned())
            .collect()
    };
    let until = |wanted: &[&str]| {
        let mut seen = Vec::new();
        for _ in 0..300 {
            seen = refused();
            if seen == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{wanted:?} are not what is refused: {seen:?}");
    };
    write("scheduler = \"pump\"\n");
    let mut daemon = Daemon::start(&config);
    until(&["pump"]);
    for (nth, (inference, left)) in [
        ("scheduler = \"fan\"\n", &["fan"][..]),
        ("scheduler = \"fan\"\nwanted = \"observe\"\n", &[]),
        ("scheduler = \"fan\"\n", &["fan"]),
        ("", &[]),
    ]
    .into_iter()
    .enumerate()
    {
        write(inference);
        daemon.signal("-HUP");
        daemon.says("the new configuration is in place", nth + 1);
        until(left);
    }
    daemon.signal("-TERM");
    daemon.ends_within(Duration::from_secs(2));
}

#[test]
fn lines_for_the_journal_begin_with_their_priority_and_a_reader_that_stops_holds_nothing_up() {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let directory = directory();
    let store = Store::start();
    store.proxy.inject(Rule::puts(
        "input",
        usize::MAX,
        Fault::Answer(403, "AccessDenied"),
    ));
    let config = gateway(
        directory.path(),
        &store,
        "[log]\nlevel = \"trace\"\n[admin]\nlisten = \"\"\n",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let held = std::fs::File::from(writer.as_fd().try_clone_to_owned().unwrap());
    let stat = held.metadata().unwrap();
    let mut child = lookoutd()
        .args(["run", "--config", show(&config)])
        .env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino()))
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    drop(held);
    let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
    let mut seen = BTreeSet::new();
    for line in lines.by_ref() {
        let level = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"]
            .into_iter()
            .find(|level| line.contains(&format!("\"level\":\"{level}\"")));
        let priority = match level {
            Some("ERROR") => "<3>",
            Some("WARN") => "<4>",
            Some("INFO") => "<6>",
            Some(_) => "<7>",
            None => continue,
        };
        assert!(line.starts_with(priority), "{line}");
        seen.insert(priority);
        if seen.contains("<3>") && seen.contains("<6>") && seen.contains("<7>") {
            break;
        }
    }
    assert!(seen.contains("<3>"), "{seen:?}");
    // From here on nobody reads, and the pipe fills.
    store.proxy.heal();
    let status = || run(&["status", "--config", show(&config)]);
    let shipped = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        status().status.success()
    });
    assert!(shipped, "{}", text(&status()));
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let told = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(told.elapsed() < Duration::from_secs(2), "it does not stop");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_daemon_runs_alone_reports_itself_reloads_whole_or_not_at_all_and_stops_within_two_seconds() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let arguments = |command: &'static [&'static str]| {
        let mut arguments = command.to_vec();
        arguments.extend(["--config", show(&config)]);
        arguments
    };
    let down = run(&arguments(&["status"]));
    assert_eq!(down.status.code(), Some(69), "{}", text(&down));
    let mut daemon = Daemon::start(&config);
    daemon.says("window shipped", 1);

    let status = json(&arguments(&["status", "--output", "json"]));
    assert_eq!(status["verdict"], "ok");
    assert_eq!(status["judged_by"], "daemon");
    assert_eq!(status["reasons"], serde_json::json!([]));
    assert_eq!(status["process"], daemon.child.id());
    assert_eq!(status["windows"]["spooled"], 0);
    assert!(succeed(&arguments(&["status"])).starts_with("OK: "));
    succeed(&arguments(&["healthcheck"]));
    let windows = json(&arguments(&["windows", "list", "--output", "json"]));
    let state = &windows[0]["state"];
    assert!(state == "shipped" || state == "partial", "{windows}");

    let second = run(&arguments(&["run"]));
    assert_eq!(second.status.code(), Some(75), "{}", text(&second));
    assert!(text(&second).contains(&format!("process {}", daemon.child.id())));

    // Looking does not get in the way of a start, however often.
    let looking = std::thread::spawn({
        let config = config.clone();
        move || {
            for _ in 0..20 {
                run(&["healthcheck", "--config", show(&config)]);
            }
        }
    });

    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{good}[feed]\ndrain_per_minute = 60\n")).unwrap();
    daemon.signal("-HUP");
    daemon.says("the new configuration is in place", 1);
    for (bad, reason) in [
        ("[feed]\ncadense = \"PT5M\"\n", "did you mean feed.cadence?"),
        (
            "[service]\nlisten = \"127.0.0.1:1\"\n",
            "can only change with a restart",
        ),
    ] {
        std::fs::write(&config, format!("{good}{bad}")).unwrap();
        daemon.signal("-HUP");
        daemon.says(reason, 1);
        // With the very file that is refused: the daemon is asked all the same, and nobody restarts it for that.
        let status = run(&arguments(&["status"]));
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        assert_eq!(status.status.code(), Some(3), "{}", text(&status));
        assert!(
            said.starts_with("ATTENTION: ") && said.contains("configuration-refused"),
            "{said}"
        );
        succeed(&arguments(&["healthcheck"]));
    }
    std::fs::write(&config, format!("{good}[feed\ncadence = \"PT5M\n")).unwrap();
    succeed(&arguments(&["healthcheck"]));
    let status = run(&arguments(&["status"]));
    assert_eq!(status.status.code(), Some(3), "{}", text(&status));
    let wrong = format!("{good}[feed]\ncadense = \"PT5M\"\n");
    std::fs::write(&config, wrong).unwrap();
    let status = run(&arguments(&["status"]));
    let told = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(told.contains("did you mean feed.cadence?"), "{told}");
    assert!(
        daemon
            .log()
            .iter()
            .any(|line| line.contains("is refused, the old one stays"))
    );
    std::fs::write(&config, &good).unwrap();
    looking.join().unwrap();
    // What was refused stands until a configuration is taken again; it is no reason to restart.
    let status = run(&arguments(&["status"]));
    assert_eq!(status.status.code(), Some(3), "{}", text(&status));
    assert!(
        text(&status).contains("configuration-refused"),
        "{}",
        text(&status)
    );
    succeed(&arguments(&["healthcheck"]));
    daemon.signal("-HUP");
    daemon.says("the new configuration is in place", 2);
    // What is shown may be half a second old.
    let begun = Instant::now();
    while !run(&arguments(&["status"])).status.success() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it still stands");
        std::thread::sleep(Duration::from_millis(100));
    }

    let asked = Instant::now();
    daemon.signal("-TERM");
    assert_eq!(daemon.ends_within(Duration::from_secs(4)), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );

    let log = daemon.log();
    let secret = secret(&store.credentials());
    for line in &log {
        let line: Value = serde_json::from_str(line).expect("a log line is one JSON object");
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field} is not in {line}");
        }
    }
    assert!(!log.join("\n").contains(&secret), "a secret is in the log");
    // One window can be followed by its field.
    let of = |message: &str| {
        log.iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|line| line["message"] == message)
            .unwrap_or_else(|| panic!("no {message:?} in the log"))
    };
    assert_eq!(of("window cut")["window"], of("window shipped")["window"]);
    crate::rig::assert_spool_is_empty(&directory.path().join("data"));
}

#[test]
fn a_daemon_stops_within_two_seconds_although_the_store_hangs_and_loses_nothing() {
    let directory = directory();
    let store = Store::start();
    store.proxy.inject(Rule::any(1_000, Fault::Hang));
    let config = gateway(directory.path(), &store, "");
    let mut daemon = Daemon::start(&config);
    daemon.says("window cut", 1);
    let asked = Instant::now();
    daemon.signal("-TERM");
    assert_eq!(daemon.ends_within(Duration::from_secs(4)), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    store.proxy.heal();
    succeed(&["run", "--once", "--config", show(&config)]);
    let data_dir = directory.path().join("data");
    crate::rig::assert_spool_is_empty(&data_dir);
    let states = crate::rig::states(&data_dir);
    assert!(!store.objects().is_empty() && !states.is_empty());
}

#[test]
fn a_daemon_that_is_still_starting_stops_at_once() {
    let directory = directory();
    let config = directory.path().join("lookoutd.toml");
    // The history is behind an address that swallows everything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, tags) = plant(directory.path());
    std::fs::write(
        &config,
        format!(
            "data_dir = \"{}\"\n[source]\nparquet = \"s3://b/h.parquet\"\ntags = \"{}\"\n[s3]\nbucket = \"b\"\n\
             region = \"us-east-1\"\nendpoint_url = \"http://{}\"\n",
            directory.path().join("data").display(),
            tags.display(),
            silent.local_addr().unwrap()
        ),
    )
    .unwrap();
    let mut command = lookoutd();
    command
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "y")
        .args(["run", "--config", show(&config)])
        .stderr(Stdio::null());
    let mut daemon = Daemon {
        child: command.spawn().unwrap(),
        log: Arc::default(),
    };
    // It holds its lock once it is at work.
    for _ in 0..500 {
        if directory.path().join("data/lock").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    daemon.signal("-TERM");
    assert_eq!(daemon.ends_within(Duration::from_secs(2)), Some(0));
}

#[test]
fn once_cuts_the_live_window_and_ends_when_the_store_has_it() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    for _ in 0..2 {
        succeed(&["run", "--once", "--config", show(&config)]);
        let windows = json(&[
            "windows",
            "list",
            "--config",
            show(&config),
            "--output",
            "json",
        ]);
        let newest = &windows[0];
        let start: chrono::DateTime<chrono::Utc> =
            newest["start"].as_str().unwrap().parse().unwrap();
        let age = chrono::Utc::now() - start;
        assert!(
            age.num_seconds() < 310,
            "the live window was not cut: {newest}"
        );
        assert!(newest["shipped_at"].is_string(), "{newest}");
    }
}

// --- check, exit codes ---

#[test]
fn check_offline_takes_less_than_a_tenth_of_a_second() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let fastest = (0..5)
        .map(|_| {
            let started = Instant::now();
            succeed(&["check", "--offline", "--config", show(&config)]);
            started.elapsed()
        })
        .min()
        .unwrap();
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
    assert!(store.proxy.seen().is_empty(), "offline means offline");
}

#[test]
fn check_finds_out_what_is_wrong_with_the_store_and_says_what_to_do() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let check = || run(&["check", "--config", show(&config), "--output", "json"]);
    let good = check();
    assert!(good.status.success(), "{}", text(&good));
    let looks: Value = serde_json::from_slice(&good.stdout).unwrap();
    let looks = looks.as_array().unwrap();
    assert_eq!(looks.len(), 6);
    let scoring = looks.iter().find(|look| look["what"] == "scoring").unwrap();
    assert!(
        scoring["detail"]
            .as_str()
            .unwrap()
            .contains("nobody scores them"),
        "{scoring}"
    );
    for (fault, remedy) in [
        (Fault::Answer(403, "AccessDenied"), "s3:PutObject"),
        (
            Fault::Answer(404, "NoSuchBucket"),
            "create it, or correct s3.bucket",
        ),
        (Fault::Answer(403, "RequestTimeTooSkewed"), "synchronise"),
        (Fault::Answer(403, "ExpiredToken"), "renew"),
    ] {
        store.proxy.heal();
        store.proxy.inject(Rule::any(100, fault));
        let bad = check();
        assert_eq!(bad.status.code(), Some(3), "{}", text(&bad));
        assert!(text(&bad).contains(remedy), "{}", text(&bad));
    }
}

#[test]
fn a_command_whose_reader_has_gone_ends_quietly() {
    let home = directory();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = lookoutd()
        .args(["check", "--offline", "--data-dir", show(home.path())])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("lookoutd runs");
    assert_eq!(output.status.signal(), Some(13), "{}", text(&output));
    assert_eq!(text(&output), "");
}

#[test]
fn a_command_whose_output_cannot_be_written_says_so_and_does_not_panic() {
    let home = directory();
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for arguments in [
        vec!["status", "--data-dir", show(home.path())],
        vec!["config", "show"],
        vec!["config", "schema"],
        vec!["notify", "list", "--data-dir", show(home.path())],
    ] {
        let output = lookoutd()
            .args(&arguments)
            .stdout(full())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("error: standard output: No space left") && !said.contains("panicked"),
            "{said}"
        );
        // With standard error closed as well there is nobody to tell.
        let output = lookoutd()
            .args(&arguments)
            .stdout(full())
            .stderr(full())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn daemons_go_on_when_whoever_read_their_output_has_gone() {
    let store = Store::start();
    let home = directory();
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    // The service says where it listens, and its log has no reader either.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let data = home.path().join("service");
    let mut serve = lookoutd()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--s3-listen",
            "127.0.0.1:0",
            "--data-dir",
            show(&data),
        ])
        .args(["--admin-listen", &address.to_string()])
        .stdout(gone())
        .stderr(gone())
        .spawn()
        .unwrap();
    let lives = || {
        use std::io::{Read, Write};
        let Ok(mut stream) = std::net::TcpStream::connect(address) else {
            return false;
        };
        let mut answer = String::new();
        let asked = stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        asked
            .and_then(|()| stream.read_to_string(&mut answer))
            .is_ok()
            && answer.contains("\"ready\":true")
    };
    let began = Instant::now();
    while !lives() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no answer: {:?}",
            serve.try_wait()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(500));
    assert!(lives() && serve.try_wait().unwrap().is_none());
    let stopped = Command::new("kill").arg(serve.id().to_string()).status();
    assert!(stopped.unwrap().success());
    assert_eq!(serve.wait().unwrap().code(), Some(0), "it drains as ever");

    // The feeder delivers, with every line of its log dropped.
    let config = gateway(
        home.path(),
        &store,
        "[log]\nlevel = \"debug\"\n[admin]\nlisten = \"\"\n",
    );
    let mut run = lookoutd()
        .args(["run", "--once", "--config", show(&config)])
        .stdout(gone())
        .stderr(gone())
        .spawn()
        .unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    assert!(!store.objects().is_empty());
}

#[test]
fn exit_codes_are_those_that_are_documented() {
    let directory = directory();
    let store = Store::start();
    let config = gateway(directory.path(), &store, "");
    let config = show(&config);
    let replay = [
        "replay",
        "--from",
        "2015-11-30T04:00",
        "--to",
        "2015-11-30T04:05",
        "--config",
        config,
    ];
    for (code, arguments) in [
        (2, vec!["run", "--nonsense"]),
        (
            2,
            vec!["replay", "--from", "yesterday", "--to", "2020-01-01"],
        ),
        (78, vec!["run", "--config", "/nowhere/lookoutd.toml"]),
        (78, vec!["check", "--config", "/nowhere/lookoutd.toml"]),
        (69, vec!["status", "--config", config]),
        (1, vec!["windows", "list", "--config", config]),
    ] {
        let output = run(&arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            text(&output)
        );
        assert!(
            !output.stderr.is_empty() || code == 69,
            "{arguments:?} says nothing"
        );
    }
    for (code, fault) in [
        (77, Fault::Answer(403, "AccessDenied")),
        (75, Fault::Answer(503, "SlowDown")),
    ] {
        store.proxy.heal();
        store.proxy.inject(Rule::any(1_000, fault));
        let output = run(&replay);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    }
    store.proxy.refuse();
    let output = run(&replay);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output));
}

// --- bad input ---

/// Columns of a test history: a schema and, for each field, its cells.
pub enum Cells {
    F64(Vec<f64>),
    I64(Vec<i64>),
    Text(Vec<&'static str>),
}

pub fn write_history(path: &Path, schema: &str, columns: Vec<Cells>) {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {schema} }}")).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for cells in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match cells {
            Cells::F64(cells) => {
                column
                    .typed::<DoubleType>()
                    .write_batch(&cells, None, None)
                    .unwrap();
            }
            Cells::I64(cells) => {
                column
                    .typed::<Int64Type>()
                    .write_batch(&cells, None, None)
                    .unwrap();
            }
            Cells::Text(cells) => {
                let cells: Vec<ByteArray> = cells.into_iter().map(ByteArray::from).collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&cells, None, None)
                    .unwrap();
            }
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn bad_input_is_refused_with_its_place_and_what_to_do() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    let minutes = || Cells::I64((0..10).map(|n| n * 60_000_000).collect());
    let time = "required int64 Timestamp (TIMESTAMP(MICROS,false));";
    let numbers = || Cells::F64((0..10).map(f64::from).collect());
    let history = path("good.parquet");
    write_history(
        &history,
        &format!("required double a; {time}"),
        vec![numbers(), minutes()],
    );
    write_history(
        &path("no-time.parquet"),
        "required double a; required double Timestamp;",
        vec![numbers(), numbers()],
    );
    write_history(
        &path("time-missing.parquet"),
        "required double a;",
        vec![numbers()],
    );
    write_history(
        &path("no-rows.parquet"),
        &format!("required double a; {time}"),
        vec![Cells::F64(vec![]), Cells::I64(vec![])],
    );
    let whole = std::fs::read(&history).unwrap();
    std::fs::write(path("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("empty.parquet"), "").unwrap();
    let tags = path("tags.csv");
    std::fs::write(&tags, "Tag,UOM,Subsystem\na,,pump\n").unwrap();
    for (name, text) in [
        ("no-tag-column.csv", "Name,UOM,Subsystem\na,,pump\n"),
        ("other-tag.csv", "Tag,UOM,Subsystem\na,,pump\nb,,pump\n"),
        ("collide.csv", "Tag,UOM,Subsystem\na,,pump\nb,,Pump\n"),
        ("twice.csv", "Tag,UOM,Subsystem\na,,pump\na,,pump\n"),
        ("blank.csv", "Tag,UOM,Subsystem\na,,pump\n,,pump\n"),
        ("nothing.csv", ""),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    let cases: [(&str, &str, &[&str], &[&str]); 16] = [
        (
            "good.parquet",
            "no-tag-column.csv",
            &[],
            &["no-tag-column.csv:1", "Tag"],
        ),
        (
            "good.parquet",
            "other-tag.csv",
            &[],
            &["good.parquet", "\"b\""],
        ),
        (
            "good.parquet",
            "collide.csv",
            &[],
            &["collide.csv:3", "Pump", "pump"],
        ),
        ("good.parquet", "twice.csv", &[], &["twice.csv:3", "\"a\""]),
        ("good.parquet", "blank.csv", &[], &["blank.csv:3"]),
        ("good.parquet", "nothing.csv", &[], &["nothing.csv"]),
        ("good.parquet", "absent.csv", &[], &["absent.csv"]),
        (
            "no-time.parquet",
            "tags.csv",
            &[],
            &["no-time.parquet", "Timestamp"],
        ),
        (
            "time-missing.parquet",
            "tags.csv",
            &[],
            &["time-missing.parquet", "Timestamp"],
        ),
        ("no-rows.parquet", "tags.csv", &[], &["no-rows.parquet"]),
        ("cut.parquet", "tags.csv", &[], &["cut.parquet"]),
        ("empty.parquet", "tags.csv", &[], &["empty.parquet"]),
        (
            "absent.parquet",
            "tags.csv",
            &[],
            &["absent.parquet", "source.history"],
        ),
        (
            "good.parquet",
            "tags.csv",
            &["s3.input_prefix=in", "s3.bucket=b"],
            &["s3.input_prefix", "slash"],
        ),
        (
            "good.parquet",
            "tags.csv",
            &["feed.cadence=PT7M"],
            &["feed.cadence", "PT5M, PT10M, PT15M, PT30M"],
        ),
        (
            "good.parquet",
            "tags.csv",
            &[
                "feed.cadense=PT5M",
                "log.level=loud",
                "service.s3_listen=here",
                "source.start=soon",
            ],
            &[
                "did you mean feed.cadence?",
                "log.level",
                "service.s3_listen",
                "source.start",
            ],
        ),
    ];
    for (parquet, tags, set, parts) in cases {
        let data_dir = path("data");
        let sources = [
            format!("source.parquet={}", path(parquet).display()),
            format!("source.tags={}", path(tags).display()),
            "service.listen=127.0.0.1:0".to_owned(),
            "service.s3_listen=127.0.0.1:0".to_owned(),
        ];
        for command in [&["run", "--once"][..], &["check"]] {
            let mut arguments = command.to_vec();
            arguments.extend(["--data-dir", show(&data_dir)]);
            let all = sources
                .iter()
                .map(String::as_str)
                .chain(set.iter().copied());
            for setting in all {
                arguments.extend(["--set", setting]);
            }
            let output = run(&arguments);
            let said = text(&output);
            // What may come, or be whole, later is no mistake of the configuration.
            let later = [
                "absent.csv",
                "absent.parquet",
                "cut.parquet",
                "empty.parquet",
            ];
            let may_come = later.contains(&parquet) || later.contains(&tags);
            let code = match (may_come, command[0]) {
                (false, _) => 78,
                (true, "check") => 3,
                (true, _) => 69,
            };
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
            for part in parts {
                assert!(said.contains(part), "{part:?} is not in: {said}");
            }
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}

/// What `/readyz` of a daemon says: status and body.
fn readyz(daemon: &Daemon) -> (u16, String) {
    let up = daemon
        .log()
        .into_iter()
        .find(|line| line.contains("console, metrics and health are up"));
    let up: Value = serde_json::from_str(&up.expect("its console")).expect("JSON");
    let url = up["fields"]["url"]
        .as_str()
        .or(up["url"].as_str())
        .expect("a url");
    let address = url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let mut stream = std::net::TcpStream::connect(&address).expect("a connection");
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).expect("a request");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

#[test]
fn a_plant_that_is_not_there_at_boot_is_waited_for_and_told_and_a_wrong_one_is_a_mistake() {
    for late in ["signals.parquet", "tags_description.csv"] {
        let directory = directory();
        let store = Store::start();
        let config = gateway(
            directory.path(),
            &store,
            "[admin]\nlisten = \"127.0.0.1:0\"\n",
        );
        let there = directory.path().join("plant").join(late);
        let away = directory.path().join("away");
        std::fs::rename(&there, &away).unwrap();
        let mut daemon = Daemon::start(&config);
        daemon.says("it is waited for", 1);
        daemon.says("console, metrics and health are up", 1);
        // It is logged a moment before it is shown.
        let asked = Instant::now();
        loop {
            let (status, body) = readyz(&daemon);
            assert_eq!(status, 503, "{body}");
            if body.contains("source-failing") && body.contains(late) {
                break;
            }
            assert!(asked.elapsed() < Duration::from_secs(10), "{body}");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Waiting holds no stop up.
        let asked = Instant::now();
        daemon.signal("-TERM");
        assert_eq!(daemon.ends_within(Duration::from_secs(4)), Some(0));
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        let daemon = Daemon::start(&config);
        daemon.says("it is waited for", 1);
        std::fs::rename(&away, &there).unwrap();
        daemon.says("window shipped", 1);
        let asked = Instant::now();
        while readyz(&daemon).0 != 200 {
            assert!(
                asked.elapsed() < Duration::from_secs(10),
                "{:?}",
                readyz(&daemon)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(daemon);
        // What is there and wrong is a mistake, which no restart puts right.
        std::fs::write(&there, "no history and no tag list\n").unwrap();
        let mut daemon = Daemon::start(&config);
        assert_eq!(daemon.ends_within(Duration::from_secs(20)), Some(78));
        std::fs::remove_file(&there).unwrap();
        std::fs::create_dir(&there).unwrap();
        let mut daemon = Daemon::start(&config);
        if late == "signals.parquet" {
            // A directory is a history whose files may come.
            daemon.says("no file of a history is there", 1);
            continue;
        }
        assert_eq!(daemon.ends_within(Duration::from_secs(20)), Some(78));
        assert_eq!(
            run(&["check", "--config", show(&config)]).status.code(),
            Some(78)
        );
    }
}

/// The ARN of a dataset that is made through `lookoutd serve` with these arguments more.
async fn arn_made_by_serve(data: &Path, arguments: &[&str]) -> String {
    let any = ["--listen", "127.0.0.1:0", "--s3-listen", "127.0.0.1:0"];
    let mut serve = lookoutd()
        .args(["serve", "--admin-listen", "", "--data-dir", show(data)])
        .args(any)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let api = lines.map_while(Result::ok).find_map(|line| {
        Some(
            line.split_once("http://")?
                .1
                .split_whitespace()
                .next()?
                .to_owned(),
        )
    });
    let keys = lookoutd::embedded::KeyPair::load_or_create(data).unwrap();
    let client = lookoutd::inference::local_client(
        &format!("http://{}", api.expect("an address")),
        &keys.access_key,
        &keys.secret_key,
    );
    let name = format!("d{}", arguments.len());
    let made = client
        .create_dataset()
        .dataset_name(&name)
        .client_token(&name)
        .send()
        .await;
    serve.kill().unwrap();
    serve.wait().unwrap();
    made.unwrap().dataset_arn().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_has_the_region_and_account_of_configuration_and_flags() {
    let home = directory();
    let data = home.path().join("service");
    let configured = home.path().join("serve.toml");
    let settings = "[service]\nregion = \"eu-central-1\"\naccount = \"210987654321\"\n";
    std::fs::write(&configured, settings).unwrap();
    let config = ["--config", show(&configured)];
    let flags = [
        &config[..],
        &["--region", "eu-west-1", "--account", "123456789012"],
    ]
    .concat();
    for (arguments, of) in [
        (&[][..], "us-east-1:000000000000"),
        (&config[..], "eu-central-1:210987654321"),
        // A flag goes before the file.
        (&flags[..], "eu-west-1:123456789012"),
    ] {
        let arn = arn_made_by_serve(&data, arguments).await;
        let begins = format!("arn:aws:lookoutequipment:{of}:dataset/d");
        assert!(arn.starts_with(&begins), "{arguments:?}: {arn}");
    }
    let refused = lookoutd()
        .args(["serve", "--account", "12", "--data-dir", show(&data)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains("service.account"), "{said}");

    // What cannot work in [s3] is a finding before anything runs.
    let settings = "[s3]\nbucket = \"plant\"\nendpoint_url = \"minio:9000\"\n";
    std::fs::write(&configured, settings).unwrap();
    let other = home.path().join("other");
    let refused = lookoutd()
        .args([
            "serve",
            "--config",
            show(&configured),
            "--data-dir",
            show(&other),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(
        said.contains("s3.endpoint_url") && said.contains("minio:9000"),
        "{said}"
    );
    assert!(!other.exists(), "nothing has begun");
}

#[test]
fn commands_that_only_ask_the_api_take_the_address_that_the_environment_names() {
    let home = directory();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // It hears the question and answers like a service that knows no scheduler of the name.
    let heard = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while !String::from_utf8_lossy(&request).contains("\r\n\r\n{") {
            let read = stream.read(&mut part).unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&request));
            request.extend_from_slice(&part[..read]);
        }
        let body = r#"{"__type":"ResourceNotFoundException","Message":"no such scheduler"}"#;
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request).into_owned()
    });
    let asked = lookoutd()
        .args([
            "scheduler",
            "describe",
            "pump",
            "--data-dir",
            show(home.path()),
        ])
        .env("AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT", &address)
        .env("AWS_ACCESS_KEY_ID", "AKIDNAMED")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "eu-west-1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(!asked.status.success() && said.contains("pump"), "{said}");
    let request = heard.join().unwrap();
    assert!(
        request.contains("DescribeInferenceScheduler") && request.contains("AKIDNAMED"),
        "{request}"
    );
}
