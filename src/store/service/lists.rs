//! ListObjects, its second version, and the versions of objects that have one each.

use aws_smithy_types::base64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::{Store, answer, etag, objects, owner, time};
use crate::store::listing::{self, Asked, Entry, Line, MOST, Page};
use crate::store::opening::in_one_snapshot;

/// What `encoding-type=url` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*')
    .remove(b'/');

/// How names are written into the answer.
#[derive(Clone, Copy)]
pub struct Names {
    encode: bool,
}

impl Names {
    pub fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self { encode: false }),
            Some("url") => Ok(Self { encode: true }),
            Some(_) => Err(s3_error!(
                InvalidArgument,
                "Invalid Encoding Method specified in Request"
            )),
        }
    }

    pub fn shown(self, text: String) -> String {
        if self.encode {
            utf8_percent_encode(&text, PLAIN).to_string()
        } else {
            text
        }
    }

    pub fn told(self) -> Option<EncodingType> {
        self.encode
            .then(|| EncodingType::from_static(EncodingType::URL))
    }
}

fn most(asked: Option<i32>) -> S3Result<usize> {
    match asked {
        None => Ok(MOST),
        Some(most) if most < 0 => Err(s3_error!(
            InvalidArgument,
            "Argument maxKeys must be an integer between 0 and 2147483647"
        )),
        Some(most) => Ok((most as usize).min(MOST)),
    }
}

async fn page(store: &Store, bucket: &str, asked: Asked) -> S3Result<Page> {
    let name = bucket.to_owned();
    let page = store
        .read(move |db| {
            in_one_snapshot(db, |db| {
                let bucket = objects::bucket(db, &name)?;
                listing::page(db, bucket, &asked)
            })
        })
        .await?;
    Ok(page)
}

fn object(line: Line, names: Names, told_owner: bool) -> Object {
    Object {
        e_tag: Some(etag(&line.etag)),
        key: Some(names.shown(line.key)),
        last_modified: Some(time(line.written_ms)),
        owner: told_owner.then(owner),
        size: Some(line.size as i64),
        storage_class: Some(match line.class {
            Some(class) => ObjectStorageClass::from(class),
            None => ObjectStorageClass::from_static(ObjectStorageClass::STANDARD),
        }),
        ..Object::default()
    }
}

/// Lines and common prefixes apart.
fn split(entries: Vec<Entry>, names: Names, told_owner: bool) -> (Vec<Object>, Vec<CommonPrefix>) {
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Entry::Object(line) => contents.push(object(line, names, told_owner)),
            Entry::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(names.shown(prefix)),
            }),
        }
    }
    (contents, prefixes)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn delimiter(asked: &Option<String>) -> Option<String> {
    asked.clone().filter(|delimiter| !delimiter.is_empty())
}

/// What the listings ask for that go on after a marker.
fn after_marker(prefix: &Option<String>, by: &Option<String>, marker: &str, most: usize) -> Asked {
    let mut asked = Asked {
        prefix: prefix.clone().unwrap_or_default(),
        delimiter: delimiter(by),
        after: marker.to_owned(),
        told: None,
        most,
    };
    // A marker that is a common prefix has been told.
    asked.told = (asked.rolled_up(marker) == Some(marker)).then(|| marker.to_owned());
    asked
}

pub async fn list_objects(
    store: &Store,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let names = Names::of(input.encoding_type.as_ref())?;
    let most = most(input.max_keys)?;
    let marker = input.marker.clone().unwrap_or_default();
    let asked = after_marker(&input.prefix, &input.delimiter, &marker, most);
    let delimited = asked.delimiter.clone();
    let page = page(store, &input.bucket, asked).await?;
    let last = page.entries.last().map(|entry| entry.name().to_owned());
    let next = last.filter(|_| page.more && delimited.is_some());
    let (contents, prefixes) = split(page.entries, names, true);
    answer(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.shown(input.prefix.unwrap_or_default())),
        marker: Some(names.shown(marker)),
        max_keys: Some(input.max_keys.unwrap_or(MOST as i32)),
        is_truncated: Some(page.more),
        contents: some(contents),
        common_prefixes: some(prefixes),
        delimiter: delimited.map(|delimiter| names.shown(delimiter)),
        next_marker: next.map(|next| names.shown(next)),
        encoding_type: names.told(),
        request_charged: None,
    })
}

