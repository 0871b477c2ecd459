//! The buckets that schedulers and jobs read from and write to, each met once.
//!
//! Before the first results are created in a bucket it is found out whether the store honours conditional creates, as the
//! gateway does with its own; where it does not, results are looked up before they are written, and the log says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::Client;
use tokio::sync::OnceCell;

use crate::s3::{Bucket, S3Error};

/// The buckets, by name.
pub struct Buckets {
    client: Client,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Clone)]
struct Known {
    bucket: Bucket,
    /// The bucket as it is written to, once that was found out.
    met: Arc<OnceCell<Bucket>>,
}

impl Buckets {
    /// Reached through `client`.
    pub fn new(client: Client) -> Buckets {
        Buckets {
            client,
            known: Mutex::default(),
        }
    }

    /// A bucket to read from.
    pub fn read(&self, name: &str) -> Bucket {
        self.known(name).bucket
    }

    /// A bucket to create results in, under `prefix`.
    pub async fn write(&self, name: &str, prefix: &str) -> Result<Bucket, S3Error> {
        let Known { mut bucket, met } = self.known(name);
        let meet = async {
            let lacking = bucket.probe(prefix).await?.lacking();
            if let Some(lacking) = lacking {
                tracing::warn!(
                    bucket = name,
                    lacking,
                    "the store takes no conditional creates: results are looked up before each is written, and two writers may race"
                );
            }
            Ok(bucket)
        };
        met.get_or_try_init(|| meet).await.cloned()
    }

    fn known(&self, name: &str) -> Known {
        let mut known = self.lock();
        let entry = known.entry(name.to_owned()).or_insert_with(|| Known {
            bucket: Bucket::new(self.client.clone(), name),
            met: Arc::default(),
        });
        entry.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
