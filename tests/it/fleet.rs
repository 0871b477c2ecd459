//! A service's state as it is after a long run, written straight into its database and bucket: many schedulers, one of
//! them with a long history, failures, events, labels, results and input files. Names may be hostile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use lookoutd::feed::disk::LocalDisk;
use lookoutd::feed::{Entry, Ledger, Spool, State};
use lookoutd::ops::site::{AssetSite, FeedSite, Watched};
use lookoutd::service::store::Store;
use lookoutd::signal::{Asset, Cadence, Component, NameFormat, TagList, Window};
use lookoutd::vitals::Vitals;

/// What is made up.
pub struct Fleet {
    /// Schedulers beside the first.
    pub schedulers: usize,
    /// Executions of the first one.
    pub executions: i64,
    /// Executions of each of the others.
    pub of_others: i64,
    /// Windows, the newest, that have results and input files.
    pub with_files: i64,
    /// Name of the first scheduler.
    pub name: String,
    /// Component and sensors.
    pub component: String,
    /// Its sensors; the third one leads every event.
    pub sensors: Vec<String>,
    /// Why failed executions failed.
    pub reason: String,
}

impl Default for Fleet {
    fn default() -> Fleet {
        Fleet {
            schedulers: 20,
            executions: 600,
            of_others: 3,
            with_files: 120,
            name: "pump-42".into(),
            component: "centrifugal-pump".into(),
            sensors: ["inlet_pressure", "outlet_pressure", "bearing_vibration", "motor_current", "casing_temperature", "flow"]
                .map(String::from)
                .to_vec(),
            reason: "Could not find data file for sensor centrifugal-pump within expected range of (2026-01-01T00:00:00Z, \
                     2026-01-01T00:05:00Z]. Please ensure data is present for all sensors of the machine under prefix 's3://x'"
                .into(),
        }
    }
}

/// Where everything lies.
pub struct Places {
    /// The service's database.
    pub state: PathBuf,
}

impl Fleet {
    /// Writes the state under `directory` and the objects into `bucket`, through `objects` if there are any; the newest window
    /// ends at or before `now`.
    pub async fn write(
        &self,
        directory: &Path,
        objects: Option<&lookoutd::store::Store>,
        bucket: &str,
        now: DateTime<Utc>,
    ) -> Places {
        drop(Store::open(directory).unwrap());
        let newest = now.timestamp() / 300 * 300;
        let mut db = rusqlite::Connection::open(directory.join("state.db")).unwrap();
        let transaction = db.transaction().unwrap();
        for (statement, values) in &self.sql(bucket, newest) {
            let mut statement = transaction.prepare_cached(statement).unwrap();
            let values = rusqlite::params_from_iter(values);
            statement.execute(values).unwrap();
        }
        transaction.commit().unwrap();
        drop(db);
        for back in 0..self.with_files {
            let start = DateTime::from_timestamp(newest - 300 * (back + 1), 0).unwrap();
            self.objects(objects.unwrap(), bucket, start, back);
        }
        Places {
            state: directory.join("state.db"),
        }
    }

