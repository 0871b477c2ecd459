//! Writing objects: bodies come in, are compared with what was said of them, and are put in their place.

use aws_smithy_types::base64;
use bytes::BytesMut;
use futures_util::StreamExt;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use hyper::http::Extensions;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use super::{Store, answer, class, etag, no_customer_key, objects, only_null, tags};
use crate::store::bodies::{Draft, Intake};
use crate::store::checksums::{self, Algorithm, Passed};
use crate::store::conditions::{Conditions, same, seconds};
use crate::store::facts::Facts;
use crate::store::objects::{Labels, hex};
use crate::store::{Problem, listing};

/// The largest body of one request.
const LARGEST: u64 = 5 << 30;
/// So much is handed to the disk at once.
const AT_ONCE: usize = 1 << 20;

/// What was said of a body.
#[derive(Debug, Default)]
pub struct Said {
    /// How long it is.
    pub length: Option<i64>,
    /// Its checksums, as far as they came before it.
    pub checksums: Checksum,
    /// Those that come after it.
    pub trailing: Option<TrailingHeaders>,
    /// Its MD5 sum.
    pub md5: Option<String>,
    /// The kind that is to be kept.
    pub algorithm: Option<Algorithm>,
}

impl Said {
    /// The kinds that headers name, beside those whose values they hold.
    pub fn algorithm_of(headers: &HeaderMap) -> S3Result<Option<Algorithm>> {
        for name in ["x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"] {
            if let Some(Ok(value)) = headers.get(name).map(|value| value.to_str()) {
                return Algorithm::named(value).map(Some);
            }
        }
        let trailer = headers
            .get("x-amz-trailer")
            .and_then(|value| value.to_str().ok());
        Ok(trailer.and_then(|trailer| {
            let names = trailer
                .split(',')
                .map(|name| name.trim().to_ascii_lowercase());
            let mut known = names.filter_map(|name| {
                Algorithm::ALL
                    .into_iter()
                    .find(|algorithm| algorithm.header() == name)
            });
            known.next()
        }))
    }

    /// The Content-MD5, which may not be empty.
    pub fn md5_of(headers: &HeaderMap) -> S3Result<Option<String>> {
        let Some(value) = headers.get("content-md5") else {
            return Ok(None);
        };
        let value = value.to_str().unwrap_or_default();
        match base64::decode(value) {
            Ok(sum) if sum.len() == 16 => Ok(Some(value.to_owned())),
            _ => Err(s3_error!(
                InvalidDigest,
                "The Content-MD5 you specified was invalid."
            )),
        }
    }
}

/// Takes a body in, and refuses it if it is not what was said.
pub async fn receive(store: &Store, body: Option<StreamingBlob>, said: &Said) -> S3Result<Draft> {
    if said.length.is_some_and(|length| length as u64 > LARGEST) {
        return Err(s3_error!(
            EntityTooLarge,
            "Your proposed upload exceeds the maximum allowed size"
        ));
    }
    let mut wanted: Vec<Algorithm> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| algorithm.of(&said.checksums).is_some())
        .collect();
    if let Some(algorithm) = said.algorithm
        && !wanted.contains(&algorithm)
    {
        wanted.push(algorithm);
    }
    let mut intake = Intake::new(&store.inner.files, checksums::hasher(&wanted));
    let mut waiting = BytesMut::new();
    let mut received = 0u64;
    if let Some(mut body) = body {
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(broken)?;
            received += bytes.len() as u64;
            if received > LARGEST {
                return Err(s3_error!(
                    EntityTooLarge,
                    "Your proposed upload exceeds the maximum allowed size"
                ));
            }
            waiting.extend_from_slice(&bytes);
            if waiting.len() >= AT_ONCE {
                let now = std::mem::take(&mut waiting);
                intake = blocking(store, move || {
                    intake.write(&now)?;
                    Ok(intake)
                })
                .await?;
            }
        }
    }
    if said.length.is_some_and(|length| length as u64 != received) {
        return Err(s3_error!(
            IncompleteBody,
            "You did not provide the number of bytes specified by the Content-Length HTTP header"
        ));
    }
    let small = received <= crate::store::bodies::IN_ROW as u64;
    let end = move || {
        intake.write(&waiting)?;
        Ok(intake.finish()?)
    };
    let draft = if small {
        end()?
    } else {
        blocking(store, end).await?
    };
    let mut sent = said.checksums.clone();
    if let Some(trailing) = said.trailing.as_ref().and_then(TrailingHeaders::take) {
        for algorithm in Algorithm::ALL {
            if let Some(Ok(sum)) = trailing.get(algorithm.header()).map(|sum| sum.to_str()) {
                algorithm.put(&mut sent, sum.to_owned());
            }
        }
    }
    checksums::compare(&sent, &draft.checksums)?;
    if let Some(md5) = &said.md5 {
        checksums::compare_md5(md5, draft.md5)?;
    }
    Ok(draft)
}

/// Does what waits for the disk.
async fn blocking<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> S3Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(S3Error::internal_error)?;
    Ok(done.inspect_err(|problem| store.note_refusal(problem))?)
}

