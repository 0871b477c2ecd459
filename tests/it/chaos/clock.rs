//! A site whose clock is wrong again and again: gateway, service and store as real processes for ten minutes of real time. Their
//! wall clock is put forward from outside so that a boundary comes every twenty seconds; now and then it is two days ahead
//! or behind for some seconds, and each of the three is killed or gone for a minute.
//!
//! It holds: no window is lost and no execution is missing; an anomaly that lasts is never told as over; what is down is a
//! reason of `/readyz` within a minute, and none any more a minute after it is back.
//!
//! Needs libfaketime. By hand, because it takes so long: `.ci/run long`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use lookoutd::embedded::KeyPair;
use lookoutd::feed::{Ledger, State};
use lookoutd::inference::{Archive, Index};
use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::service::store::Store;
use serde_json::Value;
use tempfile::TempDir;

use super::site::{NAME, Who, binary, model, wait};
use crate::rig::directory;

/// Recorded time of the first window: the plant is anomalous from long before until a day after.
const FROM: &str = "2015-11-12T08:00:00";
/// Real time from boundary to boundary, and from the step of the clock to the boundary.
const EVERY: Duration = Duration::from_secs(20);
const BEFORE: Duration = Duration::from_secs(8);
const CADENCE: TimeDelta = TimeDelta::minutes(5);
/// How far a wrong clock is off.
const WRONG: TimeDelta = TimeDelta::days(2);
/// Within which a reason comes and goes.
const MINUTE: Duration = Duration::from_secs(60);

/// What happens at a boundary, from the first on.
#[derive(Clone, Copy, Debug)]
enum Staged {
    /// The clock is off by this for so many seconds.
    Off(TimeDelta, u64),
    /// Killed and started at once.
    Restart(Who),
    /// Gone for so many seconds.
    Gone(Who, u64),
}

const STAGES: [(usize, Staged); 11] = [
    (2, Staged::Restart(Who::Gateway)),
    (3, Staged::Off(WRONG, 5)),
    (5, Staged::Gone(Who::Store, 70)),
    (11, Staged::Off(TimeDelta::days(-2), 5)),
    (12, Staged::Restart(Who::Service)),
    (13, Staged::Gone(Who::Service, 70)),
    (19, Staged::Off(WRONG, 25)),
    (21, Staged::Off(TimeDelta::days(-2), 25)),
    (23, Staged::Restart(Who::Store)),
    (24, Staged::Gone(Who::Gateway, 30)),
    (27, Staged::Off(WRONG, 5)),
];
const BOUNDARIES: usize = 32;

struct Site {
    directory: TempDir,
    library: PathBuf,
    ports: BTreeMap<&'static str, u16>,
    processes: BTreeMap<Who, Child>,
}

