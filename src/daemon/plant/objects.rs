//! A history that lies in S3: one object, or all under a prefix.

use aws_sdk_s3::Client;
use parquet::file::reader::Length;
use tokio::runtime::Handle;

use crate::s3::{Bucket, LANES, RangeReader, S3Error};
use crate::source::replay::follow::{Identity, Listed, Listing, Place};
use crate::source::{Progress, SourceError};

/// Objects of a bucket. It blocks, so it is used on blocking threads only.
pub(super) struct Objects {
    client: Client,
    bucket: String,
    /// A key, or what keys begin with where it is empty or ends with a slash.
    key: String,
    name: String,
    runtime: Handle,
}

impl Objects {
    /// The object `key` of `bucket`, which need not be there; or, where it ends with a slash, all whose keys begin so.
    pub fn at(client: Client, bucket: &str, key: &str) -> Self {
        Self {
            client,
            name: format!("s3://{bucket}/{key}"),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            runtime: Handle::current(),
        }
    }

    fn head(&self, file: &str, progress: &Progress) -> Result<RangeReader, S3Error> {
        let key = file.strip_prefix(&format!("s3://{}/", self.bucket));
        let progress = progress.clone();
        self.runtime.block_on(RangeReader::open(
            self.client.clone(),
            &self.bucket,
            key.unwrap_or(file),
            Box::new(move |bytes| progress.made(bytes)),
        ))
    }
}

fn unavailable(name: &str, error: S3Error) -> SourceError {
    SourceError::Unavailable {
        name: name.to_owned(),
        source: error.into(),
    }
}

impl Place for Objects {
    type Reader = RangeReader;

    fn name(&self) -> &str {
        &self.name
    }

    fn list(&mut self) -> Result<Listing, SourceError> {
        if !self.key.is_empty() && !self.key.ends_with('/') {
            let found = self.head(&self.name, &Progress::default());
            let found = found.map_err(|error| unavailable(&self.name, error))?;
            return Ok(Listing::one(&self.name, Some(identity(&found))));
        }
        let mut listing = Listing::default();
        let bucket = Bucket::new(self.client.clone(), &self.bucket);
        let walk = bucket.walk(&self.key, "", None, |object| {
            if listing.wants(&self.key, &object.key) {
                listing.files.push(Listed {
                    name: format!("s3://{}/{}", self.bucket, object.key).into(),
                    identity: Some(Identity::Object {
                        etag: object.etag.as_deref().map(bare),
                        size: object.size,
                    }),
                });
            }
            true
        });
        self.runtime
            .block_on(walk)
            .map_err(|error| unavailable(&self.name, error))?;
        Ok(listing.in_order())
    }

    fn look(&self, file: &str) -> Result<Option<Identity>, SourceError> {
        match self.head(file, &Progress::default()) {
            Ok(found) => Ok(Some(identity(&found))),
            Err(error) if error.failure.is_no_such_key() => Ok(None),
            Err(error) => Err(unavailable(file, error)),
        }
    }

    fn open(
        &self,
        file: &str,
        progress: &Progress,
    ) -> Result<(RangeReader, Identity), SourceError> {
        let found = self
            .head(file, progress)
            .map_err(|error| unavailable(file, error))?;
        let identity = identity(&found);
        Ok((found, identity))
    }

    fn changes_at_once(&self) -> bool {
        true
    }

    fn lanes(&self) -> usize {
        LANES
    }
}

fn identity(found: &RangeReader) -> Identity {
    Identity::Object {
        etag: found.etag().map(bare),
        size: found.len(),
    }
}

/// An ETag without its quotes, which not every listing has.
fn bare(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}
