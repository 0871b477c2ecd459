//! Copies within the store: bytes stay where they are, conditions are judged on source and target at once.

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::{Store, answer, class, etag, no_customer_key, objects, only_null, tags, time};
use crate::store::conditions::Conditions;
use crate::store::facts::Facts;
use crate::store::objects::Relabel;

pub async fn copy_object(
    store: &Store,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let input = request.input;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    no_customer_key(input.copy_source_sse_customer_algorithm.as_ref())?;
    objects::check_key(&input.key)?;
    let source = source_of(&input.copy_source)?;
    let of_target = target_conditions(&request.headers)?;
    let replaced = |directive: Option<&str>| match directive {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(s3_error!(
            InvalidArgument,
            "Unknown directive: it is COPY or REPLACE."
        )),
    };
    let new_facts = replaced(
        input
            .metadata_directive
            .as_ref()
            .map(MetadataDirective::as_str),
    )?;
    let new_tags = replaced(
        input
            .tagging_directive
            .as_ref()
            .map(TaggingDirective::as_str),
    )?;
    let class = class(input.storage_class.as_ref())?;
    let (bucket, key) = (input.bucket, input.key);
    if source == (bucket.clone(), key.clone())
        && !new_facts
        && !new_tags
        && input.storage_class.is_none()
        && input.website_redirect_location.is_none()
    {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let relabel = Relabel {
        class,
        tags: match new_tags {
            true => Some(tags::of_header(input.tagging.as_deref())?),
            false => None,
        },
        redirect: input.website_redirect_location.clone(),
        facts: match new_facts {
            true => Some(facts!(input)?),
            false => None,
        },
    };
    let of_source = source_conditions!(input);
    let object = store
        .write(move |turn| {
            let from = (source.0.as_str(), source.1.as_str());
            objects::copy(
                turn,
                from,
                (&bucket, &key),
                relabel,
                (&of_source, &of_target),
            )
        })
        .await?;
    let sums = object.facts.to_checksum();
    answer(CopyObjectOutput {
        copy_object_result: Some(told!(
            sums,
            CopyObjectResult {
                checksum_type: sums.checksum_type,
                e_tag: Some(etag(&object.etag)),
                last_modified: Some(time(object.written_ms)),
            }
        )),
        ..CopyObjectOutput::default()
    })
}

/// The conditions on what a copy would replace, which the protocol's crate does not know.
fn target_conditions(headers: &HeaderMap) -> S3Result<Conditions> {
    let of = |name: HeaderName| -> S3Result<Option<ETagCondition>> {
        let Some(value) = headers.get(&name) else {
            return Ok(None);
        };
        let parsed = ETagCondition::parse_http_header(value.as_bytes());
        let parsed =
            parsed.map_err(|_| s3_error!(InvalidArgument, "The header {name} holds no ETag"))?;
        Ok(Some(parsed))
    };
    Ok(Conditions {
        if_match: of(IF_MATCH)?,
        if_none_match: of(IF_NONE_MATCH)?,
        ..Conditions::default()
    })
}

/// Bucket and key of a source.
pub fn source_of(source: &CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket {
            bucket,
            key,
            version_id,
        } => {
            only_null(version_id.as_deref())?;
            Ok((bucket.to_string(), key.to_string()))
        }
        _ => Err(s3_error!(
            NotImplemented,
            "Access points are not implemented by this store"
        )),
    }
}
