//! What jobs ask of S3: listings, the beginnings of files, files in a stream, and what they write.
//!
//! Guarantees: a fault that passes by the one classifier is waited out as an execution does it, so that a store which starts
//! anew in the middle costs no job what it has done; a stream that breaks off goes on where it was, in the same version of the
//! object or not at all. What stays is told with the place. Nothing is held beyond what was asked for.

use anyhow::{Result, bail};
use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::Jobs;
use crate::s3::{Attributes, Bucket, Listed, S3Error};
use crate::service::patience::Patience;
use crate::service::s3_problem::told;

/// A bucket as jobs use it.
pub struct Objects {
    bucket: Bucket,
}

/// How far a stream has come.
#[derive(Default)]
struct Progress {
    bytes: u64,
    version: Option<String>,
}

/// How a stream ended.
enum Streamed {
    Whole,
    /// The object is another than it was at the beginning.
    Replaced,
    /// All bytes came, and they are not the object's.
    Damaged(S3Error),
}

impl Objects {
    /// Those of a bucket.
    pub fn of(jobs: &Jobs, bucket: &str) -> Objects {
        Objects {
            bucket: jobs.buckets.read(bucket),
        }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        self.bucket.name()
    }

    /// Everything under a prefix that is no folder marker.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut patience = Patience::begin();
        loop {
            // From the beginning each time: where a listing stands still there is no place to go on from.
            let mut listed = Vec::new();
            let take = |object: Listed| {
                if !object.key.ends_with('/') {
                    listed.push(object);
                }
                true
            };
            match self.bucket.walk(prefix, "", None, take).await {
                Ok(_) => return Ok(listed),
                Err(error) => self.bear("list", prefix, error, &mut patience).await?,
            }
        }
    }

    /// The first `most` bytes of an object, or all where it has fewer.
    pub async fn beginning(&self, key: &str, most: usize) -> Result<Bytes> {
        let range = (0, Some(most as u64));
        let mut patience = Patience::begin();
        loop {
            let read = async {
                self.bucket
                    .open(key, range, None)
                    .await?
                    .collect(most)
                    .await
            };
            match read.await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.bear("read", key, error, &mut patience).await?,
            }
        }
    }

    /// Sends the bytes of an object in order, until nobody takes them any more.
    pub async fn stream(&self, key: &str, to: mpsc::Sender<Bytes>) -> Result<()> {
        let mut progress = Progress::default();
        let mut patience = Patience::begin();
        loop {
            let before = progress.bytes;
            match self.go_on(key, &mut progress, &to).await {
                Ok(Streamed::Whole) => return Ok(()),
                Ok(Streamed::Replaced) => bail!(
                    "s3://{}/{key} was replaced while it was read",
                    self.bucket()
                ),
                Ok(Streamed::Damaged(error)) => {
                    bail!(
                        "cannot read s3://{}/{key}: {}",
                        self.bucket(),
                        told(&error.failure)
                    )
                }
                Err(error) => {
                    if progress.bytes > before {
                        patience = Patience::begin();
                    }
                    self.bear("read", key, error, &mut patience).await?;
                }
            }
        }
    }

    async fn go_on(
        &self,
        key: &str,
        progress: &mut Progress,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<Streamed, S3Error> {
        let range = (progress.bytes, None);
        let version = progress.version.as_deref();
        let mut opened = match self.bucket.open(key, range, version).await {
            Err(error) if version.is_some() && error.failure.is_precondition_failed() => {
                return Ok(Streamed::Replaced);
            }
            opened => opened?,
        };
        if version.is_some_and(|version| version != opened.version()) {
            return Ok(Streamed::Replaced);
        }
        progress.version = Some(opened.version().to_owned());
        // A store that does not know ranges begins at the beginning.
        let mut known = progress.bytes.saturating_sub(opened.start());
        loop {
            let mut chunk = match opened.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(Streamed::Whole),
                Err(error) if opened.end() == Some(progress.bytes) => {
                    return Ok(Streamed::Damaged(error));
                }
                Err(error) => return Err(error),
            };
            let over = known.min(chunk.len() as u64);
            chunk.advance(over as usize);
            known -= over;
            if chunk.is_empty() {
                continue;
            }
            progress.bytes += chunk.len() as u64;
            if to.send(chunk).await.is_err() {
                return Ok(Streamed::Whole);
            }
        }
    }

    /// Writes an object that belongs to the job, over what an earlier one of the same name left there.
    pub async fn replace(&self, key: &str, bytes: &[u8], content_type: &str) -> Result<()> {
        let attributes = Attributes {
            content_type,
            metadata: &[],
        };
        let mut patience = Patience::begin();
        loop {
            match self.bucket.replace(key, bytes, attributes).await {
                Ok(()) => return Ok(()),
                Err(error) => self.bear("write", key, error, &mut patience).await?,
            }
        }
    }

    /// Waits where the fault passes; else, or when the patience is over, it is the job's.
    async fn bear(
        &self,
        what: &str,
        key: &str,
        error: S3Error,
        patience: &mut Patience,
    ) -> Result<()> {
        if !error.passes() || !patience.is_left() {
            bail!(
                "cannot {what} s3://{}/{key}: {}",
                self.bucket(),
                told(&error.failure)
            );
        }
        tracing::debug!(%error, "the store is away, trying again");
        patience.pause().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BODY: &str = "Timestamp,a\n2026-01-01 00:00,1\n";

    /// An answer: its status, headers and body, of which so many bytes are sent before the connection ends.
    fn answer(status: &str, headers: &str, body: &str, sent: usize) -> String {
        format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{}",
            body.len(),
            &body[..sent]
        )
    }

    fn object(version: &str, sent: usize) -> String {
        answer(
            "200 OK",
            &format!("etag: \"{version}\"\r\n"),
            BODY,
            sent.min(BODY.len()),
        )
    }

    fn rest(version: &str, from: usize) -> String {
        let headers = format!(
            "etag: \"{version}\"\r\ncontent-range: bytes {from}-{}/{}\r\n",
            BODY.len() - 1,
            BODY.len()
        );
        let rest = &BODY[from..];
        answer("206 Partial Content", &headers, rest, rest.len())
    }

    fn refusal(status: &str, code: &str) -> String {
        let body = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        answer(
            status,
            "content-type: application/xml\r\n",
            &body,
            body.len(),
        )
    }

    /// A store that gives these answers, one to each request; notes the heads of the requests.
    async fn store(answers: Vec<String>) -> (Objects, Arc<Mutex<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                stream.read_exact(&mut vec![0; length]).await.unwrap();
                noted.lock().unwrap().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let client = crate::s3::local_client(&endpoint, "a", "s");
        let bucket = Bucket::new(client, "b");
        (Objects { bucket }, asked)
    }

    async fn streamed(objects: &Objects) -> Result<String> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(8);
        let reading = async {
            let mut all = Vec::new();
            while let Some(chunk) = receiver.recv().await {
                all.extend_from_slice(&chunk);
            }
            String::from_utf8(all).unwrap()
        };
        let (streamed, read) = tokio::join!(objects.stream("k", sender), reading);
        streamed.map(|()| read)
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_goes_on_where_it_was() {
        // One store knows ranges, the other sends everything again.
        for second in [rest("v", 12), object("v", BODY.len())] {
            let (objects, asked) = store(vec![object("v", 12), second]).await;
            assert_eq!(streamed(&objects).await.unwrap(), BODY);
            let asked = asked.lock().unwrap();
            assert!(!asked[0].contains("\r\nrange:"), "{}", asked[0]);
            assert!(
                asked[1].contains("\r\nrange: bytes=12-\r\n")
                    && asked[1].contains("\r\nif-match: \"v\"\r\n"),
                "{}",
                asked[1]
            );
        }
    }

    #[tokio::test]
    async fn two_versions_of_an_object_are_never_one_stream() {
        let changed = refusal("412 Precondition Failed", "PreconditionFailed");
        for second in [changed, object("w", BODY.len())] {
            let (objects, _) = store(vec![object("v", 12), second]).await;
            let error = streamed(&objects).await.unwrap_err().to_string();
            assert!(
                error.contains("s3://b/k was replaced while it was read"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_what_stays_is_told_with_its_place() {
        let page = "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>p/</Key><Size>0</Size></Contents>\
                    <Contents><Key>p/a.csv</Key><Size>7</Size></Contents></ListBucketResult>";
        let conflict = || refusal("409 Conflict", "OperationAborted");
        let page = answer(
            "200 OK",
            "content-type: application/xml\r\n",
            page,
            page.len(),
        );
        let (objects, _) = store(vec![conflict(), page]).await;
        let listed = objects.list("p/").await.unwrap();
        assert_eq!((listed.len(), listed[0].key.as_str()), (1, "p/a.csv"));

        let portal = answer("200 OK", "", "<html>Welcome</html>", 20);
        let (objects, asked) = store(vec![portal.clone(), object("v", BODY.len())]).await;
        assert_eq!(streamed(&objects).await.unwrap(), BODY);
        assert_eq!(asked.lock().unwrap().len(), 2);
        let written = answer("200 OK", "etag: \"v\"\r\n", "", 0);
        let (objects, asked) = store(vec![conflict(), portal, written]).await;
        objects.replace("k", b"bytes", "text/plain").await.unwrap();
        let heads = asked.lock().unwrap().clone();
        assert_eq!(heads.len(), 3);
        assert!(heads.iter().all(|head| !head.contains("if-none-match")));

        let denied = refusal("403 Forbidden", "AccessDenied");
        let (objects, asked) = store(vec![denied]).await;
        let error = streamed(&objects).await.unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read s3://b/k: AccessDenied"),
            "{error}"
        );
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn of_a_beginning_no_more_is_held_than_was_asked_for() {
        let (objects, asked) = store(vec![object("v", BODY.len())]).await;
        let head = objects.beginning("k", 9).await.unwrap();
        assert_eq!(head.as_ref(), b"Timestamp");
        assert!(asked.lock().unwrap()[0].contains("range: bytes=0-8\r\n"));
    }
}
