//! Several ranges in one header, or what is none: S3 answers with the whole object, the protocol's crate with a refusal.
//!
//! A request is signed with the header that it has, so that is looked at first and taken away afterwards.

use hyper::header::{AUTHORIZATION, RANGE};
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Request, Uri};
use s3s::dto::Range;
use s3s::route::S3Route;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::answers::Hosts;
use crate::store::service::Service;

/// Parameters of a presigned request that say who signed it, in lower case.
const SIGNED: [&str; 3] = ["awsaccesskeyid", "signature", "expires"];

/// Answers with the whole object.
pub struct Whole {
    /// The protocol without signatures, behind the one that has looked at them.
    plain: S3Service,
}

impl Whole {
    pub fn of(service: Service) -> Self {
        let mut builder = S3ServiceBuilder::new(service);
        builder.set_host(Hosts);
        Self {
            plain: builder.build(),
        }
    }
}

#[async_trait::async_trait]
impl S3Route for Whole {
    fn is_match(&self, method: &Method, _: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        let nothing_to_it = headers.get(RANGE).is_some_and(|range| {
            let parsed = range.to_str().ok().map(Range::parse);
            !matches!(parsed, Some(Ok(_)))
        });
        nothing_to_it && (method == Method::GET || method == Method::HEAD)
    }

    async fn call(&self, signed: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = signed.method;
        *request.uri_mut() = unsigned(&signed.uri)?;
        *request.headers_mut() = signed.headers;
        request.headers_mut().remove(RANGE);
        request.headers_mut().remove(AUTHORIZATION);
        let answer = self
            .plain
            .call(request)
            .await
            .map_err(|error| S3Error::with_source(S3ErrorCode::InternalError, error.into()))?;
        let (head, body) = answer.into_parts();
        let mut response = S3Response::with_headers(body, head.headers);
        response.status = Some(head.status);
        Ok(response)
    }
}

/// An address without what signed it.
fn unsigned(uri: &Uri) -> S3Result<Uri> {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair
            .split('=')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        !name.starts_with("x-amz-") && !SIGNED.contains(&name.as_str())
    });
    let query: Vec<&str> = kept.collect();
    let text = match query.join("&") {
        none if none.is_empty() => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    text.parse().map_err(S3Error::internal_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signed_an_address_is_taken_away_and_nothing_else() {
        let of = |text: &str| unsigned(&text.parse().unwrap()).unwrap().to_string();
        let signed =
            "/b/a%20b?versionId=null&X-Amz-Signature=ab&X-Amz-Expires=60&response-expires=x";
        assert_eq!(of(signed), "/b/a%20b?versionId=null&response-expires=x");
        assert_eq!(of("/b/k?AWSAccessKeyId=a&Signature=b&Expires=1"), "/b/k");
    }
}
