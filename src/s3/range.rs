//! A Parquet history that lies in S3, read by byte range so that only the needed pages cross the network.
//!
//! The reader is pinned to the object's ETag: if the object is replaced while it is being read, reads fail instead of
//! mixing two files. It blocks, so it is used on blocking threads only. It does not cache beyond one read-ahead block.

use std::io::{self, Read};
use std::sync::Arc;

use aws_sdk_s3::Client;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::{Failure, S3Error};

/// Bytes fetched at once when a page header asks for an open-ended read.
const BLOCK: u64 = 256 * 1024;

/// An object of a bucket as a [`ChunkReader`].
#[derive(Clone)]
pub struct RangeReader {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    bucket: String,
    key: String,
    etag: Option<String>,
    length: u64,
    runtime: Handle,
}

impl RangeReader {
    /// Looks the object up and remembers its length and ETag.
    pub async fn open(client: Client, bucket: &str, key: &str) -> Result<Self, S3Error> {
        let head = client
            .head_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await
            .map_err(|error| S3Error {
                operation: "HeadObject",
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                failure: Failure::from(&error),
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                etag: head.e_tag().map(str::to_owned),
                length: head.content_length().unwrap_or(0).max(0) as u64,
                client,
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                runtime: Handle::current(),
            }),
        })
    }

    fn fetch(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let inner = &self.inner;
        if length == 0 || start >= inner.length {
            return Ok(Bytes::new());
        }
        let end = (start + length).min(inner.length) - 1;
        inner.runtime.block_on(async {
            let output = inner
                .client
                .get_object()
                .bucket(&inner.bucket)
                .key(&inner.key)
                .range(format!("bytes={start}-{end}"))
                .set_if_match(inner.etag.clone())
                .send()
                .await
                .map_err(|error| {
                    io::Error::other(format!(
                        "GetObject s3://{}/{}: {}",
                        inner.bucket,
                        inner.key,
                        Failure::from(&error)
                    ))
                })?;
            let body = output.body.collect().await.map_err(io::Error::other)?;
            Ok(body.into_bytes())
        })
    }
}

impl Length for RangeReader {
    fn len(&self) -> u64 {
        self.inner.length
    }
}

impl ChunkReader for RangeReader {
    type T = Blocks;

    fn get_read(&self, start: u64) -> Result<Blocks, ParquetError> {
        Ok(Blocks {
            source: self.clone(),
            next: start,
            block: Bytes::new(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.fetch(start, length as u64)?;
        if bytes.len() != length {
            return Err(ParquetError::EOF(format!(
                "s3://{}/{} ended at byte {} of {}",
                self.inner.bucket,
                self.inner.key,
                start + bytes.len() as u64,
                start + length as u64
            )));
        }
        Ok(bytes)
    }
}

/// A sequential read that fetches a block at a time.
pub struct Blocks {
    source: RangeReader,
    next: u64,
    block: Bytes,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            self.block = self.source.fetch(self.next, BLOCK)?;
            self.next += self.block.len() as u64;
        }
        let length = buffer.len().min(self.block.len());
        buffer[..length].copy_from_slice(&self.block.split_to(length));
        Ok(length)
    }
}
