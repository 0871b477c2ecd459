//! A history that lies in S3.

use aws_sdk_s3::Client;
use parquet::file::reader::Length;
use tokio::runtime::Handle;

use crate::s3::RangeReader;
use crate::source::replay::follow::{Identity, Place};
use crate::source::{Progress, SourceError};

/// An object of a bucket. It blocks, so it is used on blocking threads only.
pub(super) struct Object {
    client: Client,
    bucket: String,
    key: String,
    name: String,
    runtime: Handle,
}

impl Object {
    /// The object `key` of `bucket`, which need not be there.
    pub fn at(client: Client, bucket: &str, key: &str) -> Self {
        Self {
            client,
            name: format!("s3://{bucket}/{key}"),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            runtime: Handle::current(),
        }
    }

    fn find(&self, progress: &Progress) -> Result<RangeReader, SourceError> {
        let progress = progress.clone();
        self.runtime
            .block_on(RangeReader::open(
                self.client.clone(),
                &self.bucket,
                &self.key,
                Box::new(move |bytes| progress.made(bytes)),
            ))
            .map_err(|error| SourceError::Unavailable {
                name: self.name.clone(),
                source: error.into(),
            })
    }
}

impl Place for Object {
    type Reader = RangeReader;

    fn name(&self) -> &str {
        &self.name
    }

    fn look(&self) -> Result<Identity, SourceError> {
        self.find(&Progress::default())
            .map(|found| identity(&found))
    }

    fn open(&self, progress: &Progress) -> Result<(RangeReader, Identity), SourceError> {
        let found = self.find(progress)?;
        let identity = identity(&found);
        Ok((found, identity))
    }

    fn changes_at_once(&self) -> bool {
        true
    }
}

fn identity(found: &RangeReader) -> Identity {
    Identity::Object {
        etag: found.etag().map(str::to_owned),
        size: found.len(),
    }
}
