//! Reading objects: whole, in part, conditionally, and what is known of them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use s3s::dto::*;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::task::JoinHandle;

use super::{Store, answer, etag, no_customer_key, objects, only_null, tags, time};
use crate::store::bodies::{Reading, Spans};
use crate::store::checksums::Algorithm;
use crate::store::conditions::Conditions;
use crate::store::facts::Facts;
use crate::store::objects::Object;
use crate::store::{Problem, multipart, ranges};

/// What an object is when nothing was said of it.
const PLAIN: &str = "binary/octet-stream";

/// What is asked for, of either kind of read.
macro_rules! asked {
    ($of:expr) => {
        Asked {
            range: $of.range,
            part: $of.part_number,
            conditions: Conditions {
                if_match: $of.if_match,
                if_none_match: $of.if_none_match,
                if_modified_since: $of.if_modified_since,
                if_unmodified_since: $of.if_unmodified_since,
            },
            checksums: $of.checksum_mode.is_some(),
            bucket: $of.bucket,
            key: $of.key,
        }
    };
}

/// What both kinds of read tell of an object.
macro_rules! described {
    ($found:expr, $answer:ident) => {
        $answer {
            content_length: Some(($found.bytes.end - $found.bytes.start) as i64),
            accept_ranges: Some("bytes".into()),
            cache_control: $found.object.facts.cache_control.clone(),
            checksum_type: $found.checksum.checksum_type.clone(),
            content_disposition: $found.object.facts.content_disposition.clone(),
            content_encoding: $found.object.facts.content_encoding.clone(),
            content_language: $found.object.facts.content_language.clone(),
            content_range: $found.content_range(),
            content_type: $found.content_type(),
            e_tag: Some(etag(&$found.object.etag)),
            expires: $found.object.facts.expires_at(),
            last_modified: Some(time($found.object.written_ms)),
            metadata: $found.object.facts.to_metadata(),
            parts_count: $found.parts,
            storage_class: $found.class(),
            website_redirect_location: $found.object.facts.redirect.clone(),
            ..$answer::default()
        }
    };
}

/// What a read is about.
struct Asked {
    bucket: String,
    key: String,
    range: Option<Range>,
    part: Option<i32>,
    conditions: Conditions,
    checksums: bool,
}

/// What it found.
struct Found {
    object: Object,
    bytes: std::ops::Range<u64>,
    partial: bool,
    /// Of an object that was put together.
    parts: Option<i32>,
    checksum: Checksum,
}

impl Asked {
    fn find(&self, db: &rusqlite::Connection) -> Result<Found, Problem> {
        let object = objects::get(db, &self.bucket, &self.key)?;
        self.conditions
            .of_read(object.version())
            .map_err(|error| with_version(error, &object))?;
        let mut bytes = 0..object.size;
        let mut partial = false;
        let mut parts = None;
        let mut checksum = Checksum::default();
        if let Some(number) = self.part {
            if self.range.is_some() {
                return Err(s3_error!(
                    InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter"
                )
                .into());
            }
            let pieces = multipart::pieces(db, object.body)?;
            let missing = || s3_error!(InvalidPart, "The requested partnumber is not satisfiable");
            if pieces.is_empty() {
                if number != 1 {
                    return Err(missing().into());
                }
            } else {
                let at = usize::try_from(number - 1).ok();
                // Parts are counted; their numbers may have had gaps.
                let (_, start, size, sum) = at.and_then(|at| pieces.get(at)).ok_or_else(missing)?;
                bytes = *start..start + size;
                parts = Some(pieces.len() as i32);
                if let (Some(sum), Some(name)) = (sum, object.facts.checksums.keys().next()) {
                    checksum.checksum_type = object.facts.to_checksum().checksum_type;
                    Algorithm::named(name)?.put(&mut checksum, sum.clone());
                }
            }
            partial = object.size > 0;
        } else if let Some(range) = &self.range {
            bytes = ranges::of_header(range, object.size)?;
            partial = true;
        }
        if self.checksums && (!partial || bytes == (0..object.size)) && parts.is_none() {
            checksum = object.facts.to_checksum();
        }
        if !self.checksums {
            checksum = Checksum::default();
        }
        Ok(Found {
            object,
            bytes,
            partial,
            parts,
            checksum,
        })
    }
}

impl Found {
    fn content_range(&self) -> Option<String> {
        self.partial
            .then(|| ranges::to_header(&self.bytes, self.object.size))
    }

    fn class(&self) -> Option<StorageClass> {
        self.object.class.clone().map(StorageClass::from)
    }

