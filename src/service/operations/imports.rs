//! ImportDataset and ImportModelVersion, from datasets and models of this same service. The copying runs in the
//! background.

use serde_json::Value;

use super::models::given;
use super::{Request, answer};
use crate::service::faults::Fault;
use crate::service::store::datasets::NewImport;
use crate::service::store::imports::NewVersionImport;

/// ImportDataset: a new dataset with the rows another holds now.
pub async fn dataset(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let uuid = uuid::Uuid::new_v4().to_string();
    let (identity, id) = (request.identity.clone(), uuid.clone());
    let new = NewImport {
        source_arn: input.required("SourceDatasetArn")?.to_owned(),
        name: input.text("DatasetName").map(str::to_owned),
        uuid,
        arn: Box::new(move |name| identity.arn("dataset", name, &id)),
        job_id: uuid::Uuid::new_v4().simple().to_string(),
        kms_key: input.text("ServerSideKmsKeyId").map(str::to_owned),
        tags: input.tags()?,
    };
    let made = request
        .store
        .import_dataset(request.once(), new, request.now);
    answer(made.await?)
}

/// ImportModelVersion: the next version of a model, or a new model, from a version that succeeded.
pub async fn model_version(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let uuid = uuid::Uuid::new_v4().to_string();
    let (identity, id) = (request.identity.clone(), uuid.clone());
    let new = NewVersionImport {
        source_arn: input.required("SourceModelVersionArn")?.to_owned(),
        model: input.text("ModelName").map(str::to_owned),
        dataset: input.required("DatasetName")?.to_owned(),
        uuid,
        arn: Box::new(move |name| identity.arn("model", name, &id)),
        detail: given(
            input,
            &["LabelsInputConfiguration", "RoleArn", "ServerSideKmsKeyId"],
        ),
        tags: input.tags()?,
    };
    let made = request
        .store
        .import_version(request.once(), new, request.now);
    answer(made.await?)
}
