//! The wire: AWS JSON 1.0 over HTTP/1.1 (contract 1.1 and 1.2).
//!
//! Guarantees: every answer has a request id; every refusal has `__type`, `Message` and `x-amzn-errortype`, so that
//! boto3, the AWS CLI and the Rust SDK map it to their typed exceptions. Headers are judged before a body is kept: what a
//! stranger sends, and what is too large, is taken off the line and dropped, so that he reads the refusal, and costs no
//! memory. A body is read up to a limit and within a deadline, few large ones at once; only then is its signature checked
//! and the operation run. Null members are left out of answers, which are compact JSON.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::faults::Fault;
use super::operations::{self, Identity};
use super::sigv4::{self, AccessKey, Signed};
use super::store::Store;
use crate::clock::Clock;
use crate::ops::cors::{self, Cors};

/// Name in the credential scope.
const SERVICE: &str = "lookoutequipment";
/// What `X-Amz-Target` starts with.
const TARGET_PREFIX: &str = "AWSLookoutEquipmentFrontendService.";
const JSON: &str = "application/x-amz-json-1.0";
/// The largest legal request is a schema of 1,000,000 characters.
const MOST_BODY_BYTES: usize = 4 << 20;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A body of so many bytes needs no place among the large ones: every connection may have one.
const SMALL_BODY: usize = 32 << 10;
/// So many bodies beyond that are held at once. Whether they are signed is known only when they are there.
const LARGE_BODIES: usize = 16;
/// So much of a body that is refused is taken off the line, so that a client that reads when it has sent all reads why.
const MOST_DROPPED: usize = 64 << 20;
/// So long that of a stranger is.
const STRANGERS_DEADLINE: Duration = Duration::from_secs(10);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Answers requests.
pub struct Frontend {
    /// The state.
    pub store: Store,
    /// For ARNs.
    pub identity: Identity,
    /// Keys that may sign; `None` accepts unsigned requests.
    pub keys: Option<Vec<AccessKey>>,
    /// What operations take as now.
    pub clock: Clock,
    /// Real time, for signature dates.
    pub wall: Clock,
    /// Rung after every operation that may have changed something.
    pub changed: watch::Sender<u64>,
    /// The web pages that may call.
    pub cors: Cors,
    /// Places for large bodies.
    pub large: Semaphore,
}

impl Frontend {
    /// Places for large bodies.
    pub fn large() -> Semaphore {
        Semaphore::new(LARGE_BODIES)
    }

    /// Answers one request.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        if let Some(headers) = self.cors.preflight(&request) {
            let mut answer = Response::new(Full::default());
            *answer.headers_mut() = headers;
            return Ok(answer);
        }
        let page = self.cors.allowed(request.headers());
        let request_id = uuid::Uuid::new_v4().to_string();
        let (parts, body) = request.into_parts();
        let target = parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok())
            .unwrap_or_default();
        let operation = target
            .strip_prefix(TARGET_PREFIX)
            .unwrap_or_default()
            .to_owned();
        // A length beside it may mean something else to a proxy in between: nothing that follows is a request.
        let chunked = parts.headers.contains_key(TRANSFER_ENCODING);
        let outcome = self.run(&parts, &operation, body).await;
        match &outcome {
            Ok(_) => tracing::debug!(%operation, %request_id, "request answered"),
            Err(fault) if fault.status >= 500 => {
                tracing::error!(%operation, %request_id, code = fault.code, "request failed");
            }
            Err(fault) => {
                tracing::debug!(%operation, %request_id, code = fault.code, message = %fault.message, "request refused");
            }
        }
        // Whoever is not let in is not listened to any further: requests that came along are not answered one by one.
        let refused = matches!(&outcome, Err(fault) if matches!(fault.status, 403 | 408 | 413));
        let mut answer = render(&request_id, outcome);
        if chunked || refused {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        if let Some(page) = page {
            cors::mark(answer.headers_mut(), page);
        }
        Ok(answer)
    }

    async fn run(
        &self,
        parts: &hyper::http::request::Parts,
        operation: &str,
        body: Incoming,
    ) -> Result<Value, Fault> {
        // A client that asks before it sends has sent nothing.
        let asks = parts.headers.contains_key(EXPECT);
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > MOST_BODY_BYTES {
            drop_body(body, asks, BODY_DEADLINE).await;
            return Err(too_large());
        }
        let signed = Signed {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            headers: &parts.headers,
        };
        let admitted = match &self.keys {
            None => None,
            Some(keys) => match sigv4::admit(signed, keys, SERVICE, self.wall.now()) {
                Ok(admitted) => Some(admitted),
                Err(fault) => {
                    drop_body(body, asks, STRANGERS_DEADLINE).await;
                    return Err(fault);
                }
            },
        };
        let (body, _place) = self.read(body, asks).await?;
        if let Some(admitted) = admitted {
            admitted.verify(&body)?;
        }
        if parts.method != Method::POST || parts.uri.path() != "/" {
            return Err(Fault::unknown_operation("The API answers POST / only"));
        }
        if operation.is_empty() {
            return Err(Fault::unknown_operation(format!(
                "The header X-Amz-Target must be {TARGET_PREFIX}<Operation>"
            )));
        }
        check_content_type(&parts.headers)?;
        let body: Value = match body.trim_ascii() {
            [] => Value::Object(serde_json::Map::new()),
            text => serde_json::from_slice(text).map_err(|error| {
                Fault::serialization(format!("The request body is not JSON: {error}"))
            })?,
        };
        let answer = operations::call(
            &self.store,
            &self.identity,
            self.clock.now(),
            operation,
            &body,
        )
        .await?;
        if !operation.starts_with("Describe") && !operation.starts_with("List") {
            self.changed.send_modify(|count| *count += 1);
        }
        Ok(answer)
    }

    /// The body, and its place if it is large: to be kept while the body is.
    async fn read(
        &self,
        mut body: Incoming,
        asks: bool,
    ) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Fault> {
        let read = async {
            let mut held = Vec::new();
            let mut place = None;
            while let Some(frame) = body.frame().await {
                let aborted = |_| {
                    let message = "The request body ended early";
                    Fault::new("RequestAbortedException", 400, message)
                };
                let Ok(data) = frame.map_err(aborted)?.into_data() else {
                    continue;
                };
                let length = held.len() + data.len();
                if length > MOST_BODY_BYTES {
                    return Ok(None);
                }
                if length > SMALL_BODY && place.is_none() {
                    place = self.large.acquire().await.ok();
                }
                held.extend_from_slice(&data);
            }
            Ok::<_, Fault>(Some((held, place)))
        };
        match tokio::time::timeout(BODY_DEADLINE, read).await {
            Ok(Ok(Some(read))) => Ok(read),
            Ok(Err(fault)) => Err(fault),
            Ok(Ok(None)) => {
                drop_body(body, asks, BODY_DEADLINE).await;
                Err(too_large())
            }
            Err(_) => Err(Fault::new(
                "RequestTimeoutException",
                408,
                "The request body did not arrive within 30 seconds",
            )),
        }
    }
}

