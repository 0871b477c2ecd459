//! ListObjectsV2 over the embedded store's directories, in place of the listing of s3s-fs, which reads every entry of the
//! whole bucket for every page.
//!
//! Guarantees: keys come in the order of their bytes; prefix, delimiter, start-after, continuation and encoding are those
//! of S3. Only directories that can hold a key of the page are read, and only objects of the page are looked at, so a page
//! costs what lies in the directory of its prefix, whatever else the bucket holds. A key that is no UTF-8 is left out.
//!
//! What is malformed, and a bucket that is not there, is left to s3s-fs to answer.

use std::fs::FileType;
use std::io;
use std::path::{Path, PathBuf};

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use s3s::dto::{CommonPrefix, EncodingType, ListObjectsV2Output, Object, Timestamp};
use s3s::route::S3Route;
use s3s::xml::{Serialize, Serializer};
use s3s::{Body, S3Error, S3Request, S3Response, S3Result};

/// Most entries of a page, as S3 has it.
const MOST_KEYS: usize = 1000;
/// What `encoding-type=url` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*')
    .remove(b'/');

/// Answers `GET /<bucket>?list-type=2` for the buckets under a root.
pub struct Listing {
    root: PathBuf,
}

/// What was asked.
#[derive(Clone, Debug, Default)]
struct Request {
    bucket: String,
    prefix: String,
    delimiter: Option<String>,
    start_after: Option<String>,
    token: Option<String>,
    max_keys: Option<i32>,
    encode: bool,
}

/// One line of the answer.
#[derive(Debug, PartialEq, Eq)]
enum Item {
    Object(String, PathBuf),
    Prefix(String),
}

/// The walk that collects a page.
struct Walk<'a> {
    request: &'a Request,
    limit: usize,
    items: Vec<Item>,
    more: bool,
}

impl Listing {
    /// Listings of the buckets in `root`.
    pub fn new(root: PathBuf) -> Listing {
        Listing { root }
    }
}

#[async_trait::async_trait]
impl S3Route for Listing {
    fn is_match(
        &self,
        method: &Method,
        uri: &Uri,
        _: &HeaderMap,
        extensions: &mut Extensions,
    ) -> bool {
        if method != Method::GET {
            return false;
        }
        let Some(request) = Request::parse(uri) else {
            return false;
        };
        let known = self.root.join(&request.bucket).is_dir();
        if known {
            extensions.insert(request);
        }
        known
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let asked: Request = request
            .extensions
            .remove()
            .ok_or_else(|| S3Error::internal_error(io::Error::other("no request")))?;
        let bucket = self.root.join(&asked.bucket);
        let answered = tokio::task::spawn_blocking(move || answer(&bucket, asked)).await;
        let body = answered
            .map_err(S3Error::internal_error)?
            .map_err(S3Error::internal_error)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        Ok(S3Response::with_headers(Body::from(body), headers))
    }
}

impl Request {
    /// `None` if it is no listing of this kind, or not a well-formed one.
    fn parse(uri: &Uri) -> Option<Request> {
        let bucket = decode(uri.path().trim_matches('/'))?;
        if bucket.is_empty() || bucket.starts_with('.') || bucket.contains('/') {
            return None;
        }
        let mut request = Request {
            bucket,
            ..Request::default()
        };
        let mut version = false;
        for pair in uri.query()?.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(&value.replace('+', " "))?;
            match name {
                "list-type" => version = value == "2",
                "prefix" => request.prefix = value,
                "delimiter" => request.delimiter = (!value.is_empty()).then_some(value),
                "start-after" => request.start_after = Some(value),
                "continuation-token" => request.token = Some(value),
                "max-keys" => {
                    request.max_keys = Some(value.parse().ok().filter(|max: &i32| *max >= 0)?)
                }
                "encoding-type" => request.encode = value == "url",
                _ => {}
            }
        }
        version.then_some(request)
    }

    /// The key after which the page begins.
    fn marker(&self) -> &str {
        let start = self.start_after.as_deref().unwrap_or_default();
        self.token.as_deref().unwrap_or_default().max(start)
    }

    /// The common prefix a key is rolled up into.
    fn rolled_up<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.delimiter.as_deref()?;
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let at = rest.find(delimiter)?;
        Some(&key[..self.prefix.len() + at + delimiter.len()])
    }

    /// Whether a common prefix was the last line of the page before, so that all its keys have been told.
    fn told(&self, common: &str) -> bool {
        self.token.as_deref().is_some_and(|token| common <= token)
    }
}

