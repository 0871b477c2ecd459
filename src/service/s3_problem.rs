//! What a failed S3 call is told as: the store's code and message, or in words how the connection failed. What it means is
//! the classifier's word ([`crate::s3::Failure::passes`]); there is no other.

use crate::s3::{Disposition, Failure, S3Error, classify};
use crate::service::store::executions::{Failed, FailureKind};

/// Why an execution could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For the client.
    pub failed: Failed,
    /// The store was away, overloaded or starting: the same work may succeed in a moment.
    pub passes: bool,
}

impl Problem {
    /// One that stays until somebody changes something.
    pub fn new(kind: FailureKind, reason: impl Into<String>) -> Problem {
        Problem {
            failed: Failed::new(kind, reason),
            passes: false,
        }
    }

    /// The store refused; `what` could not be done.
    pub fn store(what: impl std::fmt::Display, error: &S3Error) -> Problem {
        Problem {
            failed: Failed::new(
                FailureKind::Store,
                format!("{what}: {}", told(&error.failure)),
            ),
            passes: error.passes(),
        }
    }
}

/// One line for a person, with what to do where that is the same for all who use the store.
pub fn told(failure: &Failure) -> String {
    let said = said(failure);
    match classify(failure) {
        Disposition::Hold(remedy) if concerns_all(failure) => format!("{said}; {remedy}"),
        _ => said,
    }
}

/// Whether it is how the store is reached that is wrong, and not the bucket, key or rights of one scheduler.
fn concerns_all(failure: &Failure) -> bool {
    match failure.code.as_deref() {
        Some(code) => matches!(
            code,
            "NotImplemented"
                | "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException"
                | "RequestTimeTooSkewed"
                | "RequestExpired"
                | "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
        ),
        None => matches!(failure.status, Some(301 | 307 | 308)),
    }
}

fn said(failure: &Failure) -> String {
    match (failure.status, failure.code.as_deref()) {
        (Some(status), Some(code)) if failure.message.is_empty() || failure.message == code => {
            format!("{code} (HTTP {status})")
        }
        (Some(status), Some(code)) => format!("{code}: {} (HTTP {status})", failure.message),
        (Some(status), None) if status >= 300 => format!("HTTP {status}"),
        _ => failure.message.clone(),
    }
}
