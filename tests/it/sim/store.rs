//! An S3 store in memory, as much of it as the product uses: conditional creates, GET, HEAD, listing by pages.
//!
//! It notes the order in which keys were written and every write that changed the bytes of a key, and checks the checksum
//! of what it is sent. It does not check signatures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use percent_encoding::percent_decode_str;

use super::wire::{Answer, Asked};
use crate::rig::BUCKET;

/// An object as it lies there.
#[derive(Clone, Debug, Default)]
pub struct Object {
    pub bytes: Vec<u8>,
    metadata: Vec<(String, String)>,
}

/// The store.
#[derive(Default)]
pub struct ObjectStore {
    state: Mutex<State>,
    /// It keeps checksums, as AWS does; others leave it to the client to compare bytes.
    pub keeps_checksums: bool,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    written: Vec<String>,
    overwritten: Vec<String>,
}

impl ObjectStore {
    pub fn new(keeps_checksums: bool) -> ObjectStore {
        ObjectStore {
            keeps_checksums,
            ..ObjectStore::default()
        }
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.lock()
            .objects
            .get(key)
            .map(|object| object.bytes.clone())
    }

    /// Puts an object there as somebody else would; false where the key is taken.
    pub fn place(&self, key: &str, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let free = !state.objects.contains_key(key);
        if free {
            let object = Object {
                bytes: bytes.to_vec(),
                ..Object::default()
            };
            state.objects.insert(key.to_owned(), object);
        }
        free
    }

    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let state = self.lock();
        let from = state.objects.range(prefix.to_owned()..);
        from.map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(prefix))
            .collect()
    }

    /// The keys written since the last call.
    pub fn written(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().written)
    }

    /// Keys whose bytes a write has changed.
    pub fn overwritten(&self) -> Vec<String> {
        self.lock().overwritten.clone()
    }

    /// Answers a request.
    pub fn answer(&self, asked: &Asked) -> Answer {
        let (path, query) = asked.uri.split_once('?').unwrap_or((&asked.uri, ""));
        let path = decoded(path.trim_start_matches('/'));
        let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
        if bucket != BUCKET {
            return refusal(404, "NoSuchBucket");
        }
        match (asked.method.as_str(), key) {
            ("GET", "") => self.list(query),
            ("PUT", key) if !key.is_empty() => self.put(key, asked),
            ("GET" | "HEAD", key) => self.read(key, asked),
            _ => refusal(501, "NotImplemented"),
        }
    }

    fn put(&self, key: &str, asked: &Asked) -> Answer {
        let sent = asked.header("x-amz-checksum-crc32");
        if sent.is_some_and(|sum| sum != checksum(&asked.body)) {
            return refusal(400, "BadDigest");
        }
        let mut state = self.lock();
        let before = state.objects.get(key).map(|object| object.bytes.clone());
        if before.is_some() && asked.header("if-none-match") == Some("*") {
            return refusal(412, "PreconditionFailed");
        }
        if before.is_some_and(|before| before != asked.body[..]) {
            state.overwritten.push(key.to_owned());
        }
        state.written.push(key.to_owned());
        let metadata = asked.headers.iter();
        let object = Object {
            bytes: asked.body.to_vec(),
            metadata: metadata
                .filter(|(name, _)| name.starts_with("x-amz-meta-"))
                .cloned()
                .collect(),
        };
        let answer = Answer {
            status: 200,
            headers: vec![("etag".into(), etag(&object.bytes))],
            body: Vec::new(),
        };
        state.objects.insert(key.to_owned(), object);
        answer
    }

    fn read(&self, key: &str, asked: &Asked) -> Answer {
        let state = self.lock();
        let Some(object) = state.objects.get(key) else {
            return refusal(
                404,
                if asked.method == "HEAD" {
                    ""
                } else {
                    "NoSuchKey"
                },
            );
        };
        let mut headers = object.metadata.clone();
        headers.push(("etag".into(), etag(&object.bytes)));
        headers.push(("content-length".into(), object.bytes.len().to_string()));
        let head = asked.method == "HEAD";
        if head && self.keeps_checksums && asked.header("x-amz-checksum-mode").is_some() {
            headers.push(("x-amz-checksum-crc32".into(), checksum(&object.bytes)));
        }
        Answer {
            status: 200,
            headers,
            body: if head {
                Vec::new()
            } else {
                object.bytes.clone()
            },
        }
    }

    fn list(&self, query: &str) -> Answer {
        let mut asked: BTreeMap<&str, String> = BTreeMap::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            asked.insert(name, decoded(value));
        }
        let text = |name: &str| asked.get(name).cloned().unwrap_or_default();
        let (prefix, most) = (
            text("prefix"),
            text("max-keys").parse().unwrap_or(1000_usize),
        );
        let after = text("start-after").max(text("continuation-token"));
        let from = if after >= prefix {
            Bound::Excluded(after)
        } else {
            Bound::Included(prefix.clone())
        };
        let state = self.lock();
        let mut found = state
            .objects
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&prefix));
        let page: Vec<_> = found.by_ref().take(most).collect();
        let truncated = found.next().is_some();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>{BUCKET}</Name><IsTruncated>{truncated}</IsTruncated>"
        );
        // Writing to a string does not fail, and no key here needs escaping.
        for (key, object) in &page {
            let size = object.bytes.len();
            let _ = write!(
                xml,
                "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"
            );
        }
        if let Some((last, _)) = page.last().filter(|_| truncated) {
            let _ = write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>");
        }
        xml.push_str("</ListBucketResult>");
        Answer {
            status: 200,
            headers: vec![("content-type".into(), "application/xml".into())],
            body: xml.into_bytes(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A refusal as S3 words it.
pub fn refusal(status: u16, code: &str) -> Answer {
    let body = if code.is_empty() {
        String::new()
    } else {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>by the simulation</Message></Error>"
        )
    };
    Answer {
        status,
        headers: vec![("content-type".into(), "application/xml".into())],
        body: body.into_bytes(),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn checksum(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(crc32fast::hash(bytes).to_be_bytes())
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{:08x}\"", crc32fast::hash(bytes))
}
