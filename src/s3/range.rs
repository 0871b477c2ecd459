//! A Parquet history that lies in S3, read by byte range so that only the needed pages cross the network.
//!
//! The reader is pinned to the object's ETag: if the object is replaced while it is being read, reads fail instead of
//! mixing two files. Reads that follow one another are answered from blocks that are fetched ahead and grow while that goes on,
//! so that a file's columns cost few requests; scattered reads fetch little more than they ask for. Threads that read different
//! parts at once do not wait for one another. It blocks, so it is used on blocking threads only, and keeps three blocks for each of a
//! bounded number of places that are read on.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::Client;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;

use super::{Failure, S3Error};

/// Bytes that are fetched at once: at first, and when reads have followed one another for a while.
const BLOCK: u64 = 64 * 1024;
const LARGEST_BLOCK: u64 = 1 << 20;
/// Bytes that may be left out between two reads that follow one another.
const NEAR: u64 = 64 * 1024;

/// Parts of an object that may be read at once.
pub const LANES: usize = 24;

/// Is told how many bytes have arrived.
pub type Arrived = Box<dyn Fn(u64) + Send + Sync>;

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
    arrived: Arrived,
    /// Places that are read on and that nobody fetches for now, the one that was read last at the end.
    places: Mutex<Vec<Ahead>>,
}

/// What was fetched last at one place, and how much the next fetch takes.
struct Ahead {
    /// The latest at the end.
    blocks: Vec<(u64, Bytes)>,
    size: u64,
}

impl Ahead {
    const BLOCKS: usize = 3;

    fn new() -> Self {
        Self {
            blocks: Vec::new(),
            size: BLOCK,
        }
    }

    /// Whether a read from `start` on goes on with what was fetched last.
    fn is_followed_by(&self, start: u64) -> bool {
        self.blocks.last().is_some_and(|(at, block)| {
            let till = at + block.len() as u64;
            (*at..=till.saturating_add(NEAR)).contains(&start)
        })
    }

    /// The bytes from `start` on, if a block has all of them, or two that follow one another.
    fn find(&self, start: u64, length: u64) -> Option<Bytes> {
        let end = start + length;
        let till = |(at, block): &(u64, Bytes)| at + block.len() as u64;
        let mut having = self.blocks.iter().rev();
        let first = having.find(|block| block.0 <= start && start < till(block))?;
        let from = (start - first.0) as usize;
        if end <= till(first) {
            return Some(first.1.slice(from..from + length as usize));
        }
        let mut next = self.blocks.iter();
        let next =
            next.find(|block| (start..=till(first)).contains(&block.0) && end <= till(block))?;
        let (to, rest) = ((next.0 - first.0) as usize, (end - next.0) as usize);
        Some([&first.1[from..to], &next.1[..rest]].concat().into())
    }

    /// What to fetch for a read that no block answers: from where, and how much.
    fn plan(&mut self, start: u64, length: u64, end: u64) -> (u64, u64) {
        let read_to = start + length;
        // The tail is read backwards: the last bytes first, and then the footer before them.
        let mut from = start.min(end.saturating_sub(BLOCK));
        let follows = self.is_followed_by(start);
        if let Some((at, block)) = self.blocks.last().filter(|_| follows) {
            let till = at + block.len() as u64;
            // A dictionary is read after the page behind it: no hole is left between two blocks.
            from = from.min(till);
        }
        self.size = if follows {
            (self.size * 2).min(LARGEST_BLOCK)
        } else {
            BLOCK
        };
        let length = (read_to - from).max(self.size).min(end - from);
        (from, length)
    }

    fn keep(&mut self, start: u64, block: Bytes) {
        if self.blocks.len() >= Self::BLOCKS {
            self.blocks.remove(0);
        }
        self.blocks.push((start, block));
    }
}

