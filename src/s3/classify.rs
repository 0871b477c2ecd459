//! What an error of the store means for the bytes that were on their way.
//!
//! [`classify`] is pure and total: every failure maps to retry, throttle or hold. There is no disposition that drops
//! data, because a 403, an expired token or a skewed clock says nothing about the file. A hold is retried too, slowly,
//! and tells the operator what to do.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::attempts::Unreached;
use super::standing::Missing;

/// What went wrong, reduced to what a decision needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The store's error code, such as `SlowDown`, where the answer had one.
    pub code: Option<String>,
    /// How the connection failed, where there was no answer.
    pub transport: Option<Transport>,
    /// Text for people, without secrets.
    pub message: String,
}

/// How a request failed before an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connect, read or attempt timeout.
    Timeout,
    /// Nothing listens there.
    Refused,
    /// The name does not resolve.
    Dns,
    /// TLS handshake or certificate.
    Tls,
    /// No credentials could be found or refreshed.
    Credentials,
    /// Nothing says in which region.
    Region,
    /// The endpoint, or the endpoint and the bucket's name together, are no address.
    Endpoint,
    /// Reset, cut off, or anything else on the way.
    Other,
}

/// What to do with the bytes: always keep them, and when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The fault is expected to pass: try again with backoff.
    Retry,
    /// The store asks for less: try again with backoff from a higher start.
    Throttled,
    /// The key exists; compare and decide. Only a conditional create meets this.
    Exists,
    /// Somebody has to act. Try again at the longest interval; the text is the remedy.
    Hold(&'static str),
}

/// The decision table over all documented S3 errors.
pub fn classify(failure: &Failure) -> Disposition {
    use Disposition::{Exists, Hold, Retry, Throttled};
    if let Some(code) = failure.code.as_deref() {
        match code {
            "PreconditionFailed" => return Exists,
            "ConditionalRequestConflict"
            | "OperationAborted"
            | "RequestTimeout"
            | "InternalError"
            | "IncompleteBody"
            | "BadDigest"
            | "InvalidDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch" => return Retry,
            "SlowDown"
            | "ServiceUnavailable"
            | "ThrottlingException"
            | "Throttling"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded"
            | "503 SlowDown" => return Throttled,
            "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => {
                return Hold(
                    "the credentials have expired: renew them; they are read again on every attempt",
                );
            }
            "InvalidAccessKeyId" | "InvalidToken" | "UnrecognizedClientException" => {
                return Hold("the store does not know this access key: check the credentials");
            }
            "SignatureDoesNotMatch" => {
                return Hold(
                    "the signature was refused: check the secret key, the region and this machine's clock",
                );
            }
            "RequestTimeTooSkewed" | "RequestExpired" => {
                return Hold("this machine's clock is off: synchronise it");
            }
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "NotSignedUp" => {
                return Hold(
                    "access denied: allow s3:PutObject and s3:GetObject on the input prefix, and s3:ListBucket on the bucket",
                );
            }
            "NoSuchBucket" | "InvalidBucketName" => {
                return Hold("the bucket does not exist: create it, or correct s3.bucket");
            }
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => {
                return Hold("the bucket is in another region: set s3.region or s3.endpoint_url");
            }
            "EntityTooLarge" | "KeyTooLongError" | "InvalidArgument" | "InvalidRequest" => {
                return Hold("the store refuses this object: see the message");
            }
            "KMS.DisabledException" | "KMS.NotFoundException" | "KMS.InvalidStateException" => {
                return Hold(
                    "the bucket's encryption key cannot be used: check the KMS key and kms:GenerateDataKey",
                );
            }
            "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => {
                return Hold("the store is full: make room");
            }
            "NotImplemented" => {
                return Hold(
                    "the store does not implement this request: if it names a checksum, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required \
                     for lookoutd; see \"Stores\" in docs/compatibility.md",
                );
            }
            _ => {}
        }
    }
    match failure.status {
        Some(412) => return Exists,
        Some(408 | 409 | 425) => return Retry,
        Some(429 | 503) => return Throttled,
        Some(401 | 403) => {
            return Hold(
                "access was refused: check credentials, permissions and this machine's clock",
            );
        }
        Some(404) => return Hold("not found: check s3.bucket and s3.endpoint_url"),
        Some(301 | 307 | 308) => {
            return Hold("the bucket is in another region: set s3.region or s3.endpoint_url");
        }
        Some(507) => return Hold("the store is full: make room"),
        Some(400..=499) => return Hold("the store refuses this request: see the message"),
        Some(_) => return Retry,
        None => {}
    }
    match failure.transport {
        Some(Transport::Credentials) => Hold(
            "no usable credentials: set a profile, environment variables, a credentials file or an instance role",
        ),
        Some(Transport::Region) => {
            Hold("no region is known: set s3.region, or AWS_REGION, or the profile's region")
        }
        Some(Transport::Endpoint) => Hold(
            "the address cannot be asked: correct s3.endpoint_url, AWS_ENDPOINT_URL or the profile's endpoint_url, and s3.bucket",
        ),
        Some(Transport::Tls) => {
            Hold("TLS failed: check the endpoint, its certificate and this machine's clock")
        }
        Some(Transport::Dns) => {
            Hold("the endpoint's name does not resolve: check s3.endpoint_url and DNS")
        }
        Some(Transport::Timeout | Transport::Refused | Transport::Other) | None => Retry,
    }
}