/// Why a body did not come in whole.
fn broken(error: s3s::StdError) -> S3Error {
    let text = error.to_string();
    let lower = text.to_ascii_lowercase();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
    while let Some(one) = cause {
        if one
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut)
        {
            return s3_error!(
                RequestTimeout,
                "Your socket connection to the server was not read from or written to within the timeout period."
            );
        }
        cause = one.source();
    }
    if lower.contains("signature") {
        return s3_error!(
            SignatureDoesNotMatch,
            "A chunk of the body is not what was signed"
        );
    }
    if lower.contains("checksum") || lower.contains("sha256") || lower.contains("hash") {
        let mut error = S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        );
        error.set_status_code(hyper::StatusCode::BAD_REQUEST);
        return error;
    }
    S3Error::with_message(
        S3ErrorCode::IncompleteBody,
        format!("The request body terminated unexpectedly: {text}"),
    )
}

pub async fn put_object(
    store: &Store,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let md5 = Said::md5_of(&request.headers)?;
    let algorithm = match &request.input.checksum_algorithm {
        Some(named) => Some(Algorithm::named(named.as_str())?),
        None => Said::algorithm_of(&request.headers)?,
    };
    let trailing = request.trailing_headers;
    let input = request.input;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    objects::check_key(&input.key)?;
    if input.write_offset_bytes.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "Appending to objects is not implemented by this store"
        ));
    }
    let mut labels = Labels {
        class: class(input.storage_class.as_ref())?,
        tags: tags::of_header(input.tagging.as_deref())?,
        facts: facts!(input)?,
    };
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        ..Conditions::default()
    };
    let (bucket, key) = (input.bucket, input.key);
    let name = bucket.clone();
    // Before the body: what has no place is not taken in.
    store.read(move |db| objects::bucket(db, &name)).await?;
    let said = Said {
        length: input.content_length,
        checksums: said!(input),
        trailing,
        md5,
        algorithm,
    };
    let draft = receive(store, input.body, &said).await?;
    labels.facts.keep(&draft.checksums);
    let tag = hex(&draft.md5);
    let sums = labels.facts.to_checksum();
    store
        .write(move |turn| objects::put(turn, &bucket, &key, draft, &labels, &conditions))
        .await?;
    answer(told!(
        sums,
        PutObjectOutput {
            checksum_type: sums.checksum_type,
            e_tag: Some(etag(&tag)),
            ..PutObjectOutput::default()
        }
    ))
}

/// A form's fields are those of a PUT, except that its tags are XML.
pub async fn post_object(
    store: &Store,
    request: S3Request<PostObjectInput>,
) -> S3Result<S3Response<PostObjectOutput>> {
    let mut request = request.map_input(fields);
    if let Some(text) = request.input.tagging.take() {
        let set = if text.trim_start().starts_with('<') {
            let mut xml = s3s::xml::Deserializer::new(text.as_bytes());
            let tagging = <Tagging as s3s::xml::Deserialize>::deserialize(&mut xml);
            let tagging =
                tagging.map_err(|_| s3_error!(MalformedXML, "The tags are not well-formed"))?;
            let tags = tags::of_set(tagging.tag_set, tags::OF_OBJECT)?;
            let encode = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                    .to_string()
            };
            let pairs = tags
                .iter()
                .map(|(name, value)| format!("{}={}", encode(name), encode(value)));
            pairs.collect::<Vec<_>>().join("&")
        } else {
            text
        };
        request.input.tagging = Some(set);
    }
    // The form's own headers are about the form; what its fields say is about the file.
    request.headers.remove("content-md5");
    if let Some(md5) = &request.input.content_md5 {
        let md5 = md5.parse().unwrap_or(HeaderValue::from_static("none"));
        request.headers.insert("content-md5", md5);
    }
    let response = put_object(store, request).await?;
    Ok(response.map_output(|put| {
        told!(
            put,
            PostObjectOutput {
                checksum_type: put.checksum_type,
                e_tag: put.e_tag,
                ..PostObjectOutput::default()
            }
        )
    }))
}

/// The fields of a form that this store takes, as a PUT.
fn fields(form: PostObjectInput) -> PutObjectInput {
    PutObjectInput {
        body: form.body,
        bucket: form.bucket,
        cache_control: form.cache_control,
        checksum_algorithm: form.checksum_algorithm,
        checksum_crc32: form.checksum_crc32,
        checksum_crc32c: form.checksum_crc32c,
        checksum_crc64nvme: form.checksum_crc64nvme,
        checksum_sha1: form.checksum_sha1,
        checksum_sha256: form.checksum_sha256,
        content_disposition: form.content_disposition,
        content_encoding: form.content_encoding,
        content_language: form.content_language,
        content_length: form.content_length,
        content_md5: form.content_md5,
        content_type: form.content_type,
        expires: form.expires,
        if_match: form.if_match,
        if_none_match: form.if_none_match,
        key: form.key,
        metadata: form.metadata,
        sse_customer_algorithm: form.sse_customer_algorithm,
        storage_class: form.storage_class,
        tagging: form.tagging,
        website_redirect_location: form.website_redirect_location,
        ..PutObjectInput::default()
    }
}