    fn content_type(&self) -> Option<String> {
        let said = self.object.facts.content_type.clone();
        Some(said.unwrap_or_else(|| PLAIN.to_owned()))
    }

    fn tag_count(&self) -> Option<i32> {
        let count = self.object.tags.len();
        (count > 0).then_some(count as i32)
    }
}

/// Says which version it was that the client has already.
fn with_version(mut error: S3Error, object: &Object) -> S3Error {
    if *error.code() == S3ErrorCode::NotModified {
        let mut headers = hyper::HeaderMap::new();
        if let Ok(etag) = etag(&object.etag).to_http_header() {
            headers.insert(hyper::header::ETAG, etag);
        }
        let mut modified = Vec::new();
        if time(object.written_ms)
            .format(TimestampFormat::HttpDate, &mut modified)
            .is_ok()
            && let Ok(modified) = hyper::header::HeaderValue::from_bytes(&modified)
        {
            headers.insert(hyper::header::LAST_MODIFIED, modified);
        }
        error.set_headers(headers);
    }
    error
}

pub async fn get_object(
    store: &Store,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = request.input;
    only_null(input.version_id.as_deref())?;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    let asked = asked!(input);
    let name = (asked.bucket.clone(), asked.key.clone());
    let reader = store.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<_, Problem> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let reading = reader.lookup(move |db| {
            let found = asked.find(db)?;
            let spans = Spans::of(db, found.object.body, found.bytes.clone())?;
            let _ = sender.send(found);
            Ok(Some(spans))
        });
        let found = reading?.zip(receiver.recv().ok());
        let (mut reading, found) = found.ok_or(Problem::Closed)?;
        // What is damaged at its beginning is no 200.
        let first = reading.read_on()?;
        Ok((found, reading, first))
    });
    let opened = opened.await.map_err(S3Error::internal_error)?;
    let (found, reading, first) =
        opened.inspect_err(|problem| store.note_damage(&name.0, &name.1, problem))?;
    let length = found.bytes.end - found.bytes.start;
    let body = Sending {
        of: (store.clone(), name.0, name.1),
        first,
        left: length as usize,
        state: State::Idle(Some(Box::new(reading))),
    };
    let checksum = found.checksum.clone();
    answer(told!(
        checksum,
        GetObjectOutput {
            body: Some(StreamingBlob::new(body)),
            tag_count: found.tag_count(),
            ..described!(found, GetObjectOutput)
        }
    ))
}

pub async fn head_object(
    store: &Store,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = request.input;
    only_null(input.version_id.as_deref())?;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    let asked = asked!(input);
    let found = store.read(move |db| asked.find(db)).await?;
    let checksum = found.checksum.clone();
    let mut headers = hyper::HeaderMap::new();
    if let Some(count) = found.tag_count() {
        headers.insert("x-amz-tagging-count", count.into());
    }
    for (name, said) in [
        (hyper::header::CONTENT_TYPE, input.response_content_type),
        (
            hyper::header::CONTENT_LANGUAGE,
            input.response_content_language,
        ),
        (hyper::header::CACHE_CONTROL, input.response_cache_control),
        (
            hyper::header::CONTENT_DISPOSITION,
            input.response_content_disposition,
        ),
        (
            hyper::header::CONTENT_ENCODING,
            input.response_content_encoding,
        ),
    ] {
        if let Some(Ok(value)) = said.map(|said| said.parse()) {
            headers.insert(name, value);
        }
    }
    let expires = Facts::expires(input.response_expires);
    if let Some(Ok(value)) = expires.map(|expires| expires.parse()) {
        headers.insert(hyper::header::EXPIRES, value);
    }
    // The crate of the protocol answers 200; `embedded` makes 206 of it where a part was asked for.
    let output = told!(
        checksum,
        HeadObjectOutput {
            ..described!(found, HeadObjectOutput)
        }
    );
    Ok(S3Response::with_headers(output, headers))
}

