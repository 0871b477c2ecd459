//! The real `lookoutd serve` killed with SIGKILL before every durable step of its executions and jobs, alone or with the power of
//! its machine, then started again. Each boundary has one execution, each successful one its results object, and everything in the state and in the store is
//! what an undisturbed run leaves.
//!
//! The steps are found, not listed: a small library (`steps.c`), preloaded into the process, names every sync, rename and
//! removal under its data directory, and kills it before the n-th. So a step that is added later is killed at as well. The
//! state to start from is made by a service in this process whose clock stands in the past; `--catch-up` then runs the windows
//! that the machine's own time has made due.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use aws_sdk_lookoutequipment as l4e;
use chrono::{DateTime, TimeDelta, Utc};
use l4e::types::{
    DataUploadFrequency, IngestionInputConfiguration, IngestionS3InputConfiguration,
    LabelsInputConfiguration, LabelsS3InputConfiguration, Tag,
};
use lookoutd::clock::Clock;
use lookoutd::store::export::Contents;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use super::plant::{BUCKET, COMPONENTS, Plant, ROLE, csv_of};
use super::power::Shadow;
use crate::commands::lookoutd;
use crate::preload::Library;
use crate::s3_server;

/// Names every durable step, and kills before the n-th.
static STEPS: Library = Library::of("tests/it/service/steps.c");
/// Longest a service may take for what is due, or to come to the step it dies at.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the names of objects begin with among those of files.
const OBJECTS: &str = "s3/plant";
/// A commit of the service: something is claimed or recorded.
const STATE: &str = "sync service/state.db-wal";
/// A commit of the store: an object.
const OBJECT: &str = "sync s3/store.db-wal";
/// Cases at once; each waits for its disk most of the time.
const AT_ONCE: usize = 4;

/// A data directory to start from, and what an undisturbed run makes of it.
struct Trial {
    template: TempDir,
    /// Queries whose rows must be those of the undisturbed run; they leave out what tells the time of day.
    state: Vec<String>,
    /// Query that counts what is still to be done.
    left: String,
    /// Beginnings of the names of files and objects that an undisturbed run leaves; so what is compared is there.
    made: Vec<String>,
}

/// What a run left: the rows of each query, the files of models and datasets, and the objects of the store.
#[derive(PartialEq)]
struct Left {
    rows: Vec<(String, Vec<Vec<Value>>)>,
    files: BTreeMap<String, Vec<u8>>,
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What ends with the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    Nothing,
    /// What was not synced is lost.
    Power,
}