    fn sql(&self, bucket: &str, newest: i64) -> Vec<(&'static str, Vec<rusqlite::types::Value>)> {
        use rusqlite::types::Value::{Integer, Null, Real, Text};
        let text = |text: &str| Text(text.to_owned());
        let micros = |seconds: i64| Integer(seconds * 1_000_000);
        let mut rows = Vec::new();
        let input = serde_json::json!({
            "S3InputConfiguration": {"Bucket": bucket, "Prefix": "input/"},
            "InputTimeZoneOffset": "+00:00",
            "InferenceInputNameConfiguration": {"TimestampFormat": "yyyyMMddHHmmss", "ComponentTimestampDelimiter": "_"},
        })
        .to_string();
        for index in 0..=self.schedulers {
            let name = match index {
                0 => self.name.clone(),
                n => format!("asset-{n:04}"),
            };
            rows.push((
                "INSERT INTO model (name, uuid, arn, status, schema, active_version, created_us, updated_us)
                 VALUES (?1, ?2, ?3, 'SUCCESS', '{}', 1, 0, 0)",
                vec![Text(format!("model-{index}")), Text(format!("m{index}")), Text(format!("arn:m{index}"))],
            ));
            rows.push((
                "INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output, role_arn,
                     created_us, updated_us, next_boundary_us, due_us, latest_result)
                 VALUES (?1, ?2, ?3, ?4, ?5, 1, 'PT5M', ?6, '{}', 'r', 0, 0, ?7, ?8, ?9)",
                vec![
                    Text(name),
                    Text(format!("s{index}")),
                    Text(format!("arn:s{index}")),
                    Text(format!("model-{index}")),
                    text(if index % 5 == 4 { "STOPPED" } else { "RUNNING" }),
                    Text(input.clone()),
                    micros(newest + 300),
                    micros(newest + 360),
                    text(if index == 0 { "ANOMALOUS" } else { "NORMAL" }),
                ],
            ));
            let count = if index == 0 {
                self.executions
            } else {
                self.of_others
            };
            for back in 0..count {
                let end = newest - 300 * back;
                let failed = back % 40 == 17;
                // The others are well: their results are those of a healthy hour of the first.
                let ago = if index == 0 {
                    0
                } else {
                    20 + index as i64 % 20
                };
                let start = DateTime::from_timestamp(end - 300 * (1 + ago), 0).unwrap();
                rows.push((
                    "INSERT INTO execution (scheduler_uuid, boundary_us, start_us, scheduled_us, status, input, output, model_version,
                         model_version_arn, result_bucket, result_key, failed_reason, finished_us, rows, anomalous, score)
                     VALUES (?1, ?2, ?3, ?4, ?5, '{}', '{}', 1, 'v', ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                    vec![
                        Text(format!("s{index}")),
                        micros(end),
                        micros(end - 300),
                        micros(end + 60),
                        text(if failed { "FAILED" } else { "SUCCESS" }),
                        if failed { Null } else { text(bucket) },
                        if failed { Null } else { Text(result_key(start)) },
                        if failed { Text(self.reason.clone()) } else { Null },
                        micros(end + 63),
                        if failed { Null } else { Integer(5) },
                        if failed { Null } else { Integer(if index == 0 && is_event(back) { 5 } else { 0 }) },
                        if failed { Null } else { Real(highest(start, index == 0 && is_event(back))) },
                    ],
                ));
            }
        }
        let shares: Vec<_> = self
            .sensors
            .iter()
            .enumerate()
            .map(|(place, sensor)| serde_json::json!({"name": format!("{}\\{sensor}", self.component), "value": self.share(place)}))
            .collect();
        let shares = serde_json::Value::from(shares).to_string();
        for (from, to) in [(8, 0), (58, 51)] {
            rows.push((
                "INSERT INTO event (scheduler_uuid, start_us, end_us, rows, diagnostics) VALUES ('s0', ?1, ?2, 40, ?3)",
                vec![micros(newest - 300 * (from + 1) + 60), micros(newest - 300 * to), Text(shares.clone())],
            ));
        }
        rows.push((
            "INSERT INTO label_group (name, arn, fault_codes, created_us, updated_us) VALUES ('g', 'arn:g', '[]', 0, 0)",
            vec![],
        ));
        rows.push((
            "INSERT INTO label (label_group, id, start_us, end_us, rating, notes, created_us) VALUES ('g', 'l', ?1, ?2, 'ANOMALY', 'bearing changed', 0)",
            vec![micros(newest - 300 * 62), micros(newest - 300 * 50)],
        ));
        rows
    }

    fn objects(
        &self,
        store: &lookoutd::store::Store,
        bucket: &str,
        start: DateTime<Utc>,
        back: i64,
    ) {
        let put = |key: String, text: String| {
            store.put_blocking(bucket, &key, text.as_bytes()).unwrap();
        };
        let (mut results, mut input) = (
            String::new(),
            format!("Timestamp,{}\n", self.sensors.join(",")),
        );
        for minute in 1..=5 {
            let time = start + TimeDelta::minutes(minute);
            let phase = time.timestamp() as f64 / 900.0;
            let score: f64 = if is_event(back) {
                0.72 + 0.2 * phase.sin().abs()
            } else {
                0.12 + 0.1 * phase.sin().abs()
            };
            let diagnostics: Vec<_> = (0..self.sensors.len())
                .map(|place| {
                    let share = if is_event(back) { self.share(place) } else { 1.0 / self.sensors.len() as f64 };
                    serde_json::json!({"name": format!("{}\\{}", self.component, self.sensors[place]), "value": share})
                })
                .collect();
            let line = serde_json::json!({
                "timestamp": time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
                "prediction": u8::from(score > 0.5),
                "prediction_reason": if score > 0.5 { "ANOMALY_DETECTED" } else { "NO_ANOMALY_DETECTED" },
                "anomaly_score": (score * 1e5).round() / 1e5,
                "diagnostics": diagnostics,
            });
            results.push_str(&format!("{line}\n"));
            let values: Vec<String> = (0..self.sensors.len())
                .map(|place| {
                    let swing = (phase * (place + 1) as f64).sin();
                    let lift = if is_event(back) && place == 2 {
                        6.0
                    } else {
                        0.0
                    };
                    format!("{:.3}", 10.0 * (place + 1) as f64 + swing + lift)
                })
                .collect();
            input.push_str(&format!(
                "{},{}\n",
                time.format("%Y-%m-%dT%H:%M:%S%.6f"),
                values.join(",")
            ));
        }
        put(result_key(start), results);
        put(
            format!(
                "input/{}_{}.csv",
                self.component.replace('/', "-"),
                start.format("%Y%m%d%H%M%S")
            ),
            input,
        );
    }

    /// The third sensor has half, the others the rest.
    fn share(&self, place: usize) -> f64 {
        if place == 2 {
            0.5
        } else {
            0.5 / (self.sensors.len() - 1) as f64
        }
    }
}

