//! One object, piece by piece, for what is too large to be held; and one that is written over what is there.
//!
//! Nothing is tried again here: who reads knows how far it has come, and goes on from there.

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};

use super::{ANSWER, Attributes, Bucket, Failure, S3Error, Transport};

/// Bytes a second that a line has at least, where they are written.
const SLOWEST: u64 = 64 * 1024;

/// An object that is read.
#[derive(Debug)]
pub struct Opened<'a> {
    bucket: &'a Bucket,
    key: &'a str,
    version: String,
    start: u64,
    end: Option<u64>,
    body: ByteStream,
}

impl Opened<'_> {
    /// Tells this version of the object from another.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where its bytes begin: at the object's beginning if the store does not know ranges.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Where they end, as far as the store says so.
    pub fn end(&self) -> Option<u64> {
        self.end
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, S3Error> {
        let next = self.body.next().await.transpose();
        next.map_err(|error| {
            let failure = Failure::transport(Transport::Other, &error);
            self.bucket.error("GetObject", self.key, failure)
        })
    }

    /// The bytes to the end, or the first `most` of them, whatever a store sends beyond.
    pub async fn collect(mut self, most: usize) -> Result<Bytes, S3Error> {
        let mut all = BytesMut::new();
        while all.len() < most
            && let Some(chunk) = self.next().await?
        {
            all.extend_from_slice(&chunk);
        }
        all.truncate(most);
        Ok(all.freeze())
    }
}

impl Bucket {
    /// Opens an object from byte `from` on, before byte `to` where one is given; with `version` only that version of it.
    pub async fn open<'a>(
        &'a self,
        key: &'a str,
        (from, to): (u64, Option<u64>),
        version: Option<&str>,
    ) -> Result<Opened<'a>, S3Error> {
        let fail = |failure| self.error("GetObject", key, failure);
        let last = to.map(|to| to.saturating_sub(1).to_string());
        let part = format!("bytes={from}-{}", last.unwrap_or_default());
        let answer = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .set_range((from > 0 || to.is_some()).then_some(part))
            .set_if_match(version.map(str::to_owned))
            .send()
            .await
            .map_err(|error| fail(Failure::from(&error)))?;
        let Some(etag) = answer.e_tag().map(str::to_owned) else {
            return Err(fail(Failure::not_a_store()));
        };
        let start = answer.content_range().and_then(begin).unwrap_or(0);
        let length = answer
            .content_length()
            .and_then(|length| u64::try_from(length).ok());
        Ok(Opened {
            bucket: self,
            key,
            version: etag,
            start,
            end: length.map(|length| start + length),
            body: answer.body,
        })
    }

    /// Puts an object there, in the place of another that has the key. For what belongs to whoever wrote it last; never for
    /// input and results.
    pub async fn replace(
        &self,
        key: &str,
        bytes: &[u8],
        attributes: Attributes<'_>,
    ) -> Result<(), S3Error> {
        let line = std::time::Duration::from_secs(bytes.len() as u64 / SLOWEST);
        let patient = Bucket {
            patience: Some(self.patience.unwrap_or(ANSWER + line)),
            ..self.clone()
        };
        patient.put(key, bytes.to_vec(), attributes, false).await
    }
}

/// The first byte of a `Content-Range`.
fn begin(range: &str) -> Option<u64> {
    let (begin, _) = range.trim().strip_prefix("bytes ")?.split_once('-')?;
    begin.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_was_answered_says_where_it_begins() {
        assert_eq!(begin("bytes 5-9/100"), Some(5));
        assert_eq!(begin("bytes 0-0/*"), Some(0));
        assert_eq!(begin("bytes */100"), None);
        assert_eq!(begin(""), None);
    }
}
