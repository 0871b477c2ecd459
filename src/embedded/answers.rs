//! What stands between the listener and the protocol: the one key, the names of hosts, request ids, and what the protocol's
//! crate leaves open.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use s3s::auth::{S3Auth, SecretKey};
use s3s::host::{S3Host, VirtualHost};
use s3s::service::S3Service;
use s3s::{Body, HttpError, S3Result, s3_error};
use tracing::{debug, warn};

use super::forms::Held;
use super::{KeyPair, Rest};
use crate::ops::cors::Cors;
use crate::store::checksums::Passed;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const EXTENDED_ID: HeaderName = HeaderName::from_static("x-amz-id-2");
/// The longest that a presigned request is good for.
const LONGEST_SECONDS: u64 = 7 * 86_400;
/// Refusals are said when they are so many times as many as when last said.
const SAID_AGAIN: u64 = 10;

/// The protocol, with what it lacks.
pub struct Gate {
    s3: S3Service,
    cors: Cors,
    refused: AtomicU64,
}

/// The key pair that signs requests.
pub struct OneKey {
    access_key: String,
    secret_key: SecretKey,
}

/// Buckets as names of hosts: `bucket.localhost`.
pub struct Hosts;

impl OneKey {
    pub fn new(keys: &KeyPair) -> Self {
        Self {
            access_key: keys.access_key.clone(),
            secret_key: SecretKey::from(keys.secret_key.as_str()),
        }
    }
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key {
            return Ok(self.secret_key.clone());
        }
        Err(s3_error!(
            InvalidAccessKeyId,
            "The AWS Access Key Id you provided does not exist in our records."
        ))
    }
}

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        Ok(match name.strip_suffix(".localhost") {
            Some(bucket) if !bucket.is_empty() => VirtualHost::new("localhost").with_bucket(bucket),
            _ => VirtualHost::new(name),
        })
    }
}

impl Gate {
    pub fn new(s3: S3Service, cors: Cors) -> Self {
        Self {
            s3,
            cors,
            refused: AtomicU64::new(0),
        }
    }

    /// Whose web pages may ask.
    pub fn cors(&self) -> &Cors {
        &self.cors
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
        let id = new_id();
        let head = request.method() == Method::HEAD;
        let malformed = malformed(&request);
        // Who waits to be told to go on sends nothing that is refused.
        let waits = request.headers().contains_key(hyper::header::EXPECT);
        let held = Held::of(&request);
        let is_form = held.is_some();
        let of_attributes = is_of_attributes(&request);
        let passed = is_read_whole(&request).then(|| Passed::of(request.headers()));
        let passed = passed.flatten();
        let (mut parts, body) = request.into_parts();
        if let Some(passed) = passed.clone() {
            parts.extensions.insert(passed);
        }
        let rest = Rest::of(body);
        let mut response = match malformed {
            Some(response) => response,
            None => {
                self.s3
                    .call(Request::from_parts(parts, rest.body(held, passed)))
                    .await?
            }
        };
        if response.status().is_client_error() && !waits {
            rest.drain().await;
        }
        if is_form {
            refuse_by_policy(&mut response);
        }
        if of_attributes {
            // Of all answers this one tells the ETag without its quotes.
            rewrite(&mut response, |text| {
                let quotes = [("<ETag>\"", "<ETag>"), ("<ETag>&quot;", "<ETag>")];
                let ends = [("\"</ETag>", "</ETag>"), ("&quot;</ETag>", "</ETag>")];
                let both = quotes.into_iter().chain(ends);
                both.fold(text.to_owned(), |text, (from, to)| {
                    text.replacen(from, to, 1)
                })
            });
        }
        if !rest.has_ended() {
            // The connection ends with this answer. Who is not told keeps it for the next request, which is then lost.
            let close = HeaderValue::from_static("close");
            response
                .headers_mut()
                .insert(hyper::header::CONNECTION, close);
        }
        let status = response.status();
        if status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED {
            self.count_refusal();
        } else if status.is_server_error() {
            warn!(
                status = status.as_u16(),
                id, "embedded S3 could not do what was asked"
            );
        } else if status.is_client_error() {
            debug!(
                status = status.as_u16(),
                id, "embedded S3 refused a request"
            );
        }
        if status == StatusCode::NOT_MODIFIED {
            *response.body_mut() = Body::empty();
            response.headers_mut().remove(CONTENT_LENGTH);
            response.headers_mut().remove(CONTENT_TYPE);
        } else if status.is_client_error() || status.is_server_error() {
            identify(&mut response, &id);
        } else if head && response.headers().contains_key(CONTENT_RANGE) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        name(&mut response, &id);
        Ok(response)
    }