pub async fn get_object_attributes(
    store: &Store,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = request.input;
    only_null(input.version_id.as_deref())?;
    no_customer_key(input.sse_customer_algorithm.as_ref())?;
    // The header may hold several in one line.
    let wanted: Vec<String> = input
        .object_attributes
        .iter()
        .flat_map(|names| names.as_str().split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    let wants = |name: &str| wanted.iter().any(|wanted| wanted == name);
    if let Some(unknown) = wanted.iter().find(|name| {
        ![
            "ETag",
            "Checksum",
            "ObjectParts",
            "StorageClass",
            "ObjectSize",
        ]
        .contains(&name.as_str())
    }) {
        return Err(s3_error!(
            InvalidArgument,
            "Invalid attribute name specified: {unknown}"
        ));
    }
    let (bucket, key) = (input.bucket, input.key);
    let (object, pieces) = store
        .read(move |db| {
            let object = objects::get(db, &bucket, &key)?;
            let pieces = multipart::pieces(db, object.body)?;
            Ok((object, pieces))
        })
        .await?;
    let checksum = object.facts.to_checksum();
    let algorithm = object.facts.checksums.keys().next().cloned();
    let parts = (!pieces.is_empty()).then(|| {
        let most = input.max_parts.map_or(1000, |most| most.clamp(0, 1000)) as usize;
        let after = input.part_number_marker.unwrap_or(0);
        let total = pieces.len() as i32;
        let mut left: Vec<_> = pieces.into_iter().filter(|piece| piece.0 > after).collect();
        let more = left.len() > most;
        left.truncate(most);
        let next = left.last().map(|piece| piece.0);
        let told = left.into_iter().map(|(number, _, size, sum)| {
            let mut sums = Checksum::default();
            if let (Some(sum), Some(Ok(algorithm))) =
                (sum, algorithm.as_deref().map(Algorithm::named))
            {
                algorithm.put(&mut sums, sum);
            }
            told!(
                sums,
                ObjectPart {
                    part_number: Some(number),
                    size: Some(size as i64),
                }
            )
        });
        GetObjectAttributesParts {
            is_truncated: Some(more),
            max_parts: Some(most as i32),
            next_part_number_marker: next,
            part_number_marker: Some(after),
            parts: Some(told.collect()),
            total_parts_count: Some(total),
        }
    });
    answer(GetObjectAttributesOutput {
        checksum: (wants("Checksum") && !object.facts.checksums.is_empty()).then_some(checksum),
        e_tag: wants("ETag").then(|| etag(&object.etag)),
        last_modified: Some(time(object.written_ms)),
        object_parts: parts.filter(|_| wants("ObjectParts")),
        object_size: wants("ObjectSize").then_some(object.size as i64),
        storage_class: wants("StorageClass")
            .then(|| StorageClass::from(object.class.unwrap_or_else(|| "STANDARD".into()))),
        ..GetObjectAttributesOutput::default()
    })
}

pub async fn get_object_tagging(
    store: &Store,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    only_null(input.version_id.as_deref())?;
    let object = store
        .read(move |db| objects::get(db, &input.bucket, &input.key))
        .await?;
    answer(GetObjectTaggingOutput {
        tag_set: tags::to_set(object.tags),
        version_id: None,
    })
}

/// A body on its way to the client, some blocks at a time.
struct Sending {
    of: (Store, String, String),
    first: Option<Bytes>,
    left: usize,
    state: State,
}

/// The next block of a body, and the reading that goes on after it.
type Block = (Box<Reading>, Result<Option<Bytes>, Problem>);

enum State {
    Idle(Option<Box<Reading>>),
    Busy(JoinHandle<Block>),
}

impl Stream for Sending {
    type Item = Result<Bytes, s3s::StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            self.left = self.left.saturating_sub(first.len());
            return Poll::Ready(Some(Ok(first)));
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        loop {
            match &mut self.state {
                State::Idle(reading) => {
                    let Some(mut reading) = reading.take() else {
                        return Poll::Ready(None);
                    };
                    let read = tokio::task::spawn_blocking(move || {
                        let next = reading.read_on();
                        (reading, next)
                    });
                    self.state = State::Busy(read);
                }
                State::Busy(read) => {
                    let (reading, next) = match ready!(Pin::new(read).poll(cx)) {
                        Ok(done) => done,
                        Err(error) => {
                            self.state = State::Idle(None);
                            return Poll::Ready(Some(Err(error.into())));
                        }
                    };
                    let bytes = match next {
                        Ok(bytes) => bytes,
                        Err(problem) => {
                            self.state = State::Idle(None);
                            let (store, bucket, key) = &self.of;
                            store.note_damage(bucket, key, &problem);
                            return Poll::Ready(Some(Err(problem.into())));
                        }
                    };
                    self.state = State::Idle(Some(reading));
                    if let Some(bytes) = &bytes {
                        self.left = self.left.saturating_sub(bytes.len());
                    }
                    return Poll::Ready(bytes.map(Ok));
                }
            }
        }
    }
}

impl ByteStream for Sending {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.left)
    }
}
