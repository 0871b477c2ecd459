//! A plant for tests: two components with three sensors, a model trained on three healthy days, an in-process S3 and a
//! service that can be stopped and started again over the same state.

use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_lookoutequipment as l4e;
use aws_sdk_s3::primitives::ByteStream;
use chrono::{DateTime, TimeDelta, Utc};
use l4e::config::{BehaviorVersion, Credentials, Region};
use l4e::types::{
    DataUploadFrequency, InferenceExecutionSummary, InferenceInputConfiguration,
    InferenceInputNameConfiguration, InferenceOutputConfiguration, InferenceS3InputConfiguration,
    InferenceS3OutputConfiguration,
};
use lookoutd::clock::Clock;
use lookoutd::model::{Model, Options, Rows, Sampling, Sensor, Training};
use lookoutd::service::store::NewModel;
use lookoutd::service::{AccessKey, Auth, Config, Service};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::s3_server;

/// The components and their sensors, in the model's order.
pub const COMPONENTS: [(&str, &[&str]); 2] = [("pump-1", &["flow", "power"]), ("fan", &["speed"])];
pub const BUCKET: &str = "plant";
pub const ROLE: &str = "arn:aws:iam::123456789012:role/lookoutd";
/// When the manual clock starts: between two 5-minute boundaries.
pub const START: &str = "2026-03-01T10:02:00Z";

pub fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub struct Plant {
    pub directory: TempDir,
    pub clock: Clock,
    pub s3: aws_sdk_s3::Client,
    pub s3_address: std::net::SocketAddr,
    /// Behind the listener.
    pub store: lookoutd::store::Store,
    pub api: l4e::Client,
    pub address: std::net::SocketAddr,
    /// Of the service that runs.
    pub vitals: lookoutd::vitals::Vitals,
    catch_up: bool,
    running: Option<(Service, CancellationToken)>,
}

impl Plant {
    /// A plant with the model `model-1`.
    pub async fn start() -> Plant {
        Plant::start_at(at(START)).await
    }

    /// The same at another time.
    pub async fn start_at(now: DateTime<Utc>) -> Plant {
        let directory = tempfile::tempdir().unwrap();
        let (s3, store) =
            s3_server::open(&directory.path().join("s3"), "127.0.0.1:0".parse().unwrap()).await;
        store.create_bucket(BUCKET).unwrap();
        let mut plant = Plant {
            directory,
            clock: Clock::manual(now),
            s3: s3_server::client(s3),
            s3_address: s3,
            store,
            api: client("127.0.0.1:1".parse().unwrap(), "AKIDTEST", "secret"),
            address: "127.0.0.1:1".parse().unwrap(),
            vitals: Default::default(),
            catch_up: false,
            running: None,
        };
        plant.up().await;
        plant.register("model-1").await;
        plant
    }

    /// Puts an object there as somebody else would.
    pub fn place(&self, key: &str, bytes: &[u8]) {
        self.store.put_blocking(BUCKET, key, bytes).unwrap();
    }