// === impl Failure ===

impl Failure {
    /// A failure without an answer.
    pub fn transport(kind: Transport, error: &(dyn Error + 'static)) -> Self {
        Self {
            status: None,
            code: None,
            transport: Some(kind),
            message: chain(error),
        }
    }

    /// An answer that no store gives.
    pub fn not_a_store() -> Self {
        Self {
            status: Some(200),
            code: None,
            transport: None,
            message: "the answer names no ETag, so it is not the store's: something on the way answers in its place".into(),
        }
    }

    /// The same request may succeed in a moment without anybody doing anything: what is to be tried again, a name that does
    /// not resolve just now, credentials that renew themselves.
    pub fn passes(&self) -> bool {
        let renewed = matches!(
            self.code.as_deref(),
            Some("ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException")
        );
        match classify(self) {
            Disposition::Retry | Disposition::Throttled | Disposition::Exists => true,
            Disposition::Hold(_) => renewed || self.transport == Some(Transport::Dns),
        }
    }

    /// The conditional create found the key taken.
    pub fn is_precondition_failed(&self) -> bool {
        classify(self) == Disposition::Exists
    }

    /// The request cannot be done as it was put: a header that the store does not implement, as the answers of different
    /// stores to `If-None-Match` or a checksum say it. Whether it is that header the same request without it tells.
    pub fn refuses_a_header(&self) -> bool {
        match (self.status, self.code.as_deref()) {
            (Some(501), _) => true,
            (Some(400), None) => true,
            (Some(400), Some(code)) => matches!(
                code,
                "NotImplemented"
                    | "NotSupported"
                    | "UnsupportedOperation"
                    | "InvalidArgument"
                    | "InvalidRequest"
                    | "InvalidHeader"
                    | "BadRequest"
            ),
            _ => false,
        }
    }

    /// The object, not the bucket, is absent.
    pub fn is_no_such_key(&self) -> bool {
        match self.code.as_deref() {
            Some("NoSuchKey" | "NotFound") => true,
            Some(_) => false,
            None => self.status == Some(404),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.code.as_deref()) {
            (Some(status), Some(code)) => write!(f, "{status} {code}: {}", self.message),
            (Some(status), None) => write!(f, "{status}: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl<E> From<&SdkError<E, HttpResponse>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    fn from(error: &SdkError<E, HttpResponse>) -> Self {
        if let Some(missing) = missing(error) {
            let kind = match missing {
                Missing::Region => Transport::Region,
                Missing::Endpoint(_) => Transport::Endpoint,
                Missing::Credentials { .. } => Transport::Credentials,
            };
            return Self::transport(kind, missing);
        }
        match error {
            SdkError::TimeoutError(_) => Self {
                message: unreached(error).unwrap_or_else(|| "no answer in time".into()),
                ..Self::transport(Transport::Timeout, error)
            },
            SdkError::DispatchFailure(dispatch) => {
                let source: Option<&(dyn Error + 'static)> = dispatch
                    .as_connector_error()
                    .map(|error| error as &(dyn Error + 'static));
                let text = unreached(error)
                    .or_else(|| source.map(chain))
                    .unwrap_or_else(|| chain(error));
                let kind = if dispatch.is_timeout() {
                    Transport::Timeout
                } else {
                    transport_kind(source, &text)
                };
                Self {
                    status: None,
                    code: None,
                    transport: Some(kind),
                    message: text,
                }
            }
            // Credentials and addresses are resolved while the request is built.
            SdkError::ConstructionFailure(_) => {
                let text = chain(error);
                let kind = match transport_kind(Some(error), &text) {
                    Transport::Other | Transport::Dns => Transport::Credentials,
                    kind => kind,
                };
                Self {
                    message: text,
                    ..Self::transport(kind, error)
                }
            }
            _ => Self {
                status: error
                    .raw_response()
                    .map(|response| response.status().as_u16()),
                code: error.code().map(str::to_owned),
                transport: None,
                message: error
                    .message()
                    .map(str::to_owned)
                    .unwrap_or_else(|| chain(error)),
            },
        }
    }
}

/// What a request was refused for before it was sent, if that is why.
pub(super) fn missing<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Missing> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(missing) = error.downcast_ref::<Missing>() {
            return Some(missing);
        }
        next = error.source();
    }
    None
}

/// Names the way a connection failed, from the I/O error where there is one, else from the text of the chain.
fn transport_kind(source: Option<&(dyn Error + 'static)>, text: &str) -> Transport {
    let mut next = source;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return Transport::Refused,
                std::io::ErrorKind::TimedOut => return Transport::Timeout,
                _ => {}
            }
        }
        next = error.source();
    }
    let text = text.to_ascii_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    if has(&[
        "resolving endpoint",
        "valid uri",
        "invalid uri",
        "bucket name",
    ]) {
        Transport::Endpoint
    } else if has(&[
        "dns error",
        "failed to lookup",
        "name or service not known",
        "resolve",
    ]) {
        Transport::Dns
    } else if has(&[
        "certificate",
        "tls",
        "handshake",
        "invalidcontenttype",
        "unknownissuer",
    ]) {
        Transport::Tls
    } else if has(&["credential", "identity"]) {
        Transport::Credentials
    } else if has(&["connection refused"]) {
        Transport::Refused
    } else if has(&["timed out", "timeout"]) {
        Transport::Timeout
    } else {
        Transport::Other
    }
}

/// What `attempts` says of a connection that failed, where it is among the causes.
fn unreached(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(unreached) = error.downcast_ref::<Unreached>() {
            return Some(unreached.to_string());
        }
        next = error.source();
    }
    None
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Failure {
        Failure {
            status: Some(status),
            code: (!code.is_empty()).then(|| code.to_owned()),
            transport: None,
            message: String::new(),
        }
    }

    fn cut(transport: Transport) -> Failure {
        Failure {
            status: None,
            code: None,
            transport: Some(transport),
            message: String::new(),
        }
    }

    #[test]
    fn every_documented_error_keeps_the_bytes_and_names_what_to_do() {
        let is_hold = |d: Disposition| matches!(d, Disposition::Hold(_));
        for (status, code) in [
            (403, "AccessDenied"),
            (403, "ExpiredToken"),
            (400, "ExpiredToken"),
            (400, "TokenRefreshRequired"),
            (403, "InvalidAccessKeyId"),
            (403, "SignatureDoesNotMatch"),
            (403, "RequestTimeTooSkewed"),
            (403, "AllAccessDisabled"),
            (403, ""),
            (401, ""),
            (404, "NoSuchBucket"),
            (404, ""),
            (301, "PermanentRedirect"),
            (307, "TemporaryRedirect"),
            (400, "AuthorizationHeaderMalformed"),
            (400, "EntityTooLarge"),
            (400, "KeyTooLongError"),
            (400, "InvalidArgument"),
            (400, "KMS.DisabledException"),
            (501, "NotImplemented"),
            (507, ""),
            (418, "Unheard"),
        ] {
            assert!(is_hold(classify(&answer(status, code))), "{status} {code}");
        }
        for (status, code) in [
            (409, "ConditionalRequestConflict"),
            (409, "OperationAborted"),
            (409, ""),
            (400, "RequestTimeout"),
            (400, "IncompleteBody"),
            (400, "BadDigest"),
            (408, ""),
            (500, "InternalError"),
            (500, ""),
            (502, ""),
            (504, ""),
        ] {
            assert_eq!(
                classify(&answer(status, code)),
                Disposition::Retry,
                "{status} {code}"
            );
        }
        for (status, code) in [
            (503, "SlowDown"),
            (503, "ServiceUnavailable"),
            (503, ""),
            (429, "TooManyRequests"),
            (429, ""),
            (400, "ThrottlingException"),
        ] {
            assert_eq!(
                classify(&answer(status, code)),
                Disposition::Throttled,
                "{status} {code}"
            );
        }
        for (status, code) in [(412, "PreconditionFailed"), (412, "")] {
            assert_eq!(
                classify(&answer(status, code)),
                Disposition::Exists,
                "{status} {code}"
            );
        }
        for transport in [Transport::Timeout, Transport::Refused, Transport::Other] {
            assert_eq!(
                classify(&cut(transport)),
                Disposition::Retry,
                "{transport:?}"
            );
        }
        for transport in [
            Transport::Dns,
            Transport::Tls,
            Transport::Credentials,
            Transport::Region,
            Transport::Endpoint,
        ] {
            assert!(is_hold(classify(&cut(transport))), "{transport:?}");
        }
    }
}