/// Compares the body of a request that is no object's with what its headers say of it.
pub fn whole_body(headers: &HeaderMap, extensions: &Extensions) -> S3Result<()> {
    let Some(passed) = extensions.get::<Passed>() else {
        return Ok(());
    };
    let md5 = Said::md5_of(headers)?;
    let mut said = Checksum::default();
    for algorithm in Algorithm::ALL {
        if let Some(Ok(sum)) = headers.get(algorithm.header()).map(|sum| sum.to_str()) {
            algorithm.put(&mut said, sum.to_owned());
        }
    }
    let (found, found_md5) = passed.finish();
    checksums::compare(&said, &found)?;
    md5.map_or(Ok(()), |md5| checksums::compare_md5(&md5, found_md5))
}

pub async fn delete_object(
    store: &Store,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    objects::check_key(&input.key)?;
    // A version that is not there is deleted already.
    let is_there = only_null(input.version_id.as_deref()).is_ok();
    store
        .write(move |turn| {
            let bucket = objects::bucket(turn.db, &input.bucket)?;
            if !is_there {
                return Ok(());
            }
            objects::remove(turn, bucket, &input.key, |there| {
                let conditions = Conditions {
                    if_match: input.if_match.clone(),
                    ..Conditions::default()
                };
                conditions.of_write(Some(there.version()))?;
                holds(
                    there,
                    input.if_match_last_modified_time.as_ref(),
                    input.if_match_size,
                )
            })
        })
        .await?;
    answer(DeleteObjectOutput::default())
}

/// The conditions of a deletion beside its ETag.
fn holds(there: &objects::Object, modified: Option<&Timestamp>, size: Option<i64>) -> S3Result<()> {
    let other_time =
        modified.is_some_and(|time| seconds(time) != there.written_ms.div_euclid(1000));
    let other_size = size.is_some_and(|size| size as u64 != there.size);
    if other_time || other_size {
        return Err(s3_error!(
            PreconditionFailed,
            "At least one of the pre-conditions you specified did not hold"
        ));
    }
    Ok(())
}

pub async fn delete_objects(
    store: &Store,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    whole_body(&request.headers, &request.extensions)?;
    let input = request.input;
    let quiet = input.delete.quiet.unwrap_or(false);
    let wanted = input.delete.objects;
    if wanted.is_empty() || wanted.len() > listing::MOST {
        return Err(s3_error!(
            MalformedXML,
            "The XML you provided was not well-formed or did not validate against our published schema: between 1 and {} keys",
            listing::MOST
        ));
    }
    let name = input.bucket;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    let outcomes = store
        .write(move |turn| {
            let bucket = objects::bucket(turn.db, &name)?;
            let mut outcomes = Vec::with_capacity(wanted.len());
            for one in wanted {
                let done = delete_one(turn, bucket, &one);
                let refused = match done {
                    Ok(()) => None,
                    Err(Problem::Refused(error)) => Some(error),
                    Err(problem) => return Err(problem),
                };
                outcomes.push((one, refused));
            }
            Ok(outcomes)
        })
        .await?;
    for (one, refused) in outcomes {
        match refused {
            None if quiet => {}
            None => deleted.push(DeletedObject {
                key: Some(one.key),
                version_id: one.version_id,
                ..DeletedObject::default()
            }),
            Some(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(one.key),
                message: error.message().map(str::to_owned),
                version_id: one.version_id,
            }),
        }
    }
    answer(DeleteObjectsOutput {
        deleted: (!deleted.is_empty()).then_some(deleted),
        errors: (!errors.is_empty()).then_some(errors),
        request_charged: None,
    })
}

fn delete_one(
    turn: &mut crate::store::commit::Turn<'_>,
    bucket: i64,
    one: &ObjectIdentifier,
) -> Result<(), Problem> {
    objects::check_key(&one.key)?;
    if only_null(one.version_id.as_deref()).is_err() {
        return Ok(());
    }
    objects::remove(turn, bucket, &one.key, |there| {
        if one
            .e_tag
            .as_ref()
            .is_some_and(|wanted| wanted.value() != "*" && !same(wanted, &there.etag))
        {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        holds(there, one.last_modified_time.as_ref(), one.size)
    })
}

pub async fn put_object_tagging(
    store: &Store,
    request: S3Request<PutObjectTaggingInput>,
) -> S3Result<S3Response<PutObjectTaggingOutput>> {
    whole_body(&request.headers, &request.extensions)?;
    let input = request.input;
    only_null(input.version_id.as_deref())?;
    let tags = tags::of_set(input.tagging.tag_set, tags::OF_OBJECT)?;
    store
        .write(move |turn| objects::tag(turn, &input.bucket, &input.key, &tags))
        .await?;
    answer(PutObjectTaggingOutput::default())
}

pub async fn delete_object_tagging(
    store: &Store,
    request: S3Request<DeleteObjectTaggingInput>,
) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
    let input = request.input;
    only_null(input.version_id.as_deref())?;
    store
        .write(move |turn| objects::tag(turn, &input.bucket, &input.key, &Vec::new()))
        .await?;
    answer(DeleteObjectTaggingOutput::default())
}
