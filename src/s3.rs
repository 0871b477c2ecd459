//! S3: one client built from a [`Config`], a conditional create that can be repeated for ever, and one pure classifier
//! of everything that can go wrong.
//!
//! Guarantees: [`Bucket::create`] never overwrites bytes that differ. Where the store honours `If-None-Match: *` (see
//! [`Bucket::probe`]) the store enforces that; elsewhere a HEAD before the PUT narrows the race and the probe says so.
//! A 412 is resolved by comparing length and checksum, and the bytes where the store keeps no checksum. Nothing here
//! decides to drop anything: [`Disposition`] knows retry, throttle and hold, no "give up".
//!
//! It does not queue, and logs no secret: clients are built by aws-config from the standard chain.

mod attempts;
mod classify;
mod config;
mod credentials;
mod listing;
mod meters;
mod object;
mod range;
mod route;
mod standing;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode};
use bytes::Bytes;

pub use attempts::{Addressed, SignedAgain};
pub use classify::{Disposition, Failure, Transport, classify};
pub use config::{Access, Config, bucket_problem, endpoint_problem};
pub use credentials::Keeper;
pub use listing::Listed;
pub use meters::{Meters, Readings};
pub use object::Opened;
pub use range::{LANES, RangeReader};
pub use route::direct;

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
    /// A request with it is refused: there are no conditional creates.
    Refused,
}

impl Conditional {
    /// What follows where a store does not honour it, for people.
    pub fn lacking(self) -> Option<&'static str> {
        match self {
            Self::Honoured => None,
            Self::Ignored => Some("ignores If-None-Match"),
            Self::Refused => Some("refuses If-None-Match: it has no conditional creates"),
        }
    }
}

/// One bucket of a store.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    name: String,
    /// What is known of its conditional creates; clones learn from one another.
    conditional: Arc<AtomicU8>,
    keeper: Option<Keeper>,
    /// How long one attempt to write may take, where it is not the client's own time.
    patience: Option<Duration>,
    meters: Meters,
}

/// How long a store may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

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
        .interceptor(Addressed)
        .retry_classifier(SignedAgain)
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
            conditional: Arc::default(),
            keeper: None,
            patience: None,
            meters,
        }
    }

    /// One whose credentials `keeper` keeps.
    fn kept_by(mut self, keeper: Keeper) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// Asks for credentials anew with the next request.
    pub fn renew(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.ask_again();
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
        let (key, bytes) = (
            format!("{prefix}_lookoutd/conditional-create"),
            b"lookoutd\n",
        );
        for _ in 0..2 {
            match self.put(&key, bytes.to_vec(), CSV, true).await {
                Ok(()) => {}
                Err(error) if error.failure.is_precondition_failed() => {
                    return Ok(self.learnt(Conditional::Honoured));
                }
                Err(error) if error.failure.refuses_a_header() => {
                    // Another header may be what it refuses.
                    self.put(&key, bytes.to_vec(), CSV, false).await?;
                    return Ok(self.learnt(Conditional::Refused));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.learnt(Conditional::Ignored))
    }

    fn learnt(&self, conditional: Conditional) -> Conditional {
        self.conditional.store(conditional as u8, Ordering::Relaxed);
        conditional
    }

    fn is(&self, conditional: Conditional) -> bool {
        self.conditional.load(Ordering::Relaxed) == conditional as u8
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
        if !self.is(Conditional::Honoured)
            && let Some(outcome) = self.compare(key, bytes).await?
        {
            return Ok(outcome);
        }
        let conditional = !self.is(Conditional::Refused);
        match self.put(key, bytes.to_vec(), attributes, conditional).await {
            Ok(()) => Ok(Created::Written),
            Err(error) if error.failure.is_precondition_failed() => {
                match self.compare(key, bytes).await? {
                    Some(outcome) => Ok(outcome),
                    // Deleted between the two calls: the next attempt writes it.
                    None => Err(error),
                }
            }
            // A bucket that was not probed, or a store that is another since.
            Err(error) if conditional && error.failure.refuses_a_header() => {
                if let Some(outcome) = self.compare(key, bytes).await? {
                    return Ok(outcome);
                }
                self.put(key, bytes.to_vec(), attributes, false).await?;
                Ok(Created::Written)
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
        conditional: bool,
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
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .set_checksum_algorithm(self.checksums().then_some(ChecksumAlgorithm::Crc32))
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

    /// Whether requests carry checksums, as the SDK is set: some stores refuse them.
    fn checksums(&self) -> bool {
        let set = self.client.config().request_checksum_calculation();
        set != Some(&RequestChecksumCalculation::WhenRequired)
    }

    /// Compares the stored object with `bytes`; `None` where there is no object.
    async fn compare(&self, key: &str, bytes: &[u8]) -> Result<Option<Created>, S3Error> {
        let head = match self
            .client
            .head_object()
            .bucket(&self.name)
            .key(key)
            .set_checksum_mode(self.checksums().then_some(ChecksumMode::Enabled))
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
