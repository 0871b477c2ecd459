//! The Lookout API's client, and what an error of it means.
//!
//! Guarantees: every failed call becomes one [`ApiError`] that names the operation and what to do; throttling and
//! unreachable endpoints are retried inside the client for a few seconds, then by the caller's loop. No secret is logged.

use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_lookoutequipment::Client;
use aws_sdk_lookoutequipment::config::Builder;
use aws_sdk_lookoutequipment::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::DateTime as Wire;
use chrono::{DateTime, Utc};

use crate::s3::{Access, Addressed, Failure, SignedAgain, Transport};

/// A failed call of the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ApiError {
    /// The operation, such as `DescribeInferenceScheduler`.
    pub operation: &'static str,
    /// What came back.
    pub failure: Failure,
}

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It is expected to pass: try again with backoff.
    Retry,
    /// Somebody has to act; trying again costs nothing. The text is the remedy.
    Hold(&'static str),
}

/// The client for an access; `endpoint_url` empty leaves the endpoint to the standard chain.
pub fn client(access: &Access, endpoint_url: &str) -> Client {
    let mut builder = Builder::from(&access.shared)
        .retry_config(retries())
        .interceptor(Addressed)
        .retry_classifier(SignedAgain);
    if !endpoint_url.is_empty() {
        builder = builder.endpoint_url(endpoint_url);
    }
    let endpoint = match endpoint_url {
        "" => access.endpoint("LookoutEquipment"),
        configured => Some(configured.to_owned()),
    };
    let standing = match endpoint {
        Some(endpoint) => access.standing.clone().with_endpoint(&endpoint),
        None => access.standing.clone(),
    };
    Client::from_conf(builder.interceptor(standing).build())
}

/// A client for a service on this machine with a known key pair; asks no credential chain and no metadata service.
pub fn local_client(endpoint_url: &str, access_key: &str, secret_key: &str) -> Client {
    let config = aws_sdk_lookoutequipment::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint_url)
        .credentials_provider(Credentials::new(
            access_key, secret_key, None, None, "lookoutd",
        ))
        .retry_config(retries())
        .interceptor(Addressed)
        .retry_classifier(SignedAgain)
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(5))
                .operation_attempt_timeout(Duration::from_secs(30))
                .build(),
        );
    Client::from_conf(match crate::s3::direct(endpoint_url) {
        Some(direct) => config.http_client(direct).build(),
        None => config.build(),
    })
}

/// A few seconds in all: enough for a throttled burst, short enough for a person who waits at a prompt.
fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(5)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(3))
}

// === impl ApiError ===

impl ApiError {
    /// The error of `operation`.
    pub fn of<E>(operation: &'static str) -> impl Fn(SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        move |error| Self {
            operation,
            failure: Failure::from(&error),
        }
    }

    /// The service's error code, where it answered.
    pub fn code(&self) -> Option<&str> {
        self.failure.code.as_deref()
    }

    /// What was named does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some("ResourceNotFoundException")
    }

    /// The state does not allow the call, or somebody else was quicker.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some("ConflictException")
    }

    /// The service does not serve this operation.
    pub fn is_unknown_operation(&self) -> bool {
        self.code() == Some("UnknownOperationException")
    }

    /// Something that every request needs is not set.
    pub fn needs_setting(&self) -> bool {
        matches!(
            self.failure.transport,
            Some(Transport::Region | Transport::Endpoint)
        )
    }

    /// No answer came.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self.failure.transport,
            Some(kind) if kind != Transport::Credentials && !self.needs_setting()
        )
    }

    /// What to do about it (the codes of contract 1.2).
    pub fn advice(&self) -> Advice {
        use Advice::{Hold, Retry};
        match self.code() {
            Some("ConflictException" | "ThrottlingException" | "InternalServerException") => Retry,
            Some("ResourceNotFoundException") => {
                Hold("what is named does not exist: check inference.scheduler and inference.model")
            }
            Some("ServiceQuotaExceededException") => Hold(
                "a quota is reached: the model may have another scheduler; delete that one, or name it in inference.scheduler",
            ),
            Some("ValidationException" | "SerializationException") => {
                Hold("the service refuses the values: see the message")
            }
            Some("AccessDeniedException" | "NotAuthorized") => Hold(
                "access denied: allow lookoutequipment:* on the scheduler and its model, and iam:PassRole on the role",
            ),
            Some(
                "UnrecognizedClientException" | "InvalidClientTokenId" | "IncompleteSignature",
            ) => Hold("the service does not know this access key: check the credentials"),
            Some("InvalidSignatureException" | "SignatureDoesNotMatch") => Hold(
                "the signature was refused: check the secret key, the region and this machine's clock",
            ),
            Some("ExpiredTokenException" | "RequestExpired") => {
                Hold("the credentials have expired, or this machine's clock is off")
            }
            Some("UnknownOperationException") => Hold(
                "the service does not serve this operation: check inference.endpoint_url and its version",
            ),
            _ => match (self.failure.status, self.failure.transport) {
                (Some(400..=499), _) => {
                    Hold("the service refuses this request: check inference.endpoint_url")
                }
                (_, Some(Transport::Credentials)) => Hold(
                    "no usable credentials: set a profile, environment variables or a credentials file",
                ),
                (_, Some(Transport::Region)) => {
                    Hold("no region is known: set inference.region or s3.region, or AWS_REGION")
                }
                (_, Some(Transport::Endpoint)) => Hold(
                    "the address cannot be asked: correct inference.endpoint_url, or AWS_ENDPOINT_URL_LOOKOUTEQUIPMENT",
                ),
                (_, Some(Transport::Dns)) => Hold(
                    "the endpoint's name does not resolve: check inference.endpoint_url and DNS",
                ),
                (_, Some(Transport::Tls)) => {
                    Hold("TLS failed: check the endpoint, its certificate and this machine's clock")
                }
                _ => Retry,
            },
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.failure)
    }
}

/// A wire instant; `None` where it is beyond what a date can be.
pub(super) fn from_wire(time: &Wire) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.secs(), time.subsec_nanos())
}

/// An instant for the wire.
pub(super) fn to_wire(time: DateTime<Utc>) -> Wire {
    Wire::from_secs_and_nanos(time.timestamp(), time.timestamp_subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Option<&str>, status: Option<u16>, transport: Option<Transport>) -> ApiError {
        ApiError {
            operation: "DescribeInferenceScheduler",
            failure: Failure {
                status,
                code: code.map(str::to_owned),
                transport,
                message: "m".into(),
            },
        }
    }

    #[test]
    fn what_passes_by_itself_is_retried_and_the_rest_is_held_with_a_remedy() {
        for retried in [
            error(Some("ConflictException"), Some(400), None),
            error(Some("ThrottlingException"), Some(400), None),
            error(Some("InternalServerException"), Some(500), None),
            error(None, Some(503), None),
            error(None, None, Some(Transport::Refused)),
            error(None, None, Some(Transport::Timeout)),
        ] {
            assert_eq!(retried.advice(), Advice::Retry, "{retried}");
        }
        for held in [
            error(Some("ResourceNotFoundException"), Some(400), None),
            error(Some("ServiceQuotaExceededException"), Some(400), None),
            error(Some("ValidationException"), Some(400), None),
            error(Some("AccessDeniedException"), Some(403), None),
            error(Some("SomethingNew"), Some(400), None),
            error(None, None, Some(Transport::Credentials)),
        ] {
            assert!(matches!(held.advice(), Advice::Hold(_)), "{held}");
        }
    }
}
