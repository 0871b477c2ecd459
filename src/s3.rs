//! S3: one client built from a [`Config`], a conditional create that can be repeated for ever, and one pure classifier
//! of everything that can go wrong.
//!
//! Guarantees: [`Bucket::create`] never overwrites bytes that differ. Where the store honours `If-None-Match: *` (see
//! [`Bucket::probe`]) the store enforces that; elsewhere a HEAD before the PUT narrows the race and the probe says so.
//! A 412 is resolved by comparing length and checksum, and the bytes where the store keeps no checksum. Nothing here
//! decides to drop anything: [`Disposition`] knows retry, throttle and hold, no "give up".
//!
//! It does not queue, and logs no secret: clients are built by aws-config from the standard chain.

mod classify;
mod listing;
mod meters;
mod range;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use classify::{Disposition, Failure, Transport, classify};
pub use listing::Listed;
pub use meters::{Meters, Readings};
pub use range::RangeReader;

/// Where objects go and how to reach the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bucket of the input files. Empty selects the embedded store.
    pub bucket: String,
    /// Key prefix of the input files; empty, or ending with `/`.
    pub input_prefix: String,
    /// Endpoint of an S3-compatible store, such as `http://127.0.0.1:9190`. Empty means AWS.
    pub endpoint_url: String,
    /// Region; empty means the standard chain (environment, profile, instance metadata).
    pub region: String,
    /// Named profile of the shared AWS configuration; empty means the default one.
    pub profile: String,
    /// An AWS shared-credentials file to use instead of the standard one.
    pub credentials_file: String,
    /// Address buckets in the path instead of the host name. Unset: true for a custom endpoint.
    pub path_style: Option<bool>,
}

/// A failed call to the store.
#[derive(Debug, thiserror::Error)]
#[error("{operation} s3://{bucket}/{key}: {failure}")]
pub struct S3Error {
    /// What was asked, such as `PutObject`.
    pub operation: &'static str,
    /// The bucket.
    pub bucket: String,
    /// The key or prefix.
    pub key: String,
    /// What came back.
    pub failure: Failure,
}

impl S3Error {
    /// What to do about it.
    pub fn disposition(&self) -> Disposition {
        classify(&self.failure)
    }

    /// Whether the same request may succeed in a moment without anybody doing anything.
    pub fn passes(&self) -> bool {
        self.failure.passes()
    }

    /// Whether it took too long.
    pub fn is_timeout(&self) -> bool {
        self.failure.transport == Some(Transport::Timeout)
    }
}

/// How a conditional create ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The store has the bytes, written by this call.
    Written,
    /// The store already had exactly these bytes.
    AlreadyThere,
    /// The key exists with other bytes, which were left alone. The text says what differs.
    Conflict(String),
}

/// What an object is stored with beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `Content-Type`.
    pub content_type: &'a str,
    /// User metadata: name and value.
    pub metadata: &'a [(&'a str, &'a str)],
}

/// A whole object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its user metadata.
    pub metadata: HashMap<String, String>,
}

/// Input files.
const CSV: Attributes<'static> = Attributes {
    content_type: "text/csv",
    metadata: &[],
};

/// What the start-up probe found out about conditional creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditional {
    /// `If-None-Match: *` is honoured.
    Honoured,
    /// It is ignored: a second create overwrote the first.
    Ignored,
}

/// One bucket of a store.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
    head_first: bool,
    /// How long one attempt to write may take, where it is not the client's own time.
    patience: Option<Duration>,
    meters: Meters,
}

/// How long a store may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

// === impl Config ===

impl Config {
    /// Loads region, credentials and timeouts from the standard AWS chain, overridden by what is configured here.
    pub async fn load(&self) -> aws_config::SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .read_timeout(Duration::from_secs(30))
                    .operation_attempt_timeout(Duration::from_secs(60))
                    .build(),
            )
            // Two retries inside the SDK: they carry its clock-skew correction. The endless loop is the shipper's.
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(3)
                    .with_initial_backoff(Duration::from_millis(100))
                    .with_max_backoff(Duration::from_secs(1)),
            );
        if !self.region.is_empty() {
            loader = loader.region(Region::new(self.region.clone()));
        }
        if !self.profile.is_empty() {
            loader = loader.profile_name(&self.profile);
        }
        if !self.credentials_file.is_empty() {
            loader = loader.profile_files(
                aws_runtime::env_config::file::EnvConfigFiles::builder()
                    .include_default_config_file(true)
                    .with_file(
                        aws_runtime::env_config::file::EnvConfigFileKind::Credentials,
                        PathBuf::from(&self.credentials_file),
                    )
                    .build(),
            );
        }
        loader.load().await
    }

    /// The client of the configured store.
    pub async fn client(&self) -> Client {
        Client::from_conf(self.builder(&self.load().await).build())
    }

    /// The configured bucket, its clock and credentials metered.
    pub async fn open(&self) -> Bucket {
        let shared = self.load().await;
        let (meters, mut builder) = (Meters::default(), self.builder(&shared));
        if let Some(provider) = shared.credentials_provider() {
            builder = builder.credentials_provider(meters.watch(provider));
        }
        Bucket::metered(Client::from_conf(builder.build()), &self.bucket, meters)
    }

    fn builder(&self, shared: &aws_config::SdkConfig) -> aws_sdk_s3::config::Builder {
        let mut builder = aws_sdk_s3::config::Builder::from(shared);
        if !self.endpoint_url.is_empty() {
            builder = builder.endpoint_url(&self.endpoint_url);
        }
        let path_style = self.path_style.unwrap_or(!self.endpoint_url.is_empty());
        builder.force_path_style(path_style)
    }
}

