//! How the store is reached: what is configured over what the standard AWS chain says.
//!
//! Guarantees: what cannot work is a finding before anything runs ([`Config::problems`]); what only the environment says
//! is looked at when a client is made, and each request then says what to set. An endpoint that is not AWS's own is asked
//! in path style wherever it is named, and keeps its path.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::IdentityCache;
use aws_types::service_config::ServiceConfigKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempts::{Addressed, SignedAgain};
use super::credentials::{Chain, Keeper};
use super::standing::{Missing, Standing};
use super::{Bucket, Meters, route};

/// Where objects go and how to reach the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bucket of the input files. Empty selects the embedded store.
    pub bucket: String,
    /// Key prefix of the input files; empty, or ending with `/`.
    pub input_prefix: String,
    /// Endpoint of an S3-compatible store, such as `http://127.0.0.1:9190`. Empty: the standard chain, then AWS.
    pub endpoint_url: String,
    /// Region; empty means the standard chain (environment, profile, instance metadata).
    pub region: String,
    /// Named profile of the shared AWS configuration; empty means the default one.
    pub profile: String,
    /// An AWS shared-credentials file to use instead of the standard one. A replaced file is taken by itself.
    pub credentials_file: String,
    /// Address buckets in the path instead of the host name. Unset: true for a custom endpoint.
    pub path_style: Option<bool>,
}

/// What clients are made of: the SDK's configuration, and what keeps it true while they are used.
#[derive(Clone, Debug)]
pub struct Access {
    /// Timeouts, retries, credentials, and the HTTP client.
    pub shared: SdkConfig,
    /// The credentials, read again when they may have changed.
    pub keeper: Keeper,
    /// The region where none is configured, and what is wrong with the environment.
    pub standing: Standing,
}

impl Config {
    /// What is wrong with the values: key and problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if let Some(problem) = bucket_problem(&self.bucket, !self.endpoint_url.is_empty()) {
            problems.push(("s3.bucket", problem));
        }
        if let Some(problem) = endpoint_problem(&self.endpoint_url) {
            problems.push(("s3.endpoint_url", problem));
        }
        problems
    }

    /// Loads region, credentials and timeouts from the standard AWS chain, overridden by what is configured here.
    pub async fn load(&self) -> Access {
        let chain = Chain {
            profile: self.profile.clone(),
            credentials_file: self.credentials_file.clone(),
            http: route::client(),
        };
        let mut loader = with_time(chain.loader());
        if !self.region.is_empty() {
            loader = loader.region(Region::new(self.region.clone()));
        }
        let shared = loader.load().await;
        let standing = Standing::new(shared.region().cloned(), chain.clone());
        let keeper = Keeper::new(chain, shared.clone(), standing.clone());
        let shared = shared
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(keeper.clone()))
            // What is kept is the keeper's affair: only it knows when a file is another.
            .identity_cache(IdentityCache::no_cache())
            .build();
        Access {
            standing: standing.told_by(keeper.clone()),
            keeper,
            shared,
        }
    }

    /// The client of the configured store.
    pub async fn client(&self) -> Client {
        Client::from_conf(self.builder(&self.load().await).build())
    }

    /// The configured bucket, its clock and credentials metered. It may have no name, for those who only want the client.
    pub async fn open(&self) -> Bucket {
        let access = self.load().await;
        let meters = Meters::default();
        let builder = self
            .builder(&access)
            .credentials_provider(meters.watch(access.keeper.clone()));
        let client = Client::from_conf(builder.build());
        Bucket::metered(client, &self.bucket, meters).kept_by(access.keeper)
    }

    fn builder(&self, access: &Access) -> aws_sdk_s3::config::Builder {
        let mut builder = aws_sdk_s3::config::Builder::from(&access.shared)
            .interceptor(Addressed)
            .retry_classifier(SignedAgain);
        let endpoint = match self.endpoint_url.as_str() {
            "" => access.endpoint("S3"),
            configured => Some(configured.to_owned()),
        };
        let path_style = self.path_style.unwrap_or(endpoint.is_some());
        let mut standing = access.standing.clone();
        if let Some(endpoint) = endpoint {
            standing = standing.with_endpoint(&endpoint);
            builder = builder.endpoint_url(with_whole_path(&endpoint));
        }
        builder.interceptor(standing).force_path_style(path_style)
    }
}