impl Site {
    fn start(library: PathBuf) -> Site {
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("its address").port()
        };
        let ports = ["store", "store-api", "api", "api-s3", "admin"];
        let site = Site {
            directory: directory(),
            library,
            ports: ports.into_iter().map(|name| (name, port())).collect(),
            processes: BTreeMap::new(),
        };
        site.prepare();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn prepare(&self) {
        let options = SampleOptions {
            days: 40,
            signals: 12,
            ..SampleOptions::default()
        };
        write_sample(&self.path("plant"), &options, &mut |_| {}).expect("a plant");
        let keys = ["store", "service"].map(|name| {
            std::fs::create_dir_all(self.path(name)).expect("a directory");
            KeyPair::load_or_create(&self.path(name)).expect("a key pair")
        });
        let [store, service] = &keys;
        let credentials = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n\
             [lookout]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            store.access_key, store.secret_key, service.access_key, service.secret_key
        );
        std::fs::write(self.path("credentials"), credentials).expect("credentials");
        let told = self.path("told");
        let program = self.path("tell");
        let text = format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", told.display());
        std::fs::write(&program, text).expect("a program");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
        let (root, ports) = (self.directory.path().display(), &self.ports);
        let s3 = format!(
            "[s3]\nendpoint_url = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"\ncredentials_file = \"{root}/credentials\"\n",
            ports["store"]
        );
        let service = format!("[admin]\nlisten = \"\"\n{s3}");
        std::fs::write(self.path("service.toml"), service).expect("a file");
        std::fs::write(self.path("store.toml"), "[admin]\nlisten = \"\"\n").expect("a file");
        let gateway = format!(
            "data_dir = \"{root}/gateway\"\n\
             [source]\nparquet = \"{root}/plant/signals.parquet\"\ntags = \"{root}/plant/tags_description.csv\"\n\
             start = \"{FROM}\"\n\
             [feed]\ncatch_up = \"backfill\"\nmax_age = \"1h\"\nmin_free = \"1MiB\"\ndrain_per_minute = 6000\n\
             [inference]\nscheduler = \"{NAME}\"\nmodel = \"{NAME}\"\nprofile = \"lookout\"\n\
             endpoint_url = \"http://127.0.0.1:{}\"\n\
             tags = \"lookoutd:late-files=score, lookoutd:catch-up=on\"\n\
             [notify]\ncommand = [\"{root}/tell\"]\nper_hour = 1000\n\
             [admin]\nlisten = \"127.0.0.1:{}\"\n{s3}bucket = \"lookoutd\"\ninput_prefix = \"input/\"\n",
            ports["api"], ports["admin"]
        );
        std::fs::write(self.path("gateway.toml"), gateway).expect("a file");
        let state = Store::open(&self.path("service/service")).expect("the service's state");
        wait(state.register_model(model(&self.path("plant")), Utc::now())).expect("a model");
    }

    /// The wall clock of the three is `time`, and goes on from there.
    fn set_clock(&self, time: DateTime<Utc>) {
        let off = (time - Utc::now()).num_seconds();
        let new = self.path("clock.new");
        std::fs::write(&new, format!("{off:+}\n")).expect("a clock");
        std::fs::rename(&new, self.path("clock")).expect("a clock");
    }

    fn launch(&mut self, who: Who) {
        let address = |name: &str| format!("127.0.0.1:{}", self.ports[name]);
        let (command, name, api, s3) = match who {
            Who::Gateway => ("run", "gateway", String::new(), String::new()),
            Who::Service => ("serve", "service", address("api"), address("api-s3")),
            Who::Store => ("serve", "store", address("store-api"), address("store")),
        };
        let mut process = binary();
        process
            .arg(command)
            .arg("--config")
            .arg(self.path(&format!("{name}.toml")))
            .env("TZ", "UTC")
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_TIMESTAMP_FILE", self.path("clock"));
        if who != Who::Gateway {
            process.arg("--data-dir").arg(self.path(name));
            process.args(["--listen", &api, "--s3-listen", &s3]);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{name}.log")))
            .expect("a log");
        let child = process.stdout(Stdio::null()).stderr(log).spawn();
        self.processes.insert(who, child.expect("lookoutd starts"));
    }

    fn kill(&mut self, who: Who) {
        if let Some(mut child) = self.processes.remove(&who) {
            // Both fail only when it has ended.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// The codes of the gateway's reasons; none while it does not answer.
    fn reasons(&self) -> BTreeSet<String> {
        let Some(body) = self.ask("/readyz") else {
            return BTreeSet::new();
        };
        let json: Value = serde_json::from_str(&body).expect("JSON");
        let reasons = json["reasons"].as_array().expect("reasons").iter();
        reasons
            .map(|reason| reason["code"].as_str().expect("a code").to_owned())
            .collect()
    }

    fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports["admin"])).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let host = "Host: 127.0.0.1\r\nConnection: close";
        write!(stream, "GET {path} HTTP/1.1\r\n{host}\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        Some(body.to_owned())
    }

    fn messages(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for who in [Who::Gateway, Who::Service, Who::Store] {
            self.kill(who);
        }
        if std::thread::panicking()
            && let Some(place) = std::env::var_os("LOOKOUTD_CHAOS_KEEP")
        {
            let from = self.directory.path();
            let mut copy = std::process::Command::new("cp");
            drop(copy.arg("-a").arg(from).arg(place).status());
        }
    }
}

/// When each reason was seen, in real time.
#[derive(Default)]
struct Seen(Vec<(Instant, BTreeSet<String>)>);

impl Seen {
    fn look(&mut self, site: &Site) {
        let now = site.reasons();
        if self.0.last().is_none_or(|(_, last)| *last != now) {
            println!("{:?}", now);
        }
        self.0.push((Instant::now(), now));
    }

    /// Whether it was there at some time of the span.
    fn within(&self, code: &str, from: Instant, to: Instant) -> bool {
        let span = self.0.iter().filter(|(at, _)| (from..to).contains(at));
        span.into_iter().any(|(_, codes)| codes.contains(code))
    }
}