/// A client for a store on this machine with a known key pair; asks no credential chain and no metadata service.
pub fn local_client(endpoint_url: &str, access_key: &str, secret_key: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint_url)
        .force_path_style(true)
        .credentials_provider(Credentials::new(
            access_key, secret_key, None, None, "lookoutd",
        ))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(Duration::from_secs(60))
                .build(),
        );
    Client::from_conf(match direct(endpoint_url) {
        Some(direct) => config.http_client(direct).build(),
        None => config.build(),
    })
}

/// An HTTP client for what this process itself serves without TLS: whatever proxy the environment names is not asked for it.
pub fn direct(endpoint_url: &str) -> Option<SharedHttpClient> {
    let plain = endpoint_url.starts_with("http://");
    plain.then(|| aws_smithy_http_client::Builder::new().build_http())
}

// === impl Bucket ===

impl Bucket {
    /// A bucket reached through `client`. Conditional creates are assumed to work until [`Bucket::probe`] says otherwise.
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self::metered(client, name, Meters::default())
    }

    fn metered(client: Client, name: impl Into<String>, meters: Meters) -> Self {
        let config = client
            .config()
            .to_builder()
            .interceptor(meters.clone())
            .build();
        Self {
            client: Client::from_conf(config),
            name: name.into(),
            head_first: false,
            patience: None,
            meters,
        }
    }

    /// What its answers told of clock and credentials.
    pub fn readings(&self) -> Readings {
        self.meters.read()
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client it is reached through.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Finds out whether the store honours `If-None-Match: *`, with one small object under `prefix` that stays there.
    /// Where it does not, later creates look before they write.
    pub async fn probe(&mut self, prefix: &str) -> Result<Conditional, S3Error> {
        let key = format!("{prefix}_lookoutd/conditional-create");
        for _ in 0..2 {
            match self.put(&key, b"lookoutd\n".to_vec(), CSV).await {
                Ok(()) => {}
                Err(error) if error.failure.is_precondition_failed() => {
                    self.head_first = false;
                    return Ok(Conditional::Honoured);
                }
                Err(error) => return Err(error),
            }
        }
        self.head_first = true;
        Ok(Conditional::Ignored)
    }

    /// Creates `key` with `bytes` unless it exists. May be repeated until it succeeds: the same bytes end as
    /// [`Created::Written`] or [`Created::AlreadyThere`], other bytes as [`Created::Conflict`].
    pub async fn create(&self, key: &str, bytes: &[u8]) -> Result<Created, S3Error> {
        self.create_as(key, bytes, CSV).await
    }

    /// As [`Bucket::create`], with other attributes than those of an input file.
    pub async fn create_as(
        &self,
        key: &str,
        bytes: &[u8],
        attributes: Attributes<'_>,
    ) -> Result<Created, S3Error> {
        if self.head_first
            && let Some(outcome) = self.compare(key, bytes).await?
        {
            return Ok(outcome);
        }
        match self.put(key, bytes.to_vec(), attributes).await {
            Ok(()) => Ok(Created::Written),
            Err(error) if error.failure.is_precondition_failed() => {
                match self.compare(key, bytes).await? {
                    Some(outcome) => Ok(outcome),
                    // Deleted between the two calls: the next attempt writes it.
                    None => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Bucket::create`], within so much time: that of the client is for answers, whatever has to cross the line before.
    pub async fn create_within(
        &self,
        key: &str,
        bytes: &[u8],
        time: Duration,
    ) -> Result<Created, S3Error> {
        let patient = Self {
            patience: Some(time),
            ..self.clone()
        };
        match tokio::time::timeout(time, patient.create(key, bytes)).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(self.error(
                "PutObject",
                key,
                Failure::transport(Transport::Timeout, &elapsed),
            )),
        }
    }

    /// How long the store may take for an answer to a request that carries nothing.
    pub fn answer_time(&self) -> Duration {
        let configured = self.client.config().timeout_config();
        configured
            .and_then(|timeouts| timeouts.operation_attempt_timeout())
            .map_or(ANSWER, |attempt| attempt.min(ANSWER))
    }

    /// Asks for nothing but an answer: its `Date` tells how this machine's clock goes, see [`Bucket::readings`].
    pub async fn ask(&self) {
        // Whether it is a refusal is no matter.
        drop(self.client.head_bucket().bucket(&self.name).send().await);
    }

    /// Reads a whole object; `None` where there is none.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, S3Error> {
        Ok(self.fetch(key).await?.map(|object| object.bytes.to_vec()))
    }

    /// Reads a whole object with its metadata; `None` where there is none.
    pub async fn fetch(&self, key: &str) -> Result<Option<Object>, S3Error> {
        let fail = |failure| self.error("GetObject", key, failure);
        match self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .send()
            .await
        {
            Ok(output) => {
                if output.e_tag().is_none() {
                    return Err(fail(Failure::not_a_store()));
                }
                let metadata = output.metadata().cloned().unwrap_or_default();
                let body = output
                    .body
                    .collect()
                    .await
                    .map_err(|error| fail(Failure::transport(Transport::Other, &error)))?;
                Ok(Some(Object {
                    bytes: body.into_bytes(),
                    metadata,
                }))
            }
            Err(error) => {
                let failure = Failure::from(&error);
                if failure.is_no_such_key() {
                    return Ok(None);
                }
                Err(fail(failure))
            }
        }
    }

    async fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        attributes: Attributes<'_>,
    ) -> Result<(), S3Error> {
        let metadata = attributes.metadata.iter();
        let metadata: HashMap<String, String> = metadata
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let request = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(key)
            .if_none_match("*")
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .content_type(attributes.content_type)
            .set_metadata((!metadata.is_empty()).then_some(metadata))
            .body(ByteStream::from(bytes));
        let sent = match self.patience {
            Some(patience) => {
                let configured = self.client.config().timeout_config();
                let connect = configured.and_then(|timeouts| timeouts.connect_timeout());
                let mut timeouts = TimeoutConfig::builder()
                    .disable_read_timeout()
                    .operation_attempt_timeout(patience);
                timeouts.set_connect_timeout(connect);
                let patient = aws_sdk_s3::Config::builder().timeout_config(timeouts.build());
                request.customize().config_override(patient).send().await
            }
            None => request.send().await,
        };
        sent.map_err(|error| self.error("PutObject", key, Failure::from(&error)))
            .and_then(|answer| match answer.e_tag() {
                Some(_) => Ok(()),
                // A captive portal says 200 to everything; every store names what it has stored.
                None => Err(self.error("PutObject", key, Failure::not_a_store())),
            })
    }

    /// Compares the stored object with `bytes`; `None` where there is no object.
    async fn compare(&self, key: &str, bytes: &[u8]) -> Result<Option<Created>, S3Error> {
        let head = match self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await
        {
            Ok(head) => head,
            Err(error) => {
                let failure = Failure::from(&error);
                if failure.is_no_such_key() {
                    return Ok(None);
                }
                return Err(self.error("HeadObject", key, failure));
            }
        };
        // What answers in the store's place must not look like another object at the key.
        if head.e_tag().is_none() {
            return Err(self.error("HeadObject", key, Failure::not_a_store()));
        }
        let stored = head.content_length().unwrap_or(-1);
        if stored >= 0 && stored as usize != bytes.len() {
            return Ok(Some(Created::Conflict(format!(
                "the stored object has {stored} bytes, ours {}",
                bytes.len()
            ))));
        }
        // That of an object written in parts is not of its bytes, and says so with a dash.
        if let Some(stored) = head.checksum_crc32().filter(|sum| !sum.contains('-')) {
            let ours = crc32_base64(bytes);
            return Ok(Some(if stored == ours {
                Created::AlreadyThere
            } else {
                Created::Conflict(format!("the stored object has CRC32 {stored}, ours {ours}"))
            }));
        }
        match self.get(key).await? {
            None => Ok(None),
            Some(stored) if stored == bytes => Ok(Some(Created::AlreadyThere)),
            Some(_) => Ok(Some(Created::Conflict(
                "the stored object has other bytes of the same length".into(),
            ))),
        }
    }

    fn error(&self, operation: &'static str, key: &str, failure: Failure) -> S3Error {
        S3Error {
            operation,
            bucket: self.name.clone(),
            key: key.to_owned(),
            failure,
        }
    }
}

fn crc32_base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(crc32fast::hash(bytes).to_be_bytes())
}
