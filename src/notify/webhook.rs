//! The webhook: one POST of JSON, signed as the Standard Webhooks specification says (standardwebhooks.com), so that
//! receivers can use its libraries or five lines of their own.
//!
//! Guarantees: `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; the timestamp is that
//! of the attempt. It follows no redirect, because the signed message is for one receiver. It reads no more of an answer
//! than it shows. TLS is checked against the system's certificates; proxies are those of the environment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::base64;
use aws_smithy_types::body::SdkBody;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use sha2::Sha256;

use super::{NotifyError, Refused};
use crate::clock::Clock;

/// As much of an answer as is read.
const MOST_ANSWER: usize = 2_048;
/// A receiver that asks for more patience than this is asked again after it.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);
/// Shorter secrets can be guessed.
const SHORTEST_SECRET: usize = 16;

/// An address and the key for it. Cheap to clone.
#[derive(Clone)]
pub struct Webhook {
    address: http::Uri,
    secret: Secret,
    timeout: Duration,
    connector: Arc<Connector>,
}

/// A key that is not printed.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Webhook {
    /// A webhook at `address`.
    pub fn new(address: &str, secret: Secret, timeout: Duration) -> Result<Self, String> {
        let connector = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build();
        Ok(Self {
            address: self::address(address)?,
            secret,
            timeout,
            connector: Arc::new(connector),
        })
    }

    /// The host, without path and query.
    pub fn place(&self) -> String {
        let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let scheme = part(self.address.scheme_str());
        // A name and password before the host are not shown either.
        let authority = part(self.address.authority().map(http::uri::Authority::as_str));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}/...")
    }

    /// The headers of an attempt at `timestamp`.
    pub fn headers(&self, id: &str, timestamp: i64, body: &str) -> [(&'static str, String); 5] {
        [
            ("content-type", "application/json".into()),
            (
                "user-agent",
                concat!("lookoutd/", env!("CARGO_PKG_VERSION")).into(),
            ),
            ("webhook-id", id.into()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", self.secret.sign(id, timestamp, body)),
        ]
    }

    /// Sends one message; success is a status of 2xx.
    pub async fn send(&self, id: &str, body: &str) -> Result<String, Refused> {
        // Receivers refuse old timestamps, so it is the machine's time, not that of an accelerated plant.
        let timestamp = Clock::system().now().timestamp();
        let mut request = HttpRequest::new(SdkBody::from(body));
        request
            .set_method("POST")
            .map_err(|error| failed(error.to_string()))?;
        match request.set_uri(self.address.clone()) {
            Ok(()) => {}
        }
        for (name, value) in self.headers(id, timestamp, body) {
            request
                .headers_mut()
                .try_insert(name, value)
                .map_err(|error| failed(error.to_string()))?;
        }
        let answer = async {
            let mut response = self
                .connector
                .call(request)
                .await
                .map_err(|error| failed(chain(&error)))?;
            let text = read(&mut response).await;
            Ok((response, text))
        };
        let (response, text) = tokio::time::timeout(self.timeout, answer)
            .await
            .map_err(|_| failed(format!("no answer within {:?}", self.timeout)))??;
        judge(&response, &text)
    }
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Webhook").field(&self.place()).finish()
    }
}

impl Secret {
    /// The secret in a text: `whsec_` and base64, as the specification writes it, or the text itself.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes = match text.strip_prefix("whsec_") {
            Some(encoded) => base64::decode(encoded)
                .map_err(|_| "what follows whsec_ is not base64".to_owned())?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.len() < SHORTEST_SECRET {
            return Err(format!(
                "the secret has {} bytes, at least {SHORTEST_SECRET} are wanted",
                bytes.len()
            ));
        }
        Ok(Self(bytes.into()))
    }

    fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        // A key of any length is taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            return String::new();
        };
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", base64::encode(mac.finalize().into_bytes()))
    }
}

/// Reads the secret.
pub fn read_secret(path: &Path) -> Result<Secret, NotifyError> {
    let wrong = |what: String| NotifyError::Secret {
        path: path.to_owned(),
        what,
    };
    if path.as_os_str().is_empty() {
        return Err(wrong(
            "is needed with notify.webhook: messages are signed".into(),
        ));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    Secret::parse(&text).map_err(wrong)
}

/// An address that can be posted to.
pub fn address(text: &str) -> Result<http::Uri, String> {
    let fail = "is not an address: write it like https://hooks.example.com/lookoutd";
    // The text itself may hold a secret, so it is not repeated.
    let address: http::Uri = text.parse().map_err(|_| fail.to_owned())?;
    match (address.scheme_str(), address.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(address),
        _ => Err(fail.to_owned()),
    }
}

fn judge(response: &HttpResponse, text: &str) -> Result<String, Refused> {
    let status = response.status().as_u16();
    let told = if text.is_empty() {
        format!("{status}")
    } else {
        format!("{status} {text}")
    };
    match status {
        200..=299 => Ok(told),
        300..=399 => Err(failed(format!(
            "{told}: it sends elsewhere, which is not followed; set notify.webhook to the final address"
        ))),
        _ => Err(Refused {
            malformed: matches!(status, 400 | 413 | 415 | 422),
            wait: response
                .headers()
                .get("retry-after")
                .and_then(|value| value.parse().ok())
                .map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)),
            text: told,
        }),
    }
}

/// The beginning of an answer, on one line.
async fn read(response: &mut HttpResponse) -> String {
    let mut bytes = Vec::new();
    let body = response.body_mut();
    while bytes.len() < MOST_ANSWER {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    bytes.extend_from_slice(&data[..data.len().min(MOST_ANSWER - bytes.len())]);
                }
            }
            // The status has been said already.
            Some(Err(_)) | None => break,
        }
    }
    super::rules::line(&String::from_utf8_lossy(&bytes), 300)
}

/// An error with its causes, which say more than it does.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    super::rules::line(&text, 300)
}

fn failed(text: String) -> Refused {
    Refused {
        text,
        malformed: false,
        wait: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of standardwebhooks.com.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            secret.sign(
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                "{\"test\": 2432232314}"
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_that_is_short_or_no_base64_is_refused() {
        for (text, part) in [
            ("short", "5 bytes"),
            ("whsec_*", "not base64"),
            ("", "0 bytes"),
        ] {
            let error = Secret::parse(text).err().unwrap();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn neither_secret_nor_path_is_shown() {
        let secret = Secret::parse("a-secret-of-some-length").unwrap();
        let webhook = Webhook::new(
            "https://me:pass@hooks.example.com:8443/services/T0/B0?key=1",
            secret,
            Duration::from_secs(1),
        )
        .unwrap();
        assert_eq!(webhook.place(), "https://hooks.example.com:8443/...");
        let shown = format!("{webhook:?}");
        for part in ["secret", "services", "key=1", "pass"] {
            assert!(!shown.contains(part), "{shown}");
        }
        for text in ["hooks.example.com", "ftp://x/", "https://", "https://a b/"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
