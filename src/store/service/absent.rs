//! Reads of what no bucket of this store has, answered as S3 does for a bucket that has none.

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::{Store, answer, objects, owner};

/// Operations whose one answer, where the bucket is there, is an error.
macro_rules! none {
    ($($name:ident($input:ty) -> $output:ty = $error:expr;)*) => {
        $(pub async fn $name(store: &Store, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
            there(store, request.input.bucket).await?;
            Err($error)
        })*
    };
}

/// Operations whose one answer, where the bucket is there, says that nothing is set.
macro_rules! unset {
    ($($name:ident($input:ty) -> $output:ident;)*) => {
        $(pub async fn $name(store: &Store, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
            there(store, request.input.bucket).await?;
            answer($output::default())
        })*
    };
}

none! {
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput
        = s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist");
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput
        = s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist");
    get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput
        = s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist");
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput
        = s3_error!(NoSuchCORSConfiguration, "The CORS configuration does not exist");
    get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput
        = not_found("ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found");
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput
        = s3_error!(NoSuchWebsiteConfiguration, "The specified bucket does not have a website configuration");
    get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput
        = s3_error!(ReplicationConfigurationNotFoundError, "The replication configuration was not found");
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput) -> GetBucketOwnershipControlsOutput
        = s3_error!(OwnershipControlsNotFoundError, "The bucket ownership controls were not found");
    get_public_access_block(GetPublicAccessBlockInput) -> GetPublicAccessBlockOutput
        = not_found("NoSuchPublicAccessBlockConfiguration", "The public access block configuration was not found");
    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput
        = s3_error!(ObjectLockConfigurationNotFoundError, "Object Lock configuration does not exist for this bucket");
    get_object_legal_hold(GetObjectLegalHoldInput) -> GetObjectLegalHoldOutput
        = s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration");
    get_object_retention(GetObjectRetentionInput) -> GetObjectRetentionOutput
        = s3_error!(InvalidRequest, "Bucket is missing Object Lock Configuration");
}

unset! {
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput) -> GetBucketNotificationConfigurationOutput;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput) -> GetBucketAccelerateConfigurationOutput;
}

pub async fn get_bucket_request_payment(
    store: &Store,
    request: S3Request<GetBucketRequestPaymentInput>,
) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
    there(store, request.input.bucket).await?;
    answer(GetBucketRequestPaymentOutput {
        payer: Some(Payer::from_static(Payer::BUCKET_OWNER)),
    })
}

pub async fn get_bucket_acl(
    store: &Store,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    there(store, request.input.bucket).await?;
    answer(GetBucketAclOutput {
        grants: Some(vec![all_to_the_owner()]),
        owner: Some(owner()),
    })
}

pub async fn get_object_acl(
    store: &Store,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let input = request.input;
    store
        .read(move |db| objects::get(db, &input.bucket, &input.key))
        .await?;
    answer(GetObjectAclOutput {
        grants: Some(vec![all_to_the_owner()]),
        owner: Some(owner()),
        request_charged: None,
    })
}

fn all_to_the_owner() -> Grant {
    Grant {
        grantee: Some(Grantee {
            display_name: owner().display_name,
            email_address: None,
            id: owner().id,
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        }),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    }
}

fn not_found(code: &'static str, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(hyper::StatusCode::NOT_FOUND);
    error
}

async fn there(store: &Store, bucket: String) -> S3Result<()> {
    store.read(move |db| objects::bucket(db, &bucket)).await?;
    Ok(())
}
