//! The store as S3: one operation after the other, each in the words of the protocol.
//!
//! What the store does not have is answered as S3 answers it for a bucket that has none; what it does not do at all is
//! refused as NotImplemented by the protocol's crate. `docs/store.md` lists both.

/// The five checksums that a request says of a body.
macro_rules! said {
    ($of:expr) => {
        Checksum {
            checksum_crc32: $of.checksum_crc32,
            checksum_crc32c: $of.checksum_crc32c,
            checksum_crc64nvme: $of.checksum_crc64nvme,
            checksum_sha1: $of.checksum_sha1,
            checksum_sha256: $of.checksum_sha256,
            checksum_type: None,
        }
    };
}

/// An answer, or a part of one, with the five checksums.
macro_rules! told {
    ($sums:ident, $answer:ident { $($fields:tt)* }) => {
        $answer {
            checksum_crc32: $sums.checksum_crc32,
            checksum_crc32c: $sums.checksum_crc32c,
            checksum_crc64nvme: $sums.checksum_crc64nvme,
            checksum_sha1: $sums.checksum_sha1,
            checksum_sha256: $sums.checksum_sha256,
            $($fields)*
        }
    };
}

/// The headers and the metadata that a request gives an object, or what is wrong with them.
macro_rules! facts {
    ($of:expr) => {
        Facts {
            content_type: $of.content_type,
            content_encoding: Facts::encoding($of.content_encoding),
            content_disposition: $of.content_disposition,
            content_language: $of.content_language,
            cache_control: $of.cache_control,
            expires: Facts::expires($of.expires),
            redirect: $of.website_redirect_location,
            metadata: Facts::metadata($of.metadata),
            ..Facts::default()
        }
        .checked()
    };
}

/// The conditions on the source of a copy.
macro_rules! source_conditions {
    ($of:expr) => {
        Conditions {
            if_match: $of.copy_source_if_match,
            if_none_match: $of.copy_source_if_none_match,
            if_modified_since: $of.copy_source_if_modified_since,
            if_unmodified_since: $of.copy_source_if_unmodified_since,
        }
    };
}

mod absent;
mod copies;
mod lists;
mod reads;
mod select;
mod uploads;
mod writes;

use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::{Problem, Store, objects, tags};

/// The one owner of everything.
const OWNER: &str = "lookoutd";

/// A store that speaks S3.
#[derive(Clone, Debug)]
pub struct Service {
    store: Store,
}

impl Service {
    /// Over an open store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

impl From<Problem> for S3Error {
    fn from(problem: Problem) -> Self {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
        let again = |code: S3ErrorCode, message: String| {
            let mut error = S3Error::with_message(code, message);
            let mut headers = hyper::HeaderMap::new();
            headers.insert(
                hyper::header::RETRY_AFTER,
                hyper::header::HeaderValue::from_static("1"),
            );
            headers.insert(
                hyper::header::CONTENT_TYPE,
                hyper::header::HeaderValue::from_static("application/xml"),
            );
            error.set_headers(headers);
            error
        };
        let full = |error: &std::io::Error| {
            matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            )
        };
        match problem {
            Problem::Refused(error) => error,
            Problem::Sqlite(error) => match error.sqlite_error_code() {
                Some(DatabaseBusy | DatabaseLocked) => again(
                    S3ErrorCode::SlowDown,
                    "Please reduce your request rate: another process holds the store's database."
                        .into(),
                ),
                Some(DiskFull) => again(S3ErrorCode::ServiceUnavailable, FULL.into()),
                _ => again(
                    S3ErrorCode::ServiceUnavailable,
                    format!("The store's database refused: {error}"),
                ),
            },
            Problem::Io(error) if full(&error) => {
                again(S3ErrorCode::ServiceUnavailable, FULL.into())
            }
            Problem::Closed => again(
                S3ErrorCode::ServiceUnavailable,
                "The store is being closed.".into(),
            ),
            Problem::Io(_) | Problem::Damaged(_) => {
                S3Error::with_message(S3ErrorCode::InternalError, problem.to_string())
            }
        }
    }
}