#[test]
#[ignore = "ten minutes of real time: .ci/run long"]
fn a_clock_that_is_wrong_again_and_again_loses_no_window_no_execution_and_no_anomaly() {
    let library = crate::restarts::faketime().expect("libfaketime, Debian package faketime");
    let mut site = Site::start(library);
    let first = Utc::now().duration_trunc(CADENCE).expect("a boundary") + TimeDelta::days(30);
    let begun = Instant::now();
    let at = |boundary: usize| first + CADENCE * boundary as i32;
    site.set_clock(at(0) - TimeDelta::seconds(8));
    for who in [Who::Store, Who::Service, Who::Gateway] {
        site.launch(who);
    }
    let mut seen = Seen::default();
    // What comes back when, and when the store and the service were gone.
    let mut back: Vec<(Instant, Who)> = Vec::new();
    let mut gone: Vec<(Who, Instant, Instant)> = Vec::new();
    let mut right: Option<Instant> = None;
    for boundary in 0..BOUNDARIES {
        let step = begun + EVERY * boundary as u32;
        let wall = |instant: Instant| {
            at(boundary) - TimeDelta::seconds(8)
                + TimeDelta::from_std(instant.saturating_duration_since(step)).expect("a while")
        };
        if right.is_none() {
            site.set_clock(wall(Instant::now()));
        }
        let staged = STAGES.iter().find(|(number, _)| *number == boundary);
        let mut staged = staged.map(|(_, staged)| *staged);
        while Instant::now() < step + EVERY {
            let now = Instant::now();
            if right.is_some_and(|right| right <= now) {
                site.set_clock(wall(now));
                right = None;
            }
            while let Some(index) = back.iter().position(|(when, _)| *when <= now) {
                let (_, who) = back.remove(index);
                site.launch(who);
            }
            // A few seconds after the boundary.
            if now > step + BEFORE + Duration::from_secs(4)
                && let Some(staged) = staged.take()
            {
                println!("boundary {boundary}: {staged:?}");
                match staged {
                    Staged::Off(by, seconds) => {
                        site.set_clock(wall(now) + by);
                        right = Some(now + Duration::from_secs(seconds));
                    }
                    Staged::Restart(who) => {
                        site.kill(who);
                        site.launch(who);
                    }
                    Staged::Gone(who, seconds) => {
                        site.kill(who);
                        let until = now + Duration::from_secs(seconds);
                        back.push((until, who));
                        gone.push((who, now, until));
                    }
                }
            }
            seen.look(&site);
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    judge(&mut site, &seen, &gone, at(0) - CADENCE, at(BOUNDARIES - 1));
}

fn judge(
    site: &mut Site,
    seen: &Seen,
    gone: &[(Who, Instant, Instant)],
    first: DateTime<Utc>,
    last: DateTime<Utc>,
) {
    // The clock goes on by itself now: what is under way ends.
    let begun = Instant::now();
    let (windows, executions) = loop {
        let (windows, executions) = recorded(site, first, last);
        let missing = missing(&windows, &executions, first, last);
        if missing.is_empty() {
            break (windows, executions);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(180),
            "missing: {missing:#?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    };
    for (who, from, to) in gone {
        let code = match who {
            Who::Store => "store-unreachable",
            Who::Service => "scheduler-unreachable",
            Who::Gateway => continue,
        };
        assert!(
            seen.within(code, *from, *from + MINUTE),
            "{code} was not told within a minute"
        );
        assert!(
            !seen.within(code, *to + MINUTE, *to + 2 * MINUTE),
            "{code} was told a minute after"
        );
    }
    let messages = site.messages();
    let anomaly: Vec<&Value> = messages
        .iter()
        .filter(|message| message["kind"] == "anomaly")
        .collect();
    assert!(!anomaly.is_empty(), "no anomaly was told: {messages:#?}");
    assert!(
        anomaly.iter().all(|message| message["state"] == "firing"),
        "an anomaly that lasts was told as over: {anomaly:#?}"
    );
    let reasons: BTreeSet<&String> = seen.0.iter().flat_map(|(_, codes)| codes).collect();
    println!(
        "{} windows, {} executions; {} messages; reasons seen: {reasons:?}",
        windows.len(),
        executions.len(),
        messages.len()
    );
    let left = site.reasons();
    let allowed = ["anomaly-active", "clock-stepped"];
    assert!(
        left.iter().all(|code| allowed.contains(&code.as_str())),
        "at the end: {left:?}"
    );
}

type Windows = BTreeMap<DateTime<Utc>, State>;
type Executions = BTreeMap<DateTime<Utc>, (String, bool)>;

/// States of windows, and of executions whether they are archived, by the window's start.
fn recorded(site: &Site, first: DateTime<Utc>, last: DateTime<Utc>) -> (Windows, Executions) {
    let ledger = Ledger::open_existing(&site.path("gateway"));
    let entries = ledger
        .ok()
        .flatten()
        .and_then(|ledger| ledger.list(100_000).ok());
    let windows = entries
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| entry.start >= first && entry.start <= last)
        .map(|entry| (entry.start, entry.state))
        .collect();
    let archive = Archive::new(site.path("gateway/archive"));
    let rows = Index::open_existing(&archive)
        .ok()
        .flatten()
        .and_then(|index| index.range(NAME, None, None).ok());
    let executions = rows
        .unwrap_or_default()
        .into_iter()
        .map(|row| {
            let archived = row.archived_at.is_some();
            (row.execution.data_start, (row.execution.status, archived))
        })
        .collect();
    (windows, executions)
}

fn missing(
    windows: &Windows,
    executions: &Executions,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
) -> Vec<String> {
    let mut missing = Vec::new();
    let Some((begins, _)) = executions.first_key_value() else {
        return vec!["no execution".into()];
    };
    let mut start = first;
    while start <= last {
        if windows.get(&start) != Some(&State::Shipped) {
            missing.push(format!("window {start}: {:?}", windows.get(&start)));
        }
        // The scheduler was made after the first boundary; the last window's execution may not be due yet.
        let due = start >= *begins && start < last;
        let had = matches!(executions.get(&start), Some((status, true)) if status == "SUCCESS");
        if due && !had {
            missing.push(format!(
                "execution of {start}: {:?}",
                executions.get(&start)
            ));
        }
        start += CADENCE;
    }
    missing
}