impl Access {
    /// The endpoint that the environment or the profile names for a service, by its own variable or that of all.
    pub fn endpoint(&self, service: &str) -> Option<String> {
        let key = ServiceConfigKey::builder()
            .service_id(service)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let own = self.shared.service_config().zip(key.ok());
        let own = own.and_then(|(config, key)| config.load_config(key));
        let named = own.or_else(|| self.shared.endpoint_url().map(str::to_owned));
        named.filter(|endpoint| !endpoint.is_empty())
    }
}

fn with_time(loader: ConfigLoader) -> ConfigLoader {
    loader
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
        )
}

/// The loader of the standard chain, before anything is configured.
pub(super) fn loader() -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
}

/// An endpoint as the SDK keeps its path: it takes the last part of one without a slash for a file's name.
fn with_whole_path(endpoint: &str) -> String {
    let path = endpoint
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('/'));
    match path {
        Some((_, path)) if !path.is_empty() && !path.ends_with('/') => format!("{endpoint}/"),
        _ => endpoint.to_owned(),
    }
}

/// What is wrong with an endpoint, if it is not empty.
pub fn endpoint_problem(endpoint: &str) -> Option<String> {
    if endpoint.is_empty() {
        return None;
    }
    let uri: Option<http::Uri> = endpoint.parse().ok();
    let usable = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    (!usable).then(|| Missing::Endpoint(endpoint.to_owned()).to_string())
}

/// What is wrong with a bucket's name, if it is not empty. Stores other than AWS's take more than AWS does.
pub fn bucket_problem(name: &str, elsewhere: bool) -> Option<String> {
    if name.is_empty() || name.starts_with("arn:") {
        return None;
    }
    if let Some((_, rest)) = name.split_once("://") {
        let bucket = rest.split('/').next().unwrap_or(rest);
        return Some(format!(
            "\"{name}\" is not a bucket name: write \"{bucket}\", and the rest in s3.input_prefix"
        ));
    }
    let bytes = name.as_bytes();
    let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let usable = if elsewhere {
        bytes.len() <= 255
            && bytes
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
    } else {
        (3..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| edge(*byte) || b".-".contains(byte))
            && bytes.first().copied().is_some_and(edge)
            && bytes.last().copied().is_some_and(edge)
    };
    (!usable).then(|| {
        format!(
            "\"{name}\" is not a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens; a prefix goes into s3.input_prefix"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_and_buckets_that_cannot_work_are_findings_with_what_to_write() {
        let config = |bucket: &str, endpoint: &str| Config {
            bucket: bucket.into(),
            endpoint_url: endpoint.into(),
            ..Config::default()
        };
        let fine = [
            ("plant", ""),
            ("plant-1.eu", "https://store.example"),
            ("Plant_Data", "http://127.0.0.1:9000"),
            ("b", "http://[::1]:9000/s3"),
            ("arn:aws:s3:eu-central-1:123456789012:accesspoint/plant", ""),
            ("", ""),
        ];
        for (bucket, endpoint) in fine {
            assert_eq!(
                config(bucket, endpoint).problems(),
                [],
                "{bucket} {endpoint}"
            );
        }
        for endpoint in [
            "minio:9000",
            "127.0.0.1:9000",
            "ftp://minio:9000",
            "http://",
            "https:///s3",
            "store",
            "http://store/?a=b",
        ] {
            let problems = config("plant", endpoint).problems();
            assert_eq!(problems.len(), 1, "{endpoint}");
            assert_eq!(problems[0].0, "s3.endpoint_url");
            assert!(problems[0].1.contains("https://"), "{}", problems[0].1);
        }
        for (bucket, endpoint) in [
            ("Plant", ""),
            ("ab", ""),
            ("plant/input", ""),
            ("-plant", ""),
            ("plant/input", "http://127.0.0.1:9000"),
            ("s3://plant/input/", ""),
            ("plant data", "http://127.0.0.1:9000"),
        ] {
            let problems = config(bucket, endpoint).problems();
            assert_eq!(problems.len(), 1, "{bucket}");
            assert_eq!(problems[0].0, "s3.bucket");
        }
        let with_scheme = config("s3://plant/input/", "").problems();
        assert!(
            with_scheme[0].1.contains("write \"plant\""),
            "{with_scheme:?}"
        );
    }

    #[test]
    fn the_path_of_an_endpoint_ends_with_a_slash() {
        for (endpoint, whole) in [
            ("http://host", "http://host"),
            ("http://host/", "http://host/"),
            ("http://host:9000/s3", "http://host:9000/s3/"),
            ("http://host/a/b/", "http://host/a/b/"),
        ] {
            assert_eq!(with_whole_path(endpoint), whole);
        }
    }
}
