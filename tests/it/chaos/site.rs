//! A site of three real processes: a gateway `lookoutd run`, a separate `lookoutd serve`, and SeaweedFS as the S3 of both, with
//! time running faster and a bad network between each of the two and the store. Any of them can be killed and started again.
//!
//! Guarantees: the gateway's history is a file, so what every window must hold can be asked of `lookoutd replay`; everything
//! dies with the value. `LOOKOUTD_CHAOS_BINARY` names another binary than the one under test, such as a release build.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use lookoutd::daemon::{ACCOUNT, REGION};
use lookoutd::embedded::KeyPair;
use lookoutd::feed::{Entry, Ledger, State};
use lookoutd::inference::{Archive, Archived, Index};
use lookoutd::model::table::Table;
use lookoutd::model::{Model, Options, Sampling, Training};
use lookoutd::sample::{SampleOptions, write_sample};
use lookoutd::service::store::{NewModel, Store};
use lookoutd::signal::TagList;
use tempfile::TempDir;

use super::tcp::Network;
use crate::commands::lookoutd;
use crate::peers::{ACCESS_KEY, SECRET_KEY, SeaweedFs};
use crate::rig::{Objects, directory};

/// The bucket, and the name of scheduler and model.
pub const BUCKET: &str = "plant";
pub const NAME: &str = "chaos";
/// Recorded time of the first window; 40 days of history follow, one minute of which is missing.
const FROM: &str = "2015-10-22T00:00:00";

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Gateway,
    Service,
    Store,
}

/// The three processes and what lies on their disks.
pub struct Site {
    directory: TempDir,
    speed: f64,
    since: DateTime<Utc>,
    pub store: SeaweedFs,
    /// Before the store: the gateway's network and the service's.
    pub networks: [Network; 2],
    api_port: u16,
    processes: BTreeMap<Who, Child>,
}

impl Site {
    /// Everything started, time running `speed` times faster; `None`, loudly, without SeaweedFS.
    pub fn start(speed: f64) -> Option<Site> {
        let store = SeaweedFs::start()?;
        let directory = directory();
        let networks = [(); 2].map(|()| Network::before(store.address()));
        let api_port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut site = Site {
            directory,
            speed,
            since: Utc::now(),
            store,
            networks,
            api_port,
            processes: BTreeMap::new(),
        };
        site.prepare();
        // Time begins to run when everything is there.
        site.since = Utc::now();
        site.launch(Who::Service);
        site.launch(Who::Gateway);
        Some(site)
    }

