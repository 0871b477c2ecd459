//! Verification of AWS Signature Version 4 on incoming requests.
//!
//! Guarantees: a request passes only if its key id is known, its date is within 15 minutes of real time, its scope is
//! for this service, every header that steers the request is signed, and the signature is that of the key's secret over
//! exactly this method, path, query, headers and body. Signatures are compared in constant time. Any region name is
//! accepted in the scope. Presigned URLs (query signatures) are deliberately not supported: the API's clients send none.
//!
//! Source of the canonical forms: "Signature Version 4 signing process" in the AWS General Reference.

use std::time::SystemTime;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use hyper::HeaderMap;
use sha2::{Digest, Sha256};

use super::faults::Fault;

/// How far a request's date may be from real time, either way.
const TOLERANCE: TimeDelta = TimeDelta::minutes(15);

/// An access key pair that may sign requests.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Access key id, sent in the clear.
    pub id: String,
    /// Secret, never sent or logged.
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What the signature covers, beside the body.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `POST`.
    pub method: &'a str,
    /// Path as sent, still percent-encoded.
    pub path: &'a str,
    /// Query as sent, without the question mark.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// A request whose headers were judged; its body is still to be.
pub struct Admitted<'a> {
    request: Signed<'a>,
    claim: Claim<'a>,
    key: &'a AccessKey,
    stamp: &'a str,
    date: DateTime<Utc>,
}

/// Accepts or refuses a request with `body`, signed for `service`; `now` is real time.
pub fn verify(
    request: &Signed<'_>,
    body: &[u8],
    keys: &[AccessKey],
    service: &str,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    admit(*request, keys, service, now)?.verify(body)
}

/// Judges what can be judged before the body is there: the key, the date, the scope, which headers are signed. What passes
/// names a key that is known, and is signed by it only if [`Admitted::verify`] says so.
pub fn admit<'a>(
    request: Signed<'a>,
    keys: &'a [AccessKey],
    service: &str,
    now: DateTime<Utc>,
) -> Result<Admitted<'a>, Fault> {
    let Some(authorization) = header(request.headers, "authorization") else {
        return Err(Fault::new(
            "MissingAuthenticationTokenException",
            403,
            "Missing Authentication Token",
        ));
    };
    let claim = Claim::parse(authorization)?;
    if claim.service != service || claim.terminator != "aws4_request" {
        return Err(invalid(format!(
            "Credential should be scoped to correct service: '{service}', with terminator 'aws4_request'"
        )));
    }
    let stamp = header(request.headers, "x-amz-date").ok_or_else(|| {
        incomplete("Authorization header requires existence of an 'X-Amz-Date' header")
    })?;
    let date = NaiveDateTime::parse_from_str(stamp, "%Y%m%dT%H%M%SZ")
        .map_err(|_| {
            incomplete("Date must be in ISO-8601 'basic format', for example 20261124T101500Z")
        })?
        .and_utc();
    if stamp.get(..8).is_none_or(|day| day != claim.date) {
        return Err(invalid(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date",
        ));
    }
    if (now - date).abs() > TOLERANCE {
        let (word, bound) = if date < now {
            ("expired", now - TOLERANCE)
        } else {
            ("not yet current", now + TOLERANCE)
        };
        let relation = if date < now { "earlier" } else { "later" };
        return Err(invalid(format!(
            "Signature {word}: {stamp} is now {relation} than {} ({}); set this machine's clock",
            bound.format("%Y%m%dT%H%M%SZ"),
            now.format("%Y%m%dT%H%M%SZ"),
        )));
    }
    for needed in ["host", "x-amz-date", "x-amz-target"] {
        if request.headers.contains_key(needed)
            && !claim.signed_headers.split(';').any(|name| name == needed)
        {
            return Err(invalid(format!(
                "'{needed}' must be a 'SignedHeader' in the AWS Authorization"
            )));
        }
    }
    if header(request.headers, "x-amz-security-token").is_some_and(|token| !token.is_empty()) {
        return Err(Fault::new(
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid: keys of this service have no session token; unset \
             AWS_SESSION_TOKEN, or take it out of the profile",
        ));
    }
    let Some(key) = keys.iter().find(|key| key.id == claim.key_id) else {
        return Err(Fault::new(
            "UnrecognizedClientException",
            403,
            "The security token included in the request is invalid: unknown access key id",
        ));
    };
    Ok(Admitted {
        request,
        claim,
        key,
        stamp,
        date,
    })
}