/// Takes the rest of a body off the line without keeping it, within bounds.
async fn drop_body(mut body: Incoming, asks: bool, deadline: Duration) {
    if asks {
        return;
    }
    let drop_all = async {
        let mut dropped = 0;
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > MOST_DROPPED {
                return;
            }
        }
    };
    // One that is too slow is closed while it sends.
    let _ = tokio::time::timeout(deadline, drop_all).await;
}

fn too_large() -> Fault {
    Fault::new(
        "RequestEntityTooLargeException",
        413,
        format!("The request body is larger than {MOST_BODY_BYTES} bytes"),
    )
}

/// Clients say `application/x-amz-json-1.0`; any JSON type, with or without parameters, and none at all will do.
fn check_content_type(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let name = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if name == "application/json" || name.starts_with("application/x-amz-json-1.") {
        return Ok(());
    }
    Err(Fault::serialization(format!(
        "Content-Type '{name}' is not supported, expected {JSON}"
    )))
}

fn render(request_id: &str, outcome: Result<Value, Fault>) -> Response<Full<Bytes>> {
    let (status, error, body) = match outcome {
        Ok(Value::Null) => (200, None, Vec::new()),
        Ok(mut answer) => {
            omit_nulls(&mut answer);
            (200, None, answer.to_string().into_bytes())
        }
        Err(fault) => {
            let body =
                serde_json::json!({"__type": fault.code, "Message": fault.message}).to_string();
            (fault.status, Some(fault.code), body.into_bytes())
        }
    };
    let length = body.len();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(code) = error {
        headers.insert(ERROR_TYPE, HeaderValue::from_static(code));
    }
    response
}

/// The original leaves absent members out; a JSON null makes some clients see a value.
fn omit_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, member| !member.is_null());
            object.values_mut().for_each(omit_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(omit_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn text(response: Response<Full<Bytes>>) -> String {
        String::from_utf8(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .to_vec(),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn answers_are_compact_ordered_and_without_nulls() {
        let answer =
            json!({"B": 1546300800.0, "NextToken": null, "A": [{"x": null, "y": 1652432588.123}]});
        let response = render("id", Ok(answer));
        assert_eq!(response.headers()["x-amzn-requestid"], "id");
        assert_eq!(
            text(response).await,
            r#"{"B":1546300800.0,"A":[{"y":1652432588.123}]}"#
        );
        let empty = render("id", Ok(Value::Null));
        assert_eq!(empty.headers()["content-length"], "0");
        assert_eq!(text(empty).await, "");
    }

    #[tokio::test]
    async fn faults_carry_their_code_in_body_and_header() {
        let response = render("id", Err(Fault::conflict("taken")));
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["x-amzn-errortype"], "ConflictException");
        assert_eq!(
            text(response).await,
            r#"{"__type":"ConflictException","Message":"taken"}"#
        );
        assert_eq!(render("id", Err(Fault::internal())).status(), 500);
    }

    #[test]
    fn recorded_answers_have_the_recorded_length() {
        // The real service answered CreateDataset in 186 bytes and CreateModel in 155 (contract 1.1).
        let dataset = json!({
            "DatasetName": "getting-started-pump",
            "DatasetArn": "arn:aws:lookoutequipment:eu-west-1:123456789012:dataset/getting-started-pump/\
                           9f3b8a45-fa09-4e23-971d-29e0b9e30498",
            "Status": "CREATED",
        });
        assert_eq!(dataset.to_string().len(), 186);
    }

    #[test]
    fn json_content_types_are_accepted_and_forms_are_not() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            check_content_type(&headers)
        };
        for good in [
            "application/x-amz-json-1.0",
            "application/x-amz-json-1.1; charset=utf-8",
            "Application/JSON",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(
            check("text/plain").unwrap_err().code,
            "SerializationException"
        );
        assert_eq!(check_content_type(&HeaderMap::new()), Ok(()));
    }
}
