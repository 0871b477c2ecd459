//! What a failed S3 call is told as: the store's code and message, or the chain of causes where it never answered.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// An answer of 200 that no store gives: every store names what it has by an ETag.
pub const NOT_A_STORE: &str =
    "the answer names no ETag, so it is not the store's: something on the way answers in its place";

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