fn answer(bucket: &Path, request: Request) -> io::Result<Vec<u8>> {
    let limit = request
        .max_keys
        .map_or(MOST_KEYS, |max| (max as usize).min(MOST_KEYS));
    let mut walk = Walk {
        request: &request,
        limit,
        items: Vec::new(),
        more: false,
    };
    if limit > 0 {
        // The deepest directory that holds every key of the prefix.
        let base = request.prefix.rfind('/').map_or(0, |at| at + 1);
        let base = &request.prefix[..base];
        // A prefix that climbs out, or names a directory twice over, has no keys.
        if base
            .split_terminator('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
        {
            walk.directory(&bucket.join(base), base)?;
        }
    }
    let (items, more) = (walk.items, walk.more);
    let next = items.last().filter(|_| more).map(|item| match item {
        Item::Object(key, _) | Item::Prefix(key) => key.clone(),
    });
    let count = items.len();
    let (mut contents, mut prefixes) = (Vec::new(), Vec::new());
    let shown = |text: String| {
        if request.encode {
            utf8_percent_encode(&text, PLAIN).to_string()
        } else {
            text
        }
    };
    for item in items {
        match item {
            Item::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(shown(prefix)),
            }),
            Item::Object(key, path) => {
                let metadata = match std::fs::metadata(&path) {
                    Ok(metadata) => metadata,
                    // Deleted while it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                };
                contents.push(Object {
                    key: Some(shown(key)),
                    last_modified: Some(Timestamp::from(metadata.modified()?)),
                    size: i64::try_from(metadata.len()).ok(),
                    ..Object::default()
                });
            }
        }
    }
    let output = ListObjectsV2Output {
        name: Some(request.bucket.clone()),
        prefix: Some(shown(request.prefix.clone())),
        delimiter: request.delimiter.clone().map(shown),
        start_after: request.start_after.clone().map(shown),
        continuation_token: request.token.clone(),
        next_continuation_token: next,
        encoding_type: request
            .encode
            .then(|| EncodingType::from_static(EncodingType::URL)),
        key_count: i32::try_from(count).ok(),
        max_keys: Some(i32::try_from(limit).unwrap_or(i32::MAX)),
        is_truncated: Some(more),
        contents: (!contents.is_empty()).then_some(contents),
        common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
        ..ListObjectsV2Output::default()
    };
    let mut body = Vec::with_capacity(256 + 160 * count);
    let mut serializer = Serializer::new(&mut body);
    serializer
        .decl()
        .and_then(|()| output.serialize(&mut serializer))
        .map_err(io::Error::other)?;
    Ok(body)
}

impl Walk<'_> {
    /// Adds what lies in `path`, whose keys begin with `base`; false when the page is full.
    fn directory(&mut self, path: &Path, base: &str) -> io::Result<bool> {
        for (key, file_type) in self.entries(path, base)? {
            let entry = path.join(key[base.len()..].trim_end_matches('/'));
            if !file_type.is_dir() {
                if !self.key(key, entry) {
                    return Ok(false);
                }
                continue;
            }
            // Everything below it is one line, or was told before.
            if let Some(common) = self.request.rolled_up(&key) {
                if !self.request.told(common)
                    && self.newest() != Some(common)
                    && self.has_key_after_marker(&entry, &key)?
                    && !self.push(Item::Prefix(common.to_owned()))
                {
                    return Ok(false);
                }
                continue;
            }
            if !self.directory(&entry, &key)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The entries of a directory that can hold a key of the page, in the order of their keys. Directories end in `/`:
    /// so their place among the files is that of the keys below them.
    fn entries(&self, path: &Path, base: &str) -> io::Result<Vec<(String, FileType)>> {
        let read = match std::fs::read_dir(path) {
            Ok(read) => read,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let (prefix, marker) = (self.request.prefix.as_str(), self.request.marker());
        let mut entries = Vec::new();
        for entry in read {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let file_type = entry.file_type()?;
            let slash = if file_type.is_dir() { "/" } else { "" };
            let key = format!("{base}{name}{slash}");
            let wanted =
                key.starts_with(prefix) || (file_type.is_dir() && prefix.starts_with(&key));
            // Keys below a directory go on after its own name.
            let ahead = key.as_str() > marker || (file_type.is_dir() && marker.starts_with(&key));
            if wanted && ahead {
                entries.push((key, file_type));
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Whether a directory holds a key that is not before the marker; empty ones are left when their objects are deleted.
    fn has_key_after_marker(&self, path: &Path, base: &str) -> io::Result<bool> {
        for (key, file_type) in self.entries(path, base)? {
            let below = path.join(key[base.len()..].trim_end_matches('/'));
            if !file_type.is_dir() || self.has_key_after_marker(&below, &key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn key(&mut self, key: String, path: PathBuf) -> bool {
        let Some(common) = self.request.rolled_up(&key) else {
            return self.push(Item::Object(key, path));
        };
        if self.request.told(common) || self.newest() == Some(common) {
            return true;
        }
        let common = common.to_owned();
        self.push(Item::Prefix(common))
    }

    /// The common prefix of the last line.
    fn newest(&self) -> Option<&str> {
        match self.items.last() {
            Some(Item::Prefix(prefix)) => Some(prefix),
            _ => None,
        }
    }

    /// Adds a line; false when the page was full without it.
    fn push(&mut self, item: Item) -> bool {
        self.more = self.items.len() == self.limit;
        if !self.more {
            self.items.push(item);
        }
        !self.more
    }
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}