    /// Strangers are said now and then, with how many there were.
    fn count_refusal(&self) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut said = 1;
        while said < refused {
            said *= SAID_AGAIN;
        }
        if said == refused {
            warn!(
                refused,
                "embedded S3 has refused requests: no signature, another key, or a clock that is off"
            );
        }
    }
}

/// What a request is called in its answer and in the log.
pub fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string().to_uppercase()
}

/// Gives an answer its request's id.
pub fn name(response: &mut Response<Body>, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        let headers = response.headers_mut();
        headers.insert(EXTENDED_ID, value.clone());
        headers.insert(REQUEST_ID, value);
    }
}

/// Whether its body is a document, which the protocol's crate reads without a look at what headers say of it.
fn is_read_whole(request: &Request<Incoming>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    let asks = |wanted: &str| {
        let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
        names.any(|name| name == wanted)
    };
    (request.method() == Method::POST && asks("delete"))
        || (request.method() == Method::PUT && asks("tagging"))
}

fn is_of_attributes(request: &Request<Incoming>) -> bool {
    let mut names = request.uri().query().unwrap_or_default().split('&');
    request.method() == Method::GET
        && names.any(|name| matches!(name, "attributes" | "attributes="))
}

/// Changes the text of an answer.
fn rewrite(response: &mut Response<Body>, change: impl FnOnce(&str) -> String) {
    let Some(bytes) = response.body().bytes() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return;
    };
    let changed = change(text);
    if changed == text {
        return;
    }
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(changed.len()));
    *response.body_mut() = Body::from(Bytes::from(changed));
}

/// A form that its own policy does not allow is a stranger's, not a policy that cannot be read.
fn refuse_by_policy(response: &mut Response<Body>) {
    const BROKEN: &str = "<Code>InvalidPolicyDocument</Code>";
    let mut refused = false;
    rewrite(response, |text| {
        refused = text.contains(BROKEN)
            && ["Policy condition", "Bucket in form field"]
                .iter()
                .any(|why| text.contains(why));
        match refused {
            true => text.replacen(BROKEN, "<Code>AccessDenied</Code>", 1),
            false => text.to_owned(),
        }
    });
    if refused {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
}

/// Puts the id into the text of an error.
fn identify(response: &mut Response<Body>, id: &str) {
    let is_error = response
        .body()
        .bytes()
        .is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains("<Error>"));
    if !is_error {
        return;
    }
    let ids = format!("<RequestId>{id}</RequestId><HostId>{id}</HostId></Error>");
    rewrite(response, |text| text.replacen("</Error>", &ids, 1));
    if !response.headers().contains_key(CONTENT_TYPE) {
        let xml = HeaderValue::from_static("application/xml");
        response.headers_mut().insert(CONTENT_TYPE, xml);
    }
}

/// What the protocol's crate would take, or would refuse in other words than S3.
fn malformed(request: &Request<Incoming>) -> Option<Response<Body>> {
    let error = |status: StatusCode, code: &str, message: &str| {
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        Some(response)
    };
    let query = request.uri().query().unwrap_or_default();
    let expires = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("X-Amz-Expires="));
    if let Some(expires) = expires {
        let good = expires
            .parse()
            .is_ok_and(|seconds: u64| (1..=LONGEST_SECONDS).contains(&seconds));
        if !good {
            return error(
                StatusCode::FORBIDDEN,
                "AccessDenied",
                "X-Amz-Expires must be between 1 and 604800 seconds",
            );
        }
    }
    let authorization = request.headers().get(hyper::header::AUTHORIZATION);
    if let Some(text) = authorization.and_then(|value| value.to_str().ok())
        && let Some(rest) = text.strip_prefix("AWS4-HMAC-SHA256")
    {
        let has = |name: &str| rest.contains(name);
        let scope = rest
            .split("Credential=")
            .nth(1)
            .and_then(|scope| scope.split([',', ' ']).next());
        let parts = scope.map_or(0, |scope| scope.split('/').count());
        if !has("SignedHeaders=") || !has("Signature=") || parts < 5 {
            return error(
                StatusCode::BAD_REQUEST,
                "AuthorizationHeaderMalformed",
                "The authorization header is malformed; the Credential is mal-formed; expecting \
                 \"&lt;YOUR-AKID&gt;/YYYYMMDD/REGION/SERVICE/aws4_request\".</Message><Region>us-east-1</Region><Message>",
            );
        }
    }
    None
}