/// Starts `lookoutd serve` over `data`, to die at a step, or at none.
fn serve(data: &Path, log: &Path, die_at: Option<usize>, shadow: Option<&Shadow>) -> Process {
    let mut command = lookoutd();
    command
        .args(["serve", "--catch-up", "--listen", "127.0.0.1:0"])
        .args(["--s3-listen", "127.0.0.1:0", "--data-dir"])
        .arg(data)
        .env("LD_PRELOAD", STEPS.path())
        .env("STEPS_UNDER", data)
        .env("STEPS_LOG", log)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(data.with_extension("err")).unwrap());
    if let Some(step) = die_at {
        command.env("STEPS_DIE_AT", step.to_string());
    }
    if let Some(shadow) = shadow {
        command.env("STEPS_SHADOW", shadow.path());
    }
    Process(command.spawn().unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn files(root: &Path, at: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(at)
        .into_iter()
        .flatten()
        .map(Result::unwrap)
    {
        let path = entry.path();
        if path.is_dir() {
            files(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
}

impl Trial {
    fn rows(&self, data: &Path, query: &str) -> rusqlite::Result<Vec<Vec<Value>>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let db = Connection::open_with_flags(data.join("service/state.db"), flags)?;
        db.busy_timeout(Duration::from_secs(5))?;
        let mut statement = db.prepare(query)?;
        let columns = statement.column_count();
        let read = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        statement.query_map([], read)?.collect()
    }

    fn done(&self, data: &Path) -> bool {
        // While it is being recovered the database may be locked.
        self.rows(data, &self.left)
            .is_ok_and(|rows| rows == [[Value::Integer(0)]])
    }

    fn left(&self, data: &Path) -> Left {
        let mut found = BTreeMap::new();
        for part in ["service/models", "service/datasets"] {
            files(data, &data.join(part), &mut found);
        }
        let store = Contents::open(&data.join("s3")).unwrap();
        for key in store.keys(BUCKET).unwrap() {
            let bytes = store.read(BUCKET, &key).unwrap();
            found.insert(format!("{OBJECTS}/{key}"), bytes);
        }
        // When late results were scored.
        for (name, bytes) in &mut found {
            if name.ends_with("late.json") {
                let mut record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                record["scored_at"].take();
                *bytes = record.to_string().into_bytes();
            }
        }
        let rows = self.state.iter();
        Left {
            rows: rows
                .map(|query| (query.clone(), self.rows(data, query).unwrap()))
                .collect(),
            files: found,
        }
    }

    /// Lets a service do what is due, and ends it the hard way when it has. Returns what it left.
    fn undisturbed(&self, data: &Path, log: &Path, what: &str) -> Left {
        let mut service = serve(data, log, None, None);
        let begun = Instant::now();
        while !self.done(data) {
            let problem = || {
                let log = std::fs::read_to_string(data.with_extension("err")).unwrap();
                format!("{what}: {:?} are left: {log}", self.rows(data, &self.left))
            };
            assert!(
                service.0.try_wait().unwrap().is_none(),
                "ended: {}",
                problem()
            );
            assert!(begun.elapsed() < PATIENCE, "{}", problem());
            std::thread::sleep(Duration::from_millis(20));
        }
        // What follows the last commit: swept files.
        std::thread::sleep(Duration::from_millis(150));
        drop(service);
        self.left(data)
    }

    /// Kills at every step of an undisturbed run: with the power at one, alone at the next, and with everything asked for both ways
    /// at each.
    fn kill_at(&self, named: &[&str]) {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("undisturbed");
        copy(self.template.path(), &data);
        let log = scratch.path().join("undisturbed.steps");
        let expected = self.undisturbed(&data, &log, "undisturbed");
        for beginning in &self.made {
            let mut names = expected.files.keys();
            assert!(
                names.any(|name| name.starts_with(beginning)),
                "no {beginning} is left: {:#?}",
                expected.files.keys()
            );
        }
        let steps = steps(&log);
        // The shape of an execution or a job, so that a step that is lost from the list is missed.
        let mut rest = steps.iter();
        for part in named {
            assert!(
                rest.any(|step| step.contains(part)),
                "no step {part} in its place: {steps:#?}"
            );
        }
        let full = crate::skipped::full("half of the kills and half of the power cuts");
        let chosen =
            |(step, with): &(usize, With)| full || (step % 2 == 0) == (*with == With::Power);
        let cases: Vec<(usize, With)> = (1..=steps.len())
            .flat_map(|step| [(step, With::Nothing), (step, With::Power)])
            .filter(chosen)
            .collect();
        eprintln!("{} steps, killed {} times", steps.len(), cases.len());
        let cases = Mutex::new(cases.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let next = cases.lock().unwrap().next();
                        let Some((step, with)) = next else { return };
                        self.kill_and_compare(scratch.path(), step, with, &expected);
                    }
                });
            }
        });
    }

    fn kill_and_compare(&self, scratch: &Path, step: usize, with: With, expected: &Left) {
        let data = scratch.join(format!("killed-{step}-{with:?}"));
        copy(self.template.path(), &data);
        let log = data.with_extension("steps");
        let shadow =
            (with == With::Power).then(|| Shadow::of(&data, data.with_extension("shadow")));
        let mut doomed = serve(&data, &log, Some(step), shadow.as_ref());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = doomed.0.try_wait().unwrap() {
                break status;
            }
            // Jobs beside each other may take a step less when their commits meet.
            if begun.elapsed() > PATIENCE || self.done(&data) {
                drop(doomed.0.kill());
                break doomed.0.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.signal(), Some(9), "step {step}: it ended by itself");
        let reached = steps(&log);
        if let Some(shadow) = shadow {
            shadow.restore(&data);
        }
        let what = format!(
            "killed at step {step} with {with:?}, after {:?}",
            reached.last()
        );
        let left = self.undisturbed(&data, &data.with_extension("again"), &what);
        compare(&left, expected, &what);
        std::fs::remove_dir_all(data).unwrap();
    }
}

fn steps(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn compare(left: &Left, expected: &Left, what: &str) {
    for ((query, rows), (_, wanted)) in left.rows.iter().zip(&expected.rows) {
        assert_eq!(rows, wanted, "{what}: {query}");
    }
    let names = |left: &Left| left.files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(left), names(expected), "{what}");
    for (name, bytes) in &left.files {
        assert!(*bytes == expected.files[name], "{what}: {name} differs");
    }
}

/// What a service needs to be served by the binary: its state and store, and the key pair.
fn template(plant: &Plant) -> TempDir {
    let template = tempfile::tempdir().unwrap();
    copy(
        &plant.directory.path().join("s3"),
        &template.path().join("s3"),
    );
    copy(
        &plant.directory.path().join("state"),
        &template.path().join("service"),
    );
    std::fs::write(
        template.path().join("credentials"),
        "[default]\naws_access_key_id = AKIDTEST\naws_secret_access_key = secret\n",
    )
    .unwrap();
    template
}

