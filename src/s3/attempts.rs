//! What every client of this program has beyond the SDK's own care: the address in what is said of a connection that failed,
//! and another attempt where a request was signed by the clock as it was.
//!
//! The SDK signs by this machine's clock and what the last answer told of its error. When a clock that was wrong is put right,
//! the next request is signed wrongly once; the answer to it corrects that, so that trying again at once is all it takes.

use std::error::Error;
use std::fmt;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextMut, InterceptorContext,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};
use aws_smithy_types::retry::ErrorKind;

use super::classify::missing;

/// What answers say of a request whose time is not the service's.
const SKEWED: [&str; 4] = [
    "RequestTimeTooSkewed",
    "RequestExpired",
    "Signature expired",
    "Signature not yet current",
];

/// Layers of the client that say nothing to anybody.
const LAYERS: [&str; 7] = [
    "io error",
    "timeout",
    "other",
    "client error (Connect)",
    "client error (SendRequest)",
    "tcp connect error",
    "connection error",
];

/// Puts the address that was asked into what is said of a connection that failed.
#[derive(Debug, Default)]
pub struct Addressed;

/// Has a request that was refused for its time signed again.
#[derive(Debug, Default)]
pub struct SignedAgain;

/// A connection that failed: where to, and why.
#[derive(Debug)]
pub struct Unreached(String);

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unreached {}

/// The address of the request under way.
#[derive(Debug)]
struct Asked(String);

impl Storable for Asked {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for Addressed {
    fn name(&self) -> &'static str {
        "addressed"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let address = address(context.request().uri()).to_owned();
        config.interceptor_state().store_put(Asked(address));
        Ok(())
    }

    fn modify_before_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Asked(address)) = config.load::<Asked>() else {
            return Ok(());
        };
        let Some(Err(error)) = context.output_or_error_mut() else {
            return Ok(());
        };
        if let Some(failed) = error.as_connector_error()
            && missing(failed).is_none()
        {
            let source = Box::new(Unreached(format!("{address}: {}", words(failed))));
            *error = OrchestratorError::connector(match failed {
                _ if failed.is_timeout() => ConnectorError::timeout(source),
                _ if failed.is_io() => ConnectorError::io(source),
                _ if failed.is_user() => ConnectorError::user(source),
                _ => ConnectorError::other(source, failed.as_other()),
            });
        } else if error.is_timeout_error() {
            let text = format!("{address}: no answer in time");
            *error = OrchestratorError::timeout(Box::new(Unreached(text)));
        }
        Ok(())
    }
}

impl ClassifyRetry for SignedAgain {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let refused = context.response().filter(|answer| {
            let body = answer.body().bytes().unwrap_or_default();
            let body = String::from_utf8_lossy(body);
            answer.status().is_client_error() && SKEWED.iter().any(|words| body.contains(words))
        });
        match refused {
            Some(_) => RetryAction::retryable_error(ErrorKind::TransientError),
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "signed again"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::http_status_code_classifier())
    }
}

/// `host:port` of a URL.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

/// An error and its causes, each once, without the layers that say nothing.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let part = error.to_string();
        let known = said.iter().any(|before| before.ends_with(&part));
        if !known && !LAYERS.contains(&part.as_str()) {
            said.push(part);
        }
        next = error.source();
    }
    match said.is_empty() {
        true => error.to_string(),
        false => said.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
    use std::time::Duration;

    use aws_sdk_s3::Client;
    use aws_sdk_s3::config::retry::RetryConfig;
    use aws_sdk_s3::config::timeout::TimeoutConfig;
    use aws_sdk_s3::error::SdkError;
    use chrono::{NaiveDateTime, TimeDelta};

    use super::super::{Failure, Transport, local_client};
    use crate::clock::Clock;

    /// A store whose clock is off by some seconds, and which refuses what was signed at another time.
    #[derive(Default)]
    struct Store {
        off: AtomicI64,
        asked: AtomicUsize,
    }

    fn store() -> (String, Arc<Store>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let store = Arc::new(Store::default());
        let shared = Arc::clone(&store);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                shared.asked.fetch_add(1, Ordering::SeqCst);
                let mut signed = None;
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap();
                    if let Some(date) = line.strip_prefix("x-amz-date: ") {
                        let parsed = NaiveDateTime::parse_from_str(date, "%Y%m%dT%H%M%SZ");
                        signed = Some(parsed.unwrap().and_utc());
                    } else if line.is_empty() {
                        break;
                    }
                }
                let now =
                    Clock::system().now() + TimeDelta::seconds(shared.off.load(Ordering::SeqCst));
                let fine = signed.is_some_and(|at| (at - now).abs() < TimeDelta::minutes(15));
                let (status, body) = match fine {
                    true => ("200 OK", "<ListBucketResult></ListBucketResult>"),
                    false => (
                        "403 Forbidden",
                        "<Error><Code>RequestTimeTooSkewed</Code></Error>",
                    ),
                };
                let (date, length) = (now.format("%a, %d %b %Y %H:%M:%S GMT"), body.len());
                let answer = format!(
                    "HTTP/1.1 {status}\r\ndate: {date}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (endpoint, store)
    }

    fn client(endpoint: &str, attempt: Duration) -> Client {
        let retries = RetryConfig::standard()
            .with_max_attempts(3)
            .with_initial_backoff(Duration::from_millis(1));
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(attempt);
        let config = local_client(endpoint, "key", "secret")
            .config()
            .to_builder()
            .timeout_config(timeouts.build())
            .retry_config(retries)
            .build();
        Client::from_conf(config)
    }

    #[tokio::test]
    async fn a_clock_that_is_put_right_fails_no_request() {
        let (endpoint, store) = store();
        let client = client(&endpoint, Duration::from_secs(30));
        let ask = || client.list_objects_v2().bucket("b").send();
        store.off.store(56 * 365 * 86_400, Ordering::SeqCst);
        ask().await.unwrap();
        // The SDK signs 56 years ahead from here on, until an answer tells it better.
        store.off.store(0, Ordering::SeqCst);
        let before = store.asked.load(Ordering::SeqCst);
        ask().await.unwrap();
        assert_eq!(store.asked.load(Ordering::SeqCst) - before, 2);
    }

    #[tokio::test]
    async fn an_error_names_the_address_and_each_cause_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = client(&format!("http://{address}"), Duration::from_secs(30));
        let error = client.head_bucket().bucket("b").send().await.unwrap_err();
        let failure = Failure::from(&error);
        assert_eq!(failure.transport, Some(Transport::Refused));
        assert_eq!(
            failure.to_string(),
            format!("{address}: Connection refused (os error 111)")
        );
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_names_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = client(&format!("http://{address}"), Duration::from_millis(50));
        let error = client.head_bucket().bucket("b").send().await.unwrap_err();
        assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
        let failure = Failure::from(&error);
        assert_eq!(failure.transport, Some(Transport::Timeout));
        assert_eq!(failure.to_string(), format!("{address}: no answer in time"));
    }
}
