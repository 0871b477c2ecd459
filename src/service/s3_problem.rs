//! What a failed S3 call is told as: the store's code and message, or the chain of causes where it never answered.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// An answer of 200 that no store gives: every store names what it has by an ETag.
pub const NOT_A_STORE: &str =
    "the answer names no ETag, so it is not the store's: something on the way answers in its place";

/// Why an execution could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For the client.
    pub reason: String,
    /// The store was away, overloaded or starting: the same work may succeed in a moment.
    pub passes: bool,
}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Problem {
            reason,
            passes: false,
        }
    }
}

/// Whether a failed call may succeed in a moment without anybody doing anything: no answer, too many requests, or a fault
/// of the store itself.
pub fn passes<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error.raw_response() {
        // Credentials that are missing and requests that cannot be built fail before there is an answer, and do not pass.
        None => !matches!(error, SdkError::ConstructionFailure(_)),
        Some(response) => {
            let status = response.status().as_u16();
            // A success that could not be read was cut off.
            status < 300 || status == 408 || status == 429 || status >= 500
        }
    }
}

/// One line for a person.
pub fn of<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let Some(response) = error.raw_response() else {
        return DisplayErrorContext(error).to_string();
    };
    let status = response.status().as_u16();
    match (error.code(), error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message} (HTTP {status})"),
        (Some(code), None) => format!("{code} (HTTP {status})"),
        _ => format!("HTTP {status}"),
    }
}