impl Admitted<'_> {
    /// Whether the key that the request names has signed it, with this body.
    pub fn verify(&self, body: &[u8]) -> Result<(), Fault> {
        let Admitted {
            request,
            claim,
            key,
            stamp,
            date,
        } = self;
        let digest = hex(&Sha256::digest(body));
        if header(request.headers, "x-amz-content-sha256").is_some_and(|sent| sent != digest) {
            return Err(invalid(
                "The value of 'x-amz-content-sha256' is not the SHA-256 of the body",
            ));
        }
        let canonical = canonical_request(request, claim.signed_headers, &digest)?;
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{}/{}/{}/{}\n{}",
            claim.date,
            claim.region,
            claim.service,
            claim.terminator,
            hex(&Sha256::digest(canonical.as_bytes())),
        );
        let signing_key = generate_signing_key(
            &key.secret,
            SystemTime::from(*date),
            claim.region,
            claim.service,
        );
        let expected = calculate_signature(signing_key, to_sign.as_bytes());
        if !equal_in_constant_time(expected.as_bytes(), claim.signature.as_bytes()) {
            return Err(invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.",
            ));
        }
        Ok(())
    }
}

/// The parts of the `Authorization` header.
struct Claim<'a> {
    key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    terminator: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl Claim<'_> {
    fn parse(header: &str) -> Result<Claim<'_>, Fault> {
        let Some(rest) = header.trim().strip_prefix("AWS4-HMAC-SHA256") else {
            return Err(incomplete(
                "Authorization header must use the algorithm 'AWS4-HMAC-SHA256'",
            ));
        };
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            match part.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => signed_headers = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => {}
            }
        }
        let need =
            |name: &str| incomplete(format!("Authorization header requires '{name}' parameter"));
        let credential = credential.ok_or_else(|| need("Credential"))?;
        let signed_headers = signed_headers.ok_or_else(|| need("SignedHeaders"))?;
        let signature = signature.ok_or_else(|| need("Signature"))?;
        // An access key id may itself hold slashes, so the scope is read from the right.
        let mut scope = credential.rsplitn(5, '/');
        let (Some(terminator), Some(service), Some(region), Some(date), Some(key_id)) = (
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
            scope.next(),
        ) else {
            return Err(incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term",
            ));
        };
        Ok(Claim {
            key_id,
            date,
            region,
            service,
            terminator,
            signed_headers,
            signature,
        })
    }
}