    /// Starts the service over the state that is there.
    pub async fn up(&mut self) {
        self.vitals = Default::default();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: self.directory.path().join("state"),
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            credentials: Auth::Keys(vec![AccessKey {
                id: "AKIDTEST".into(),
                secret: "secret".into(),
            }]),
            catch_up: self.catch_up,
            vitals: self.vitals.clone(),
            catch_up_max_age: lookoutd::service::CATCH_UP_MAX_AGE,
            cors: Default::default(),
            keep_executions: lookoutd::service::KEEP_EXECUTIONS,
        };
        let shutdown = CancellationToken::new();
        let service = Service::start(
            config,
            self.s3.clone(),
            self.clock.clone(),
            shutdown.clone(),
        )
        .await
        .unwrap();
        self.address = service.address();
        self.api = client(self.address, "AKIDTEST", "secret");
        self.running = Some((service, shutdown));
    }

    /// Stops the service and waits until it has, and until its database is closed: a thread may still hold it for a moment.
    pub async fn down(&mut self) {
        if let Some((service, shutdown)) = self.running.take() {
            shutdown.cancel();
            service.stopped().await;
            let log = self.directory.path().join("state/state.db-wal");
            for _ in 0..1000 {
                if !log.exists() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("{} is open ten seconds after the stop", log.display());
        }
    }

    pub async fn register(&self, name: &str) {
        let model = NewModel {
            name: name.into(),
            components: COMPONENTS
                .iter()
                .map(|(component, signals)| {
                    (
                        (*component).to_owned(),
                        signals.iter().map(|signal| (*signal).to_owned()).collect(),
                    )
                })
                .collect(),
            sampling_us: Some(60_000_000),
            trained: model().training_range(),
            file: model().encode(),
            region: "eu-west-1".into(),
            account: "123456789012".into(),
        };
        let (service, _) = self.running.as_ref().unwrap();
        service
            .store()
            .register_model(model, self.clock.now())
            .await
            .unwrap();
    }

    /// Creates a PT5M scheduler on `model`; `change` edits the request.
    pub async fn create(
        &self,
        name: &str,
        model: &str,
        change: impl FnOnce(CreateScheduler) -> CreateScheduler,
    ) -> Result<
        l4e::operation::create_inference_scheduler::CreateInferenceSchedulerOutput,
        l4e::Error,
    > {
        let request = self
            .api
            .create_inference_scheduler()
            .inference_scheduler_name(name)
            .model_name(model)
            .data_upload_frequency(DataUploadFrequency::Pt5M)
            .data_input_configuration(input("in/", "-", "yyyyMMddHHmmss", "+00:00"))
            .data_output_configuration(output("out/"))
            .role_arn(ROLE);
        change(request).send().await.map_err(l4e::Error::from)
    }

    /// Creates a scheduler and waits until it is RUNNING.
    pub async fn run(&self, name: &str, change: impl FnOnce(CreateScheduler) -> CreateScheduler) {
        self.create(name, "model-1", change).await.unwrap();
        self.wait_status(name, "RUNNING").await;
    }

    /// Stops a scheduler and waits until it is STOPPED.
    pub async fn stop(&self, name: &str) {
        let stop = self.api.stop_inference_scheduler();
        stop.inference_scheduler_name(name).send().await.unwrap();
        self.wait_status(name, "STOPPED").await;
    }

    /// Deletes a scheduler that is STOPPED.
    pub async fn delete(&self, name: &str) {
        let delete = self.api.delete_inference_scheduler();
        delete.inference_scheduler_name(name).send().await.unwrap();
    }

    pub async fn status(&self, name: &str) -> String {
        let described = self
            .api
            .describe_inference_scheduler()
            .inference_scheduler_name(name)
            .send()
            .await
            .unwrap();
        described.status().unwrap().as_str().to_owned()
    }

    pub async fn wait_status(&self, name: &str, status: &str) {
        for _ in 0..2_400 {
            if self.status(name).await == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is {}, expected {status}", self.status(name).await);
    }

    pub async fn executions(&self, name: &str) -> Vec<InferenceExecutionSummary> {
        let listed = self
            .api
            .list_inference_executions()
            .inference_scheduler_name(name)
            .send()
            .await
            .unwrap();
        listed.inference_execution_summaries().to_vec()
    }

    /// Moves the clock to `to` and returns the newest execution once it has ended there.
    pub async fn execute(&self, name: &str, to: &str) -> InferenceExecutionSummary {
        self.clock.advance_to(at(to));
        let mut seen = Vec::new();
        for _ in 0..4_800 {
            seen = self.executions(name).await;
            if let Some(newest) = seen.first()
                && newest.status().unwrap().as_str() != "IN_PROGRESS"
                && newest.scheduled_start_time().unwrap().secs() > at(to).timestamp() - 300
            {
                return newest.clone();
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no execution of {name} ended at {to}: {seen:?}");
    }

    pub async fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let body = ByteStream::from(content.into());
        self.s3
            .put_object()
            .bucket(BUCKET)
            .key(key)
            .body(body)
            .send()
            .await
            .unwrap();
    }

    pub async fn get(&self, key: &str) -> String {
        let object = self
            .s3
            .get_object()
            .bucket(BUCKET)
            .key(key)
            .send()
            .await
            .unwrap();
        String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap()
    }

    /// Both components' files of the window that starts at `start`, with the default names under `in/`.
    pub async fn feed(&self, start: &str) {
        self.feed_named(
            at(start),
            |component, stamp| format!("in/{component}-{stamp}.csv"),
            0.0,
        )
        .await;
    }

    /// Both components' files; `fault` is added to the pump's power.
    pub async fn feed_named(
        &self,
        start: DateTime<Utc>,
        name: impl Fn(&str, &str) -> String,
        fault: f64,
    ) {
        let stamp = start.format("%Y%m%d%H%M%S").to_string();
        for (component, _) in COMPONENTS {
            self.put(&name(component, &stamp), csv(component, start, fault))
                .await;
        }
    }
}

type CreateScheduler =
    l4e::operation::create_inference_scheduler::builders::CreateInferenceSchedulerFluentBuilder;

pub fn client(address: std::net::SocketAddr, id: &str, secret: &str) -> l4e::Client {
    let config = l4e::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(Credentials::new(id, secret, None, None, "test"))
        .retry_config(l4e::config::retry::RetryConfig::disabled())
        .build();
    l4e::Client::from_conf(config)
}

pub fn input(
    prefix: &str,
    delimiter: &str,
    format: &str,
    offset: &str,
) -> InferenceInputConfiguration {
    let naming = InferenceInputNameConfiguration::builder()
        .timestamp_format(format)
        .component_timestamp_delimiter(delimiter)
        .build();
    let location = InferenceS3InputConfiguration::builder()
        .bucket(BUCKET)
        .prefix(prefix)
        .build()
        .unwrap();
    InferenceInputConfiguration::builder()
        .s3_input_configuration(location)
        .input_time_zone_offset(offset)
        .inference_input_name_configuration(naming)
        .build()
}

pub fn output(prefix: &str) -> InferenceOutputConfiguration {
    let location = InferenceS3OutputConfiguration::builder()
        .bucket(BUCKET)
        .prefix(prefix)
        .build()
        .unwrap();
    InferenceOutputConfiguration::builder()
        .s3_output_configuration(location)
        .build()
}

/// The rows `(start, start + 5 min]` of a component, one a minute.
pub fn csv(component: &str, start: DateTime<Utc>, fault: f64) -> String {
    csv_of(component, start, 5, fault)
}

/// The rows of as many minutes after `start`.
pub fn csv_of(component: &str, start: DateTime<Utc>, minutes: i64, fault: f64) -> String {
    let (_, signals) = COMPONENTS
        .iter()
        .find(|(name, _)| *name == component)
        .unwrap();
    let mut text = format!("Timestamp,{}\n", signals.join(","));
    for minute in 1..=minutes {
        text.push_str(&row(component, start + TimeDelta::minutes(minute), fault));
    }
    text
}

/// One line of a component's CSV.
pub fn row(component: &str, time: DateTime<Utc>, fault: f64) -> String {
    let [flow, power, speed] = values(time);
    let stamp = time.format("%Y-%m-%dT%H:%M:%S");
    match component {
        "pump-1" => format!("{stamp},{flow},{}\n", power + fault),
        _ => format!("{stamp},{speed}\n"),
    }
}

/// Three related sensors with a little deterministic noise.
fn values(time: DateTime<Utc>) -> [f64; 3] {
    let minute = time.timestamp() / 60;
    let noise = |seed: i64| {
        let mixed = (minute.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503))
            .wrapping_mul(2_246_822_519);
        ((mixed >> 8) & 0xffff) as f64 / 65_535.0 - 0.5
    };
    let load = (minute as f64 / 240.0).sin();
    [
        10.0 + 2.0 * load + 0.2 * noise(1),
        50.0 + 8.0 * load + 0.8 * noise(2),
        1500.0 + 30.0 * load + 3.0 * noise(3),
    ]
}

/// The model, trained once per test binary on the three days before `START`.
pub fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let sensors: Vec<Sensor> = COMPONENTS
            .iter()
            .flat_map(|(component, signals)| {
                signals
                    .iter()
                    .map(|signal| Sensor::new(*component, *signal))
            })
            .collect();
        let mut rows = Rows {
            sensors: sensors.len(),
            ..Rows::default()
        };
        let first = at(START) - TimeDelta::days(3);
        for minute in 0..3 * 24 * 60 {
            let time = first + TimeDelta::minutes(minute);
            rows.push(time.timestamp_micros(), &values(time));
        }
        let options = Options {
            sampling: Some(Sampling::Pt1m),
            ..Options::default()
        };
        Model::fit(
            Training::in_memory(sensors, rows, Vec::new()),
            &options,
            &mut |_| {},
        )
        .unwrap()
    })
}