/// A plant over the fleet: as many assets as it has schedulers, each fed until now; `broken` of them, the last, wait for their
/// histories.
#[allow(dead_code, reason = "only pages of a plant have assets")]
pub fn assets(
    fleet: &Fleet,
    directory: &Path,
    bucket: &lookoutd::s3::Bucket,
    now: DateTime<Utc>,
    vitals: &Vitals,
    broken: usize,
) -> Vec<AssetSite> {
    let (ledger, _) = Ledger::open(directory, now).unwrap();
    let spool = Spool::attach(Arc::new(LocalDisk), directory);
    let live = Window::containing(now, Cadence::Pt5m);
    let component = |name: String| Component {
        name,
        signals: fleet.sensors.clone(),
        ..Component::default()
    };
    let names = (0..=fleet.schedulers).map(|index| match index {
        0 => fleet.name.clone(),
        n => format!("asset-{n:04}"),
    });
    let one = |(index, name): (usize, String)| {
        let mut entry = Entry::new(&live, State::Shipped);
        (entry.files, entry.components, entry.rows, entry.bytes) = (2, 2, 5, 640);
        (entry.cut_at, entry.shipped_at) = (Some(live.start()), Some(live.start()));
        let watched = Watched::default();
        watched.seen(&name, Some("RUNNING"), "RUNNING", now - TimeDelta::hours(1));
        let own = ledger.of(&name);
        let waits = index + broken > fleet.schedulers;
        if !waits {
            own.record(&entry).unwrap();
        }
        let feed = || FeedSite {
            config: lookoutd::feed::Config::default(),
            naming: NameFormat::default(),
            prefix: format!("input/{name}/"),
            tags: TagList {
                components: ["motor".into(), fleet.component.clone()]
                    .map(component)
                    .into(),
            },
            bucket: bucket.clone(),
            ledger: own.clone(),
            spool: spool.of(&name),
            health: vitals.of(&name).health().clone(),
            delay: TimeDelta::minutes(1),
        };
        AssetSite {
            feed: (!waits).then(|| Arc::new(feed())),
            asset: Asset::known(&name),
            watched,
        }
    };
    names.enumerate().map(one).collect()
}

/// The highest score of a window.
fn highest(start: DateTime<Utc>, event: bool) -> f64 {
    let phase = start.timestamp() as f64 / 9_000.0;
    match event {
        true => 0.72 + 0.2 * phase.sin().abs(),
        false => 0.12 + 0.25 * phase.sin().abs(),
    }
}

/// Whether the window that many windows ago is anomalous.
fn is_event(back: i64) -> bool {
    back <= 8 || (51..=58).contains(&back)
}

fn result_key(start: DateTime<Utc>) -> String {
    format!(
        "output/{}/results.jsonl",
        start.format("%Y-%m-%dT%H:%M:%SZ")
    )
}
