//! Objects that are durable before anybody sees them: what stands between the protocol and the files of s3s-fs.
//!
//! ```text
//!  PUT ─► .staging/ (s3s-fs: body, checksums) ─► fsync ─► taken? ─► rename to its place ─► fsync of the directories ─► 200
//! ```
//!
//! Guarantees: a PUT is answered 200 when bytes and name are on disk; where the disk refuses, the answer is 500 and the object
//! is not there, so that the client's next attempt writes it anew instead of finding it. Creates of one key go one at a
//! time. What lies in `.staging` at a start was never acknowledged and is removed.
//!
//! Copies, multipart uploads and writes with `If-Match` are put in their place by s3s-fs and made durable there, before
//! they are acknowledged. Deletions are not synced: one that a power cut takes back is repeated by whoever wanted it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};

use anyhow::{Context, anyhow};
use aws_smithy_types::base64;
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::warn;

/// Where bodies are written first; no bucket can have this name.
const STAGING: &str = ".staging";
/// The one bucket in there.
const STAGED: &str = "staged";
/// Writes whose keys fall together wait for each other.
const TURNS: usize = 64;

/// The files of a store.
pub struct Durable {
    /// Objects in their place.
    placed: FileSystem,
    /// Objects in the making.
    staging: FileSystem,
    place: Arc<Place>,
    next: AtomicU64,
    turns: Vec<Arc<Mutex<()>>>,
    hashing: RandomState,
}

/// The directory of a store.
struct Place {
    root: PathBuf,
    /// Directories that were made and whose names may not be on disk.
    unsynced: Lock<HashSet<PathBuf>>,
}

/// A file and what s3s-fs keeps beside it.
struct Files {
    object: PathBuf,
    /// Checksums; s3s-fs refuses to read an object whose own cannot be read.
    info: PathBuf,
    /// Headers; what cannot be read is taken as absent.
    attributes: PathBuf,
}

/// A staged object, removed when it was not put in its place.
struct Staged(Files);

/// Why an object was not put in its place.
enum Refused {
    Exists,
    Io(io::Error),
}

impl Durable {
    /// The store under `root`.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        let staging = root.join(STAGING);
        match std::fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("emptying {}", staging.display()));
            }
            _ => {}
        }
        std::fs::create_dir_all(&staging)
            .with_context(|| format!("creating {}", staging.display()))?;
        let files = |root: &Path| {
            FileSystem::new(root)
                .map_err(|error| anyhow!("embedded S3 in {}: {error:?}", root.display()))
        };
        Ok(Self {
            placed: files(root)?,
            staging: files(&staging)?,
            place: Arc::new(Place {
                root: root.to_owned(),
                unsynced: Lock::default(),
            }),
            next: AtomicU64::new(0),
            turns: (0..TURNS).map(|_| Arc::default()).collect(),
            hashing: RandomState::new(),
        })
    }

    /// Waits until nobody else writes to this key.
    async fn turn(&self, bucket: &str, key: &str) -> OwnedMutexGuard<()> {
        let at = self.hashing.hash_one((bucket, key)) as usize % TURNS;
        self.turns[at].clone().lock_owned().await
    }

    /// Makes what s3s-fs has put in its place durable; what is new and cannot be is removed.
    async fn settle(&self, bucket: String, key: String, existed: bool) -> S3Result<()> {
        let place = self.place.clone();
        let settled = tokio::task::spawn_blocking(move || {
            let files = Files::of(&place.root, &bucket, &key);
            let settled = place.settle(&files);
            if let Err(error) = &settled {
                not_durable(&bucket, &key, error);
                if !existed {
                    files.remove();
                }
            }
            settled
        });
        settled
            .await
            .map_err(S3Error::internal_error)?
            .map_err(S3Error::internal_error)
    }

    fn exists(&self, bucket: &str, key: &str) -> bool {
        Files::of(&self.place.root, bucket, key).object.exists()
    }
}

impl Place {
    /// Puts a staged object in its place, for good or not at all.
    fn publish(
        &self,
        staged: &Files,
        bucket: &str,
        key: &str,
        create: bool,
    ) -> Result<(), Refused> {
        let files = Files::of(&self.root, bucket, key);
        let existed = files.object.exists();
        if create && existed {
            return Err(Refused::Exists);
        }
        let put = || -> io::Result<()> {
            sync(&staged.object)?;
            sync(&staged.info)?;
            self.make_directories(&files.object)?;
            // An object without its checksums is read, one with those of other bytes is not: they go first and come last.
            for beside in [&files.info, &files.attributes] {
                absent_is_well(std::fs::remove_file(beside))?;
            }
            std::fs::rename(&staged.object, &files.object)?;
            std::fs::rename(&staged.info, &files.info)?;
            absent_is_well(std::fs::rename(&staged.attributes, &files.attributes))?;
            self.sync_directories(&files.object)
        };
        put().map_err(|error| {
            not_durable(bucket, key, &error);
            if !existed {
                files.remove();
            }
            Refused::Io(error)
        })
    }

    /// Syncs an object in its place, and its name.
    fn settle(&self, files: &Files) -> io::Result<()> {
        sync(&files.object)?;
        if files.info.exists() {
            sync(&files.info)?;
        }
        // s3s-fs made the directories, if they are new.
        let mut unsynced = self.unsynced();
        unsynced.extend(self.directories(&files.object).map(Path::to_owned));
        drop(unsynced);
        self.sync_directories(&files.object)
    }