const FULL: &str =
    "The disk of the store is full: reads and deletions go on, writes will when there is room.";

fn answer<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

fn time(ms: i64) -> Timestamp {
    // Whole seconds: the header cannot say more, and the same time is told everywhere.
    let since = std::time::Duration::from_secs(ms.div_euclid(1000).max(0) as u64);
    Timestamp::from(std::time::UNIX_EPOCH + since)
}

fn etag(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

fn owner() -> Owner {
    Owner {
        display_name: Some(OWNER.into()),
        id: Some(OWNER.into()),
    }
}

/// There are no versions but the one that is there.
fn only_null(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null" | "") => Ok(()),
        Some(_) => Err(s3_error!(
            NoSuchVersion,
            "The specified version does not exist."
        )),
    }
}

/// Encrypted by a key of the client's is nothing here.
fn no_customer_key(algorithm: Option<&String>) -> S3Result<()> {
    match algorithm {
        None => Ok(()),
        Some(_) => Err(s3_error!(
            NotImplemented,
            "Encryption with keys of the client is not implemented by this store"
        )),
    }
}

/// Any of S3's storage classes is kept as it was said.
fn class(class: Option<&StorageClass>) -> S3Result<Option<String>> {
    const CLASSES: [&str; 9] = [
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "GLACIER_IR",
        "EXPRESS_ONEZONE",
    ];
    match class.map(StorageClass::as_str) {
        None | Some("STANDARD") => Ok(None),
        Some(known) if CLASSES.contains(&known) => Ok(Some(known.to_owned())),
        Some(_) => Err(s3_error!(
            InvalidStorageClass,
            "The storage class you specified is not valid"
        )),
    }
}

/// Operations in the words of the trait, each of which is done elsewhere.
macro_rules! operations {
    ($($name:ident($input:ty) -> $output:ty = $module:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Service {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                $module::$name(&self.store, request).await
            })*
        }
    };
}

operations! {
    create_bucket(CreateBucketInput) -> CreateBucketOutput = buckets;
    head_bucket(HeadBucketInput) -> HeadBucketOutput = buckets;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput = buckets;
    list_buckets(ListBucketsInput) -> ListBucketsOutput = buckets;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput = buckets;
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput = buckets;
    put_bucket_tagging(PutBucketTaggingInput) -> PutBucketTaggingOutput = buckets;
    delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput = buckets;
    get_object(GetObjectInput) -> GetObjectOutput = reads;
    head_object(HeadObjectInput) -> HeadObjectOutput = reads;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput = reads;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput = reads;
    put_object(PutObjectInput) -> PutObjectOutput = writes;
    post_object(PostObjectInput) -> PostObjectOutput = writes;
    copy_object(CopyObjectInput) -> CopyObjectOutput = copies;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput = writes;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = writes;
    put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput = writes;
    delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput = writes;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput = uploads;
    upload_part(UploadPartInput) -> UploadPartOutput = uploads;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput = uploads;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput = uploads;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput = uploads;
    list_parts(ListPartsInput) -> ListPartsOutput = uploads;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput = uploads;
    list_objects(ListObjectsInput) -> ListObjectsOutput = lists;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output = lists;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput = lists;
    select_object_content(SelectObjectContentInput) -> SelectObjectContentOutput = select;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput = absent;
    get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput = absent;
    get_object_acl(GetObjectAclInput) -> GetObjectAclOutput = absent;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput = absent;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput = absent;
    get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput = absent;
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput = absent;
    get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput = absent;
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput = absent;
    get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput = absent;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput = absent;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput) -> GetBucketNotificationConfigurationOutput = absent;
    get_bucket_request_payment(GetBucketRequestPaymentInput) -> GetBucketRequestPaymentOutput = absent;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput) -> GetBucketAccelerateConfigurationOutput = absent;
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput) -> GetBucketOwnershipControlsOutput = absent;
    get_public_access_block(GetPublicAccessBlockInput) -> GetPublicAccessBlockOutput = absent;
    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput = absent;
    get_object_legal_hold(GetObjectLegalHoldInput) -> GetObjectLegalHoldOutput = absent;
    get_object_retention(GetObjectRetentionInput) -> GetObjectRetentionOutput = absent;
}