impl RangeReader {
    /// Looks the object up and remembers its length and ETag; `arrived` is told of the bytes that come.
    pub async fn open(
        client: Client,
        bucket: &str,
        key: &str,
        arrived: Arrived,
    ) -> Result<Self, S3Error> {
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
                arrived,
                places: Mutex::default(),
            }),
        })
    }

    /// The object's ETag, which tells one version of it from another.
    pub fn etag(&self) -> Option<&str> {
        self.inner.etag.as_deref()
    }

    /// The bytes from `start` on: all that were asked for, fewer at the object's end.
    fn read(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let inner = &self.inner;
        let length = length.min(inner.length.saturating_sub(start));
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut ahead = {
            let mut places = inner.places.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bytes) = places.iter().find_map(|ahead| ahead.find(start, length)) {
                return Ok(bytes);
            }
            match places.iter().position(|ahead| ahead.is_followed_by(start)) {
                Some(at) => places.remove(at),
                None if places.len() >= LANES => places.remove(0),
                None => Ahead::new(),
            }
        };
        let (from, size) = ahead.plan(start, length, inner.length);
        let block = self.fetch(from, size)?;
        let within = (start - from) as usize;
        if block.len() < within + length as usize {
            return Ok(block.slice(within.min(block.len())..));
        }
        let bytes = block.slice(within..within + length as usize);
        ahead.keep(from, block);
        let mut places = inner.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= LANES {
            places.remove(0);
        }
        places.push(ahead);
        Ok(bytes)
    }

    fn fetch(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let inner = &self.inner;
        let failed = |what: &dyn std::fmt::Display| {
            io::Error::other(format!(
                "GetObject s3://{}/{}: {what}",
                inner.bucket, inner.key
            ))
        };
        inner.runtime.block_on(async {
            let mut output = inner
                .client
                .get_object()
                .bucket(&inner.bucket)
                .key(&inner.key)
                .range(format!("bytes={start}-{}", start + length - 1))
                .set_if_match(inner.etag.clone())
                .send()
                .await
                .map_err(|error| failed(&Failure::from(&error)))?;
            let mut block = Vec::with_capacity(length as usize);
            while let Some(part) = output.body.next().await {
                let part = part.map_err(|error| failed(&error))?;
                (inner.arrived)(part.len() as u64);
                block.extend_from_slice(&part);
            }
            Ok(block.into())
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
        let bytes = self.read(start, length as u64)?;
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

/// A sequential read, a block at a time.
pub struct Blocks {
    source: RangeReader,
    next: u64,
    block: Bytes,
}

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            self.block = self.source.read(self.next, BLOCK)?;
            self.next += self.block.len() as u64;
        }
        let length = buffer.len().min(self.block.len());
        buffer[..length].copy_from_slice(&self.block.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fetches that these reads (start, length) of an object of `end` bytes cost.
    fn fetched(end: u64, reads: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
        let mut ahead = Ahead::new();
        let mut fetched = Vec::new();
        for (start, length) in reads {
            if ahead.find(start, length).is_none() {
                let (from, size) = ahead.plan(start, length, end);
                assert!(from <= start && start + length <= from + size && from + size <= end);
                ahead.keep(from, Bytes::from(vec![0; size as usize]));
                fetched.push((from, size));
            }
        }
        fetched
    }

    #[test]
    fn columns_that_follow_one_another_cost_few_fetches() {
        // The footer, then 122 columns of 35 kB, each a header of 512 bytes and its page.
        let (end, column) = (4_400_000, 35_000);
        let footer = [(end - 8, 8), (end - 20_000, 20_000 - 8)];
        let columns = (0..122).flat_map(|at| [(at * column, 512), (at * column + 40, column - 40)]);
        let fetches = fetched(end, footer.into_iter().chain(columns));
        assert!(fetches.len() <= 9, "{fetches:?}");
        let bytes: u64 = fetches.iter().map(|(_, size)| size).sum();
        assert!(bytes < end * 3 / 2, "{bytes}");
    }

    #[test]
    fn a_dictionary_that_is_read_after_its_page_costs_no_fetch_of_its_own() {
        let (end, column, dictionary) = (2_310_000, 18_900, 11_500);
        let columns = (0..122).flat_map(|at| {
            let (start, page) = (at * column, at * column + dictionary);
            let rest = column - dictionary;
            [(start, 512), (page, 512), (start, dictionary), (page, rest)]
        });
        let footer = [(end - 8, 8), (end - 20_000, 20_000 - 8)];
        let fetches = fetched(end, footer.into_iter().chain(columns));
        assert!(fetches.len() <= 9, "{fetches:?}");
        let bytes: u64 = fetches.iter().map(|(_, size)| size).sum();
        assert!(bytes < end * 3 / 2, "{bytes}");
    }

    #[test]
    fn scattered_reads_fetch_little_more_than_they_ask_for() {
        let reads = (0..50).map(|at| (at * 10_000_000, 512));
        let fetches = fetched(1 << 30, reads);
        assert_eq!(fetches.len(), 50);
        assert!(fetches.iter().all(|(_, size)| *size == BLOCK));
    }
}
