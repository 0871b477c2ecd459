//! Which web pages may call from a browser (cross-origin resource sharing).
//!
//! Guarantees: without configuration no page is let in and no answer changes; a page that is not configured is never echoed.
//! It lets pages ask and read, and opens nothing else: requests must be signed all the same.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE");
/// What the SDKs read beyond what every page may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-amzn-requestid, x-amzn-errortype, x-amz-request-id, x-amz-version-id, etag, content-range, accept-ranges, date",
);
/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// The pages that may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<String>,
}

impl Cors {
    /// `origins` as browsers send them (`https://plant.example`), or `*` for all; the refusal says which is none.
    pub fn new(origins: &[String]) -> Result<Cors, String> {
        match origins.iter().find(|origin| !is_origin(origin)) {
            Some(wrong) => Err(format!(
                "\"{wrong}\" is no origin: write scheme, host and port as a browser sends them, without a path, such as \
                 \"https://plant.example\" or \"http://localhost:3000\"; or \"*\" for every page"
            )),
            None => Ok(Cors {
                origins: origins.to_vec(),
            }),
        }
    }

    /// The page that asks, if it may.
    pub fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        let known = |allowed: &String| allowed == "*" || origin == allowed.as_str();
        self.origins.iter().any(known).then(|| origin.clone())
    }

    /// The headers of the answer to a browser that asks first, if `request` is that of a page that may.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<HeaderMap> {
        let asked = request.headers();
        if request.method() != Method::OPTIONS || !asked.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        let origin = self.allowed(asked)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        mark(&mut headers, origin);
        Some(headers)
    }
}

/// Lets `origin` read an answer.
pub fn mark(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

fn is_origin(text: &str) -> bool {
    let host = text
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https" | "capacitor" | "tauri"));
    let plain = |host: &str| {
        !host.is_empty()
            && host.bytes().all(
                |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b':' | b'[' | b']'),
            )
    };
    text == "*" || host.is_some_and(|(_, host)| plain(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(origin: &str) -> Request<()> {
        Request::builder()
            .method("OPTIONS")
            .uri("/")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization,x-amz-target",
            )
            .body(())
            .unwrap()
    }

    #[test]
    fn only_pages_that_are_configured_are_answered_and_none_without_configuration() {
        let page = "http://localhost:3000";
        let cors = Cors::new(&[page.to_owned()]).unwrap();
        let headers = cors.preflight(&asks(page)).unwrap();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], page);
        assert_eq!(
            headers[ACCESS_CONTROL_ALLOW_HEADERS],
            "authorization,x-amz-target"
        );
        assert_eq!(headers[VARY], "Origin");
        for other in [
            "http://evil.example",
            "http://localhost:3000.evil.example",
            "null",
        ] {
            assert_eq!(cors.preflight(&asks(other)), None, "{other}");
        }
        assert_eq!(Cors::default().preflight(&asks(page)), None);
        let every = Cors::new(&["*".to_owned()]).unwrap();
        assert_eq!(
            every.allowed(asks("http://evil.example").headers()),
            Some(HeaderValue::from_static("http://evil.example"))
        );
        let plain = Request::builder()
            .method("OPTIONS")
            .header("origin", page)
            .body(());
        assert_eq!(cors.preflight(&plain.unwrap()), None);
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for good in ["*", "https://plant.example", "http://[::1]:3000"] {
            assert!(Cors::new(&[good.to_owned()]).is_ok(), "{good}");
        }
        for bad in [
            "",
            "plant.example",
            "https://plant.example/",
            "https://Plant.example",
            "https://*.example",
        ] {
            assert!(Cors::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