    /// Plant, model, bucket, keys and configurations.
    fn prepare(&self) {
        let options = SampleOptions {
            days: 40,
            signals: 12,
            ..SampleOptions::default()
        };
        let plant = self.path("plant");
        write_sample(&plant, &options, &mut |_| {}).expect("a plant");
        std::fs::create_dir_all(self.path("service")).expect("a directory");
        let keys = KeyPair::load_or_create(&self.path("service")).expect("a key pair");
        std::fs::write(
            self.path("credentials"),
            format!(
                "[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n\
                 [lookout]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
                keys.access_key, keys.secret_key
            ),
        )
        .expect("credentials");
        let s3 = |network: &Network| {
            format!(
                "[s3]\nendpoint_url = \"{}\"\nregion = \"us-east-1\"\ncredentials_file = \"{}\"\n",
                network.endpoint(),
                self.path("credentials").display()
            )
        };
        // Sites of tests side by side must not take each other's admin port.
        let service = format!("[admin]\nlisten = \"\"\n{}", s3(&self.networks[1]));
        std::fs::write(self.path("service.toml"), service).expect("a file");
        let root = self.directory.path().display();
        let gateway = format!(
            "data_dir = \"{root}/gateway\"\n\
             [source]\nparquet = \"{root}/plant/signals.parquet\"\ntags = \"{root}/plant/tags_description.csv\"\n\
             start = \"{FROM}\"\n\
             [feed]\ncatch_up = \"backfill\"\nmax_age = \"30days\"\nmin_free = \"1MiB\"\ndrain_per_minute = 6000\n\
             [inference]\nscheduler = \"{NAME}\"\nmodel = \"{NAME}\"\nprofile = \"lookout\"\npoll = \"60s\"\n\
             endpoint_url = \"http://127.0.0.1:{}\"\n\
             tags = \"lookoutd:late-files=score, lookoutd:catch-up=on, lookoutd:wait=300\"\n\
             [admin]\nlisten = \"\"\n{}bucket = \"{BUCKET}\"\ninput_prefix = \"input/\"\n",
            self.api_port,
            s3(&self.networks[0])
        );
        std::fs::write(self.path("gateway.toml"), gateway).expect("a file");
        let client = self.store.client();
        wait(async {
            client
                .create_bucket()
                .bucket(BUCKET)
                .send()
                .await
                .expect("a bucket");
            Store::open(&self.path("service/service"))
                .expect("the service's state")
                .register_model(model(&plant), Utc::now())
                .await
                .expect("a model");
        });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The simulated time.
    pub fn now(&self) -> DateTime<Utc> {
        let passed = (Utc::now() - self.since).as_seconds_f64() * self.speed;
        self.since + TimeDelta::microseconds((passed * 1e6) as i64)
    }

    /// Starts one of the three, which must not run.
    pub fn launch(&mut self, who: Who) {
        let (command, config) = match who {
            Who::Store => return self.store.start_again(),
            Who::Gateway => ("run", "gateway"),
            Who::Service => ("serve", "service"),
        };
        let mut process = binary();
        process
            .arg(command)
            .arg("--config")
            .arg(self.path(&format!("{config}.toml")))
            .args(["--speed", &self.speed.to_string(), "--since"])
            .arg(self.since.to_rfc3339_opts(SecondsFormat::Micros, true));
        if who == Who::Service {
            process
                .arg("--data-dir")
                .arg(self.path("service"))
                .args(["--listen", &format!("127.0.0.1:{}", self.api_port)]);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(who))
            .expect("a log");
        let child = process
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("lookoutd starts");
        self.processes.insert(who, child);
    }

    /// SIGKILL.
    pub fn kill(&mut self, who: Who) {
        match self.processes.get_mut(&who) {
            None => self.store.kill(),
            Some(child) => {
                // Both fail only when it has ended.
                drop(child.kill());
                drop(child.wait());
            }
        }
    }

    /// Gateway and service that have ended by themselves, with their exit codes.
    pub fn ended(&mut self) -> Vec<(Who, String)> {
        let ended = |(who, child): (&Who, &mut Child)| {
            let status = child.try_wait().expect("a state")?;
            Some((*who, status.to_string()))
        };
        self.processes.iter_mut().filter_map(ended).collect()
    }

    /// SIGTERM to gateway and service, and what they answer.
    pub fn stop(&mut self) {
        for (who, child) in &mut self.processes {
            let asked = Command::new("kill").arg(child.id().to_string()).status();
            assert!(asked.expect("kill").success());
            let begun = Instant::now();
            let status = loop {
                if let Some(status) = child.try_wait().expect("a state") {
                    break status;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "{who:?} does not stop"
                );
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(status.success(), "{who:?} ended with {status}");
        }
    }

    fn log_file(&self, who: Who) -> PathBuf {
        self.path(&format!("{who:?}.log"))
    }

    /// What a process logged.
    pub fn log(&self, who: Who) -> String {
        std::fs::read_to_string(self.log_file(who)).unwrap_or_default()
    }

    /// Log lines that ask for a person, and panics.
    pub fn alarms(&self) -> Vec<String> {
        [Who::Gateway, Who::Service]
            .iter()
            .flat_map(|who| {
                let log = self.log(*who);
                let bad = |line: &&str| line.contains("\"ERROR\"") || line.contains("panicked");
                log.lines()
                    .filter(bad)
                    .map(|line| format!("{who:?}: {line}"))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// What the gateway has recorded, oldest first; nothing while it cannot be read.
    pub fn entries(&self) -> Vec<Entry> {
        let Ok(Some(ledger)) = Ledger::open_existing(&self.path("gateway")) else {
            return Vec::new();
        };
        let mut entries = ledger.list(100_000).unwrap_or_default();
        entries.reverse();
        entries
    }

    /// The gateway's archive.
    pub fn archive(&self) -> Archive {
        Archive::new(self.path("gateway/archive"))
    }

    /// Executions that the gateway knows, oldest first.
    pub fn executions(&self) -> Vec<Archived> {
        let Ok(Some(index)) = Index::open_existing(&self.archive()) else {
            return Vec::new();
        };
        index.range(NAME, None, None).unwrap_or_default()
    }

    /// Windows up to the one that starts at `last` are delivered, and executed, scored and archived up to it.
    pub fn is_done(&self, last: DateTime<Utc>) -> bool {
        let delivered = self.entries();
        let until = |entry: &&Entry| entry.start <= last;
        let fed = delivered.iter().any(|entry| entry.start == last)
            && delivered
                .iter()
                .filter(until)
                .all(|entry| entry.state == State::Shipped);
        let executions = self.executions();
        let scored = executions
            .iter()
            .any(|row| row.execution.data_start == last)
            && executions
                .iter()
                .filter(|row| row.execution.data_start <= last)
                .all(|row| row.execution.status == "SUCCESS" && row.archived_at.is_some());
        fed && scored
    }

    #[track_caller]
    pub fn wait_until(&mut self, what: &str, within: Duration, done: impl Fn(&Site) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            let waiting: Vec<Entry> = self.entries();
            assert!(
                begun.elapsed() < within && self.ended().is_empty(),
                "not in {within:?}: {what}; ended: {:?}; windows not shipped: {:#?}; executions not archived: {:#?}\n{}\n{}",
                self.ended(),
                waiting
                    .iter()
                    .filter(|e| e.state != State::Shipped)
                    .take(5)
                    .collect::<Vec<_>>(),
                self.executions()
                    .iter()
                    .filter(|row| row.execution.status != "SUCCESS" || row.archived_at.is_none())
                    .take(5)
                    .collect::<Vec<_>>(),
                tail(&self.log(Who::Gateway)),
                tail(&self.log(Who::Service)),
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The objects under `prefix`.
    pub fn objects(&self, prefix: &str) -> Objects {
        let client = self.store.client();
        wait(async {
            let mut objects = Objects::new();
            let mut pages = client
                .list_objects_v2()
                .bucket(BUCKET)
                .prefix(prefix)
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                for object in page.expect("a page").contents() {
                    let key = object.key().expect("a key");
                    if key.contains("_lookoutd/") {
                        continue;
                    }
                    let read = client.get_object().bucket(BUCKET).key(key).send().await;
                    let body = read.unwrap_or_else(|error| panic!("{key}: {error:?}")).body;
                    let bytes = body.collect().await.expect("its bytes").to_vec();
                    objects.insert(key.to_owned(), bytes);
                }
            }
            objects
        })
    }

    /// What an undisturbed `lookoutd replay` writes for the windows before `end`, with the bucket's keys. It begins where the
    /// kept mapping does, which may be a window before the first that was cut.
    pub fn undisturbed(&self, end: DateTime<Utc>) -> Objects {
        let text = std::fs::read_to_string(self.path("gateway/rebase.json")).expect("a mapping");
        let json = text.lines().next().expect("a line");
        let kept: serde_json::Value = serde_json::from_str(json).expect("a mapping");
        let wall = kept["wall"].as_i64().expect("microseconds");
        let first = DateTime::from_timestamp_micros(wall).expect("a time");
        let windows = (end - first).num_minutes() / 5;
        let from: chrono::NaiveDateTime = FROM.parse().expect("a time");
        let to = from + TimeDelta::minutes(5 * windows);
        let out = self.path("undisturbed");
        let output = binary()
            .args([
                "replay",
                "--from",
                FROM,
                "--to",
                &to.format("%Y-%m-%dT%H:%M:%S").to_string(),
            ])
            .args(["--at", &first.to_rfc3339_opts(SecondsFormat::Secs, true)])
            .arg("--parquet")
            .arg(self.path("plant/signals.parquet"))
            .arg("--tags")
            .arg(self.path("plant/tags_description.csv"))
            .arg("--out")
            .arg(&out)
            .output()
            .expect("replay runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::read_dir(&out)
            .expect("its files")
            .map(|entry| {
                let path = entry.expect("a file").path();
                let name = path
                    .file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned();
                (
                    format!("input/{name}"),
                    std::fs::read(&path).expect("its bytes"),
                )
            })
            .collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in self.processes.values_mut() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking()
            && let Some(place) = std::env::var_os("LOOKOUTD_CHAOS_KEEP")
        {
            // For whoever looks into a failure.
            let from = self.directory.path();
            drop(Command::new("cp").arg("-a").arg(from).arg(place).status());
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

pub fn binary() -> Command {
    let Some(other) = std::env::var_os("LOOKOUTD_CHAOS_BINARY") else {
        return lookoutd();
    };
    let template = lookoutd();
    let mut command = Command::new(other);
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null());
    command
}

/// A model of the plant, trained on three of its healthy days.
pub fn model(plant: &Path) -> NewModel {
    let tags = TagList::read(plant.join("tags_description.csv")).expect("a tag list");
    let mut table = Table::open(
        &plant.join("signals.parquet"),
        Some(&tags),
        &Default::default(),
    )
    .expect("a table");
    let sensors = table.sensors().to_vec();
    let from: chrono::NaiveDateTime = FROM.parse().expect("a time");
    let training = Training {
        sensors,
        labels: Vec::new(),
        from: Some(from.and_utc().timestamp_micros()),
        to: Some((from + TimeDelta::days(3)).and_utc().timestamp_micros()),
        rows: Box::new(|| table.next_block()),
    };
    let options = Options {
        sampling: Some(Sampling::Pt1m),
        ..Options::default()
    };
    let model = Model::fit(training, &options, &mut |_| ()).expect("a model");
    let mut components: Vec<(String, Vec<String>)> = Vec::new();
    for sensor in model.sensors() {
        match components
            .iter_mut()
            .find(|(name, _)| *name == sensor.component)
        {
            Some((_, signals)) => signals.push(sensor.signal.clone()),
            None => components.push((sensor.component.clone(), vec![sensor.signal.clone()])),
        }
    }
    NewModel {
        name: NAME.into(),
        components,
        sampling_us: Some(60_000_000),
        trained: model.training_range(),
        file: model.encode(),
        region: REGION.into(),
        account: ACCOUNT.into(),
    }
}

pub fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}