/// Three hourly windows of a scheduler that looks for late files: the first failed without data, which has come since; the second
/// and third are due, with a fault in the second. `end` is the third's end.
async fn three_windows(end: DateTime<Utc>) -> Trial {
    let hours = |n: i64| end + TimeDelta::hours(n);
    let mut plant = Plant::start_at(hours(-3) + TimeDelta::minutes(2)).await;
    let tag = Tag::builder()
        .key("lookoutd:late-files")
        .value("score")
        .build()
        .unwrap();
    plant
        .run("s", |request| {
            request
                .tags(tag)
                .data_upload_frequency(DataUploadFrequency::Pt1H)
        })
        .await;
    let failed = plant.execute("s", &hours(-2).to_rfc3339()).await;
    assert_eq!(failed.status().unwrap().as_str(), "FAILED");
    plant.down().await;
    for (window, fault) in [(-3, 0.0), (-2, 30.0), (-1, 0.0)] {
        let start = hours(window);
        for (component, _) in COMPONENTS {
            let key = format!("in/{component}-{}.csv", start.format("%Y%m%d%H%M%S"));
            plant.put(&key, csv_of(component, start, 60, fault)).await;
        }
    }
    let last = end.timestamp_micros();
    let results = |window: i64, name: &str| {
        let start = hours(window).format(ISO);
        format!("{OBJECTS}/out/{start}Z/{name}")
    };
    Trial {
        template: template(&plant),
        made: vec![
            results(-3, "results.jsonl"),
            results(-3, "late.json"),
            results(-2, "results.jsonl"),
            results(-1, "results.jsonl"),
        ],
        state: vec![
            "SELECT boundary_us, start_us, scheduled_us, status, input, output, model_version, result_bucket, result_key,
                    failed_reason, rows, anomalous FROM execution ORDER BY boundary_us"
                .into(),
            "SELECT * FROM event ORDER BY start_us".into(),
            "SELECT uuid, status, next_boundary_us, due_us, latest_result, scoring_state FROM scheduler".into(),
        ],
        left: format!(
            "SELECT (SELECT count(*) FROM scheduler WHERE next_boundary_us <= {last})
                  + (SELECT count(*) FROM execution WHERE status <> 'SUCCESS')"
        ),
    }
}

#[test]
fn killed_at_every_durable_step_of_an_execution_each_boundary_is_scored_once_as_if_undisturbed() {
    let now = Clock::system().now();
    // A boundary that passes meanwhile would be one more execution: wait it out.
    let left = 3600 - now.timestamp().rem_euclid(3600);
    if left < PATIENCE.as_secs() as i64 {
        std::thread::sleep(Duration::from_secs(left as u64 + 1));
    }
    let now = Clock::system().now();
    let end = hour_of(now);
    let trial = runtime().block_on(three_windows(end));
    let claimed_scored_recorded = [STATE, OBJECT, STATE];
    // The look is noted, then there are results and the record beside them; the next window is claimed after that.
    let late = [STATE, OBJECT, OBJECT, STATE];
    let shape = [
        &["remove service/state.clean"][..],
        &claimed_scored_recorded,
        &late,
        &claimed_scored_recorded,
    ]
    .concat();
    trial.kill_at(&shape);
}