mod buckets {
    //! Operations on buckets.

    use super::*;

    pub async fn create_bucket(
        store: &Store,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let input = request.input;
        if ["-.", ".-"].iter().any(|pair| input.bucket.contains(pair)) {
            return Err(s3_error!(
                InvalidBucketName,
                "The specified bucket is not valid."
            ));
        }
        let region = input
            .create_bucket_configuration
            .and_then(|configuration| configuration.location_constraint)
            .map(|region| region.as_str().to_owned())
            .filter(|region| !region.is_empty() && region != "us-east-1");
        let location = format!("/{}", input.bucket);
        // One's own made again is made already.
        store
            .write(move |turn| objects::make_bucket(turn, &input.bucket, region.as_deref()))
            .await?;
        answer(CreateBucketOutput {
            location: Some(location),
        })
    }

    pub async fn head_bucket(
        store: &Store,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let bucket = store
            .read(move |db| objects::describe(db, &request.input.bucket))
            .await?;
        answer(HeadBucketOutput {
            bucket_region: Some(bucket.region.unwrap_or_else(|| "us-east-1".into())),
            ..HeadBucketOutput::default()
        })
    }

    pub async fn delete_bucket(
        store: &Store,
        request: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        store
            .write(move |turn| objects::remove_bucket(turn, &request.input.bucket))
            .await?;
        answer(DeleteBucketOutput::default())
    }

    pub async fn list_buckets(
        store: &Store,
        request: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let input = request.input;
        let mut buckets = store.read(objects::buckets).await?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.unwrap_or_default();
        buckets.retain(|bucket| bucket.name.starts_with(&prefix) && bucket.name > after);
        let most = input
            .max_buckets
            .map_or(usize::MAX, |most| most.max(0) as usize);
        let more = buckets.len() > most;
        buckets.truncate(most);
        let next = buckets
            .last()
            .filter(|_| more)
            .map(|bucket| bucket.name.clone());
        let told = buckets.into_iter().map(|bucket| Bucket {
            bucket_region: None,
            creation_date: Some(time(bucket.made_ms)),
            name: Some(bucket.name),
        });
        answer(ListBucketsOutput {
            buckets: Some(told.collect()),
            continuation_token: next,
            owner: Some(owner()),
            prefix: input.prefix,
        })
    }

    pub async fn get_bucket_location(
        store: &Store,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        let bucket = store
            .read(move |db| objects::describe(db, &request.input.bucket))
            .await?;
        answer(GetBucketLocationOutput {
            location_constraint: bucket.region.map(BucketLocationConstraint::from),
        })
    }

    pub async fn get_bucket_tagging(
        store: &Store,
        request: S3Request<GetBucketTaggingInput>,
    ) -> S3Result<S3Response<GetBucketTaggingOutput>> {
        let tags = store
            .read(move |db| objects::bucket_tags(db, &request.input.bucket))
            .await?;
        if tags.is_empty() {
            return Err(s3_error!(NoSuchTagSet, "The TagSet does not exist"));
        }
        answer(GetBucketTaggingOutput {
            tag_set: tags::to_set(tags),
        })
    }

    pub async fn put_bucket_tagging(
        store: &Store,
        request: S3Request<PutBucketTaggingInput>,
    ) -> S3Result<S3Response<PutBucketTaggingOutput>> {
        writes::whole_body(&request.headers, &request.extensions)?;
        let input = request.input;
        let tags = tags::of_set(input.tagging.tag_set, tags::OF_BUCKET)?;
        store
            .write(move |turn| objects::tag_bucket(turn, &input.bucket, &tags))
            .await?;
        answer(PutBucketTaggingOutput::default())
    }

    pub async fn delete_bucket_tagging(
        store: &Store,
        request: S3Request<DeleteBucketTaggingInput>,
    ) -> S3Result<S3Response<DeleteBucketTaggingOutput>> {
        store
            .write(move |turn| objects::tag_bucket(turn, &request.input.bucket, &Vec::new()))
            .await?;
        answer(DeleteBucketTaggingOutput::default())
    }
}