fn canonical_request(
    request: &Signed<'_>,
    signed_headers: &str,
    digest: &str,
) -> Result<String, Fault> {
    // By name, then by value: as one text a name would come after those that go on with what sorts before `=`.
    let pairs = request.query.split('&').filter(|pair| !pair.is_empty());
    let mut query: Vec<(&str, &str)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    query.sort_unstable();
    let query: Vec<String> = query
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut headers = String::new();
    for name in signed_headers.split(';') {
        let mut values = Vec::new();
        for value in request.headers.get_all(name) {
            let value = value
                .to_str()
                .map_err(|_| invalid(format!("Header '{name}' is not plain text")))?;
            values.push(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        }
        if values.is_empty() {
            return Err(invalid(format!(
                "Signed header '{name}' is not in the request"
            )));
        }
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let path = if request.path.is_empty() {
        "/"
    } else {
        request.path
    };
    Ok(format!(
        "{}\n{path}\n{}\n{headers}\n{signed_headers}\n{digest}",
        request.method,
        query.join("&")
    ))
}

fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |difference, (x, y)| difference | (x ^ y))
            == 0
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn incomplete(message: impl Into<String>) -> Fault {
    Fault::new("IncompleteSignature", 403, message)
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new("InvalidSignatureException", 403, message)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// The published example of the AWS General Reference ("Examples of the complete Signature Version 4 signing
    /// process"): a GET of IAM's ListUsers.
    const EXAMPLE: &str = "AWS4-HMAC-SHA256 \
        Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, \
        Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";

    fn example() -> (HeaderMap, Vec<AccessKey>, DateTime<Utc>) {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static(EXAMPLE));
        headers.insert("host", HeaderValue::from_static("iam.amazonaws.com"));
        headers.insert("x-amz-date", HeaderValue::from_static("20150830T123600Z"));
        headers.insert(
            "content-type",
            HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"),
        );
        let key = AccessKey {
            id: "AKIDEXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        };
        (headers, vec![key], "2015-08-30T12:40:00Z".parse().unwrap())
    }

    fn check(
        headers: &HeaderMap,
        keys: &[AccessKey],
        now: DateTime<Utc>,
        body: &[u8],
    ) -> Result<(), Fault> {
        let query = "Version=2010-05-08&Action=ListUsers";
        verify(
            &Signed {
                method: "GET",
                path: "/",
                query,
                headers,
            },
            body,
            keys,
            "iam",
            now,
        )
    }

    #[test]
    fn the_published_example_of_aws_verifies() {
        let (headers, keys, now) = example();
        assert_eq!(check(&headers, &keys, now, b""), Ok(()));
    }

    #[test]
    fn another_body_secret_header_or_date_is_refused_with_the_right_code() {
        let (headers, keys, now) = example();
        let code = |result: Result<(), Fault>| result.unwrap_err().code;
        assert_eq!(
            code(check(&headers, &keys, now, b"{}")),
            "InvalidSignatureException"
        );
        let wrong_secret = [AccessKey {
            secret: "other".into(),
            ..keys[0].clone()
        }];
        assert_eq!(
            code(check(&headers, &wrong_secret, now, b"")),
            "InvalidSignatureException"
        );
        let unknown = [AccessKey {
            id: "AKIDOTHER".into(),
            ..keys[0].clone()
        }];
        assert_eq!(
            code(check(&headers, &unknown, now, b"")),
            "UnrecognizedClientException"
        );
        let late = check(&headers, &keys, now + TimeDelta::minutes(12), b"").unwrap_err();
        assert!(
            late.code == "InvalidSignatureException"
                && late.message.starts_with("Signature expired"),
            "{late}"
        );
        let early = check(&headers, &keys, now - TimeDelta::minutes(20), b"").unwrap_err();
        assert!(
            early.message.starts_with("Signature not yet current"),
            "{early}"
        );
        let mut moved = headers.clone();
        moved.insert("host", HeaderValue::from_static("elsewhere"));
        assert_eq!(
            code(check(&moved, &keys, now, b"")),
            "InvalidSignatureException"
        );
        let mut unsigned = headers.clone();
        unsigned.insert("x-amz-target", HeaderValue::from_static("X.DeleteModel"));
        assert!(
            check(&unsigned, &keys, now, b"")
                .unwrap_err()
                .message
                .contains("x-amz-target")
        );
        let mut bare = headers.clone();
        bare.remove("authorization");
        assert_eq!(
            code(check(&bare, &keys, now, b"")),
            "MissingAuthenticationTokenException"
        );
    }

    #[test]
    fn the_scopes_date_is_the_requests_whole_day_and_a_session_token_is_no_ones() {
        let (headers, keys, now) = example();
        for day in ["2015083", "201508301", "2015", ""] {
            let mut headers = headers.clone();
            let other = EXAMPLE.replace("/20150830/", &format!("/{day}/"));
            headers.insert("authorization", HeaderValue::from_str(&other).unwrap());
            let fault = check(&headers, &keys, now, b"").unwrap_err();
            assert!(fault.message.contains("YYYYMMDD"), "{day}: {fault}");
        }
        let mut with_token = headers.clone();
        with_token.insert("x-amz-security-token", HeaderValue::from_static("token"));
        let fault = check(&with_token, &keys, now, b"").unwrap_err();
        assert_eq!(fault.code, "UnrecognizedClientException");
        assert!(fault.message.contains("AWS_SESSION_TOKEN"), "{fault}");
    }

    #[test]
    fn a_query_is_sorted_by_name_and_then_by_value() {
        let headers = HeaderMap::from_iter([(hyper::header::HOST, HeaderValue::from_static("h"))]);
        let request = Signed {
            method: "GET",
            path: "/",
            query: "a-b=1&a=2&b&a=10&%41=z",
            headers: &headers,
        };
        let canonical = canonical_request(&request, "host", "digest").unwrap();
        assert_eq!(canonical.lines().nth(2), Some("%41=z&a=10&a=2&a-b=1&b="));
    }

    #[test]
    fn malformed_authorization_headers_are_incomplete_signatures() {
        let (headers, keys, now) = example();
        for bad in [
            "Basic abc",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=00",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, SignedHeaders=host",
        ] {
            let mut headers = headers.clone();
            headers.insert("authorization", HeaderValue::from_static(bad));
            assert_eq!(
                check(&headers, &keys, now, b"").unwrap_err().code,
                "IncompleteSignature",
                "{bad}"
            );
        }
    }

    #[test]
    fn a_secret_never_reaches_a_debug_print() {
        let (_, keys, _) = example();
        assert!(!format!("{:?}", keys[0]).contains("wJalr"));
    }
}