pub async fn list_objects_v2(
    store: &Store,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let names = Names::of(input.encoding_type.as_ref())?;
    let most = most(input.max_keys)?;
    // Opaque, so that a key with control characters is none of the XML's trouble.
    let told = match input.continuation_token.as_deref() {
        None | Some("") => None,
        Some(token) => {
            let decoded = base64::decode(token)
                .ok()
                .and_then(|key| String::from_utf8(key).ok());
            let unknown = || {
                s3_error!(
                    InvalidArgument,
                    "The continuation token provided is incorrect"
                )
            };
            Some(decoded.ok_or_else(unknown)?)
        }
    };
    let start = input.start_after.clone().unwrap_or_default();
    let asked = Asked {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: delimiter(&input.delimiter),
        after: told.clone().unwrap_or_default().max(start),
        told,
        most,
    };
    let delimited = asked.delimiter.clone();
    let page = page(store, &input.bucket, asked).await?;
    let next = page.entries.last().filter(|_| page.more);
    let next = next.map(|entry| base64::encode(entry.name()));
    let count = page.entries.len() as i32;
    let (contents, prefixes) = split(page.entries, names, input.fetch_owner.unwrap_or(false));
    answer(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.shown(input.prefix.unwrap_or_default())),
        max_keys: Some(input.max_keys.unwrap_or(MOST as i32)),
        key_count: Some(count),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.more),
        next_continuation_token: next,
        contents: some(contents),
        common_prefixes: some(prefixes),
        delimiter: delimited.map(|delimiter| names.shown(delimiter)),
        encoding_type: names.told(),
        start_after: input.start_after.map(|start| names.shown(start)),
        request_charged: None,
    })
}

pub async fn list_object_versions(
    store: &Store,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    let names = Names::of(input.encoding_type.as_ref())?;
    let most = most(input.max_keys)?;
    let marker = input.key_marker.clone().unwrap_or_default();
    let asked = after_marker(&input.prefix, &input.delimiter, &marker, most);
    let delimited = asked.delimiter.clone();
    let page = page(store, &input.bucket, asked).await?;
    let last = page.entries.last().map(|entry| entry.name().to_owned());
    let next = last.filter(|_| page.more);
    let (contents, prefixes) = split(page.entries, names, true);
    let versions = contents.into_iter().map(|object| ObjectVersion {
        e_tag: object.e_tag,
        is_latest: Some(true),
        key: object.key,
        last_modified: object.last_modified,
        owner: object.owner,
        size: object.size,
        storage_class: object
            .storage_class
            .map(|class| ObjectVersionStorageClass::from(class.as_str().to_owned())),
        version_id: Some("null".into()),
        ..ObjectVersion::default()
    });
    answer(ListObjectVersionsOutput {
        common_prefixes: some(prefixes),
        delimiter: delimited.map(|delimiter| names.shown(delimiter)),
        encoding_type: names.told(),
        is_truncated: Some(page.more),
        key_marker: Some(names.shown(marker)),
        max_keys: Some(input.max_keys.unwrap_or(MOST as i32)),
        name: Some(input.bucket),
        next_version_id_marker: next.as_ref().map(|_| "null".into()),
        next_key_marker: next.map(|next| names.shown(next)),
        prefix: Some(names.shown(input.prefix.unwrap_or_default())),
        versions: some(versions.collect()),
        version_id_marker: input.version_id_marker,
        ..ListObjectVersionsOutput::default()
    })
}