/// A dataset to be ingested, a model to be trained with labels from S3, and another to be retrained: all three asked for
/// while the store did not answer, so that they are to be done at the next start.
async fn three_jobs(now: DateTime<Utc>) -> Trial {
    let begun = now - TimeDelta::days(40);
    let mut plant = Plant::start_at(begun).await;
    for (component, _) in COMPONENTS {
        let rows = csv_of(component, begun - TimeDelta::days(1), 24 * 60, 0.0);
        plant.place(&format!("train/{component}/rows.csv"), rows.as_bytes());
    }
    let labelled = begun - TimeDelta::hours(20);
    let label = format!(
        "{},{}\n",
        labelled.format(ISO),
        (labelled + TimeDelta::hours(2)).format(ISO)
    );
    plant.place("labels/labels.csv", label.as_bytes());

    ingest(&plant, "first").await;
    settled(
        &plant,
        "SELECT count(*) FROM ingestion_job WHERE status <> 'SUCCESS'",
    )
    .await;
    train(&plant, "trained", None).await;
    settled(
        &plant,
        "SELECT count(*) FROM model_version WHERE status <> 'SUCCESS'",
    )
    .await;
    // Due in thirty days, which have passed when the binary starts.
    plant
        .api
        .create_retraining_scheduler()
        .model_name("trained")
        .retraining_frequency("P30D")
        .lookback_window("P180D")
        .send()
        .await
        .unwrap();
    settled(
        &plant,
        "SELECT count(*) FROM retraining_scheduler WHERE status <> 'RUNNING'",
    )
    .await;
    plant.down().await;

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    plant.s3 = s3_server::client(silent.local_addr().unwrap());
    plant.up().await;
    ingest(&plant, "second").await;
    train(&plant, "labelled", Some("labels/")).await;
    plant.down().await;
    Trial {
        template: template(&plant),
        made: vec![
            format!("{OBJECTS}/train/"),
            "service/models/".into(),
            "service/datasets/".into(),
        ],
        state: vec![
            "SELECT name, uuid, status, schema, job_id FROM dataset ORDER BY name".into(),
            "SELECT id, dataset_uuid, status, failed_reason, quality, files, size, start_us, end_us FROM ingestion_job
             ORDER BY id"
                .into(),
            "SELECT * FROM sensor_statistics ORDER BY job_id, component, sensor".into(),
            "SELECT name, uuid, status, schema, sampling_us, active_version, previous_version FROM model ORDER BY name"
                .into(),
            "SELECT model_uuid, version, arn, status, source_type, dataset_file, file, failed_reason, metrics, quality, detail
             FROM model_version ORDER BY model_uuid, version"
                .into(),
            "SELECT model_name, status, next_us FROM retraining_scheduler".into(),
        ],
        left: "SELECT (SELECT count(*) FROM ingestion_job WHERE status <> 'SUCCESS')
                    + (SELECT count(*) FROM model_version WHERE status <> 'SUCCESS')
                    + 4 - (SELECT count(*) FROM model_version)"
            .into(),
    }
}

const ISO: &str = "%Y-%m-%dT%H:%M:%S";

async fn ingest(plant: &Plant, dataset: &str) {
    plant
        .api
        .create_dataset()
        .dataset_name(dataset)
        .send()
        .await
        .unwrap();
    let location = IngestionS3InputConfiguration::builder()
        .bucket(BUCKET)
        .prefix("train/")
        .key_pattern("{prefix}/{component_name}/*");
    let input = IngestionInputConfiguration::builder()
        .s3_input_configuration(location.build().unwrap())
        .build();
    let start = plant.api.start_data_ingestion_job().dataset_name(dataset);
    start
        .ingestion_input_configuration(input)
        .role_arn(ROLE)
        .send()
        .await
        .unwrap();
}

async fn train(plant: &Plant, model: &str, labels: Option<&str>) {
    let labels = labels.map(|prefix| {
        let location = LabelsS3InputConfiguration::builder()
            .bucket(BUCKET)
            .prefix(prefix);
        LabelsInputConfiguration::builder()
            .s3_input_configuration(location.build().unwrap())
            .build()
    });
    let create = plant
        .api
        .create_model()
        .model_name(model)
        .dataset_name("first");
    let create = create.set_labels_input_configuration(labels).role_arn(ROLE);
    create.send().await.unwrap();
}

/// Waits until a query counts none.
async fn settled(plant: &Plant, query: &str) {
    let state = plant.directory.path().join("state/state.db");
    for _ in 0..1200 {
        let db = Connection::open(&state).unwrap();
        if db.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never none: {query}");
}

#[test]
fn killed_at_every_durable_step_of_the_jobs_each_is_done_once_as_if_undisturbed() {
    let trial = runtime().block_on(three_jobs(Clock::system().now()));
    trial.kill_at(&[STATE, "/models/", STATE]);
}

#[test]
fn asked_for_speed_schedules_run_ahead_of_the_machines_time() {
    let now = Clock::system().now();
    let trial = runtime().block_on(three_windows(hour_of(now)));
    let refused = lookoutd()
        .args(["serve", "--speed", "0", "--data-dir"])
        .arg(trial.template.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("above 0"));
    let service = lookoutd()
        .args(["serve", "--speed", "3600", "--listen", "127.0.0.1:0"])
        .args(["--s3-listen", "127.0.0.1:0", "--data-dir"])
        .arg(trial.template.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _service = Process(service.unwrap());
    // An hour a second: within moments a boundary has been run that is hours away.
    let ahead = (now + TimeDelta::hours(2)).timestamp_micros();
    let query = format!("SELECT count(*) > 0 FROM execution WHERE boundary_us > {ahead}");
    let begun = Instant::now();
    while !trial
        .rows(trial.template.path(), &query)
        .is_ok_and(|rows| rows == [[Value::Integer(1)]])
    {
        assert!(begun.elapsed() < PATIENCE, "no execution runs ahead");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The last full hour.
fn hour_of(now: DateTime<Utc>) -> DateTime<Utc> {
    now - TimeDelta::microseconds(now.timestamp_micros().rem_euclid(3_600_000_000))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}