    fn make_directories(&self, object: &Path) -> io::Result<()> {
        let mut unsynced = self.unsynced();
        let absent = self.directories(object).filter(|path| !path.exists());
        unsynced.extend(absent.map(Path::to_owned));
        drop(unsynced);
        match object.parent() {
            Some(parent) => std::fs::create_dir_all(parent),
            None => Ok(()),
        }
    }

    /// Makes a name durable, and those of the directories above it that may not be.
    fn sync_directories(&self, object: &Path) -> io::Result<()> {
        if let Some(parent) = object.parent() {
            sync(parent)?;
        }
        for directory in self.directories(object) {
            if self.unsynced().contains(directory) {
                if let Some(parent) = directory.parent() {
                    sync(parent)?;
                }
                self.unsynced().remove(directory);
            }
        }
        Ok(())
    }

    /// The directories that hold an object, up to its bucket.
    fn directories<'a>(&'a self, object: &'a Path) -> impl Iterator<Item = &'a Path> {
        object
            .ancestors()
            .skip(1)
            .take_while(|directory| *directory != self.root)
    }

    fn unsynced(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    /// Where s3s-fs keeps an object and what belongs to it.
    fn of(root: &Path, bucket: &str, key: &str) -> Self {
        let encode = |text: &str| {
            let encoded = base64::encode(text).replace('+', "-").replace('/', "_");
            encoded.trim_end_matches('=').to_owned()
        };
        let beside = format!(".bucket-{}.object-{}", encode(bucket), encode(key));
        Self {
            object: root.join(bucket).join(key),
            info: root.join(format!("{beside}.internal.json")),
            attributes: root.join(format!("{beside}.metadata.json")),
        }
    }

    /// Takes all of it away; the object first, because it alone is what is seen.
    fn remove(&self) {
        for path in [&self.object, &self.info, &self.attributes] {
            if let Err(error) = absent_is_well(std::fs::remove_file(path)) {
                warn!(path = %path.display(), %error, "embedded S3 could not take a refused object away");
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.0.remove();
    }
}

fn not_durable(bucket: &str, key: &str, error: &io::Error) {
    warn!(bucket, key, %error, "embedded S3 could not make an object durable: refused with 500");
}

fn absent_is_well(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync(path: &Path) -> io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

#[async_trait::async_trait]
impl S3 for Durable {
    async fn put_object(
        &self,
        mut req: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        if key.ends_with('/') || req.input.if_match.is_some() {
            let turn = self.turn(&bucket, &key).await;
            let existed = self.exists(&bucket, &key);
            let output = self.placed.put_object(req).await;
            if let Ok(output) = output {
                self.settle(bucket, key, existed).await?;
                return Ok(output);
            }
            drop(turn);
            return output;
        }
        let condition = req.input.if_none_match.take();
        let create = condition.is_some_and(|condition| condition.is_any());
        if create && self.exists(&bucket, &key) {
            return Err(s3_error!(PreconditionFailed, "Object already exists"));
        }
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let staging = self.place.root.join(STAGING);
        let staged = Staged(Files::of(&staging, STAGED, &name));
        (req.input.bucket, req.input.key) = (STAGED.to_owned(), name);
        let output = self.staging.put_object(req).await?;
        let turn = self.turn(&bucket, &key).await;
        let place = self.place.clone();
        // Goes on to its end when the client has gone: an object is never seen half-way.
        let published = tokio::task::spawn_blocking(move || {
            let published = place.publish(&staged.0, &bucket, &key, create);
            drop((staged, turn));
            published
        });
        match published.await.map_err(S3Error::internal_error)? {
            Ok(()) => Ok(output),
            Err(Refused::Exists) => Err(s3_error!(PreconditionFailed, "Object already exists")),
            Err(Refused::Io(error)) => Err(S3Error::internal_error(error)),
        }
    }

    async fn copy_object(
        &self,
        req: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let _turn = self.turn(&bucket, &key).await;
        let existed = self.exists(&bucket, &key);
        let output = self.placed.copy_object(req).await?;
        self.settle(bucket, key, existed).await?;
        Ok(output)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
        let _turn = self.turn(&bucket, &key).await;
        let existed = self.exists(&bucket, &key);
        let output = self.placed.complete_multipart_upload(req).await?;
        self.settle(bucket, key, existed).await?;
        Ok(output)
    }

    async fn create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let output = self.placed.create_bucket(req).await?;
        sync(&self.place.root).map_err(S3Error::internal_error)?;
        Ok(output)
    }

    async fn delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.placed.delete_bucket(req).await
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.placed.delete_object(req).await
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.placed.delete_objects(req).await
    }

    async fn get_bucket_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.placed.get_bucket_location(req).await
    }

    async fn get_object(
        &self,
        req: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.placed.get_object(req).await
    }

    async fn head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.placed.head_bucket(req).await
    }

    async fn head_object(
        &self,
        req: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        self.placed.head_object(req).await
    }

    async fn list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        self.placed.list_buckets(req).await
    }

    async fn list_objects(
        &self,
        req: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        self.placed.list_objects(req).await
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.placed.list_objects_v2(req).await
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.placed.create_multipart_upload(req).await
    }

    async fn upload_part(
        &self,
        req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        self.placed.upload_part(req).await
    }

    async fn upload_part_copy(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.placed.upload_part_copy(req).await
    }

    async fn list_parts(
        &self,
        req: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        self.placed.list_parts(req).await
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.placed.abort_multipart_upload(req).await
    }
}
