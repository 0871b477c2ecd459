//! CreateDataset, DescribeDataset, ListDatasets, DeleteDataset.

use serde_json::{Value, json};

use super::{Request, answer, maybe_time, time};
use crate::service::faults::Fault;
use crate::service::schema::Schema;
use crate::service::store::datasets::NewDataset;

/// CreateDataset.
pub async fn create(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("DatasetName")?;
    let schema = input
        .get("DatasetSchema")
        .and_then(|schema| schema["InlineDataSchema"].as_str());
    if let Some(text) = schema {
        Schema::parse(text)?;
    }
    let uuid = uuid::Uuid::new_v4().to_string();
    let new = NewDataset {
        name: name.to_owned(),
        arn: request.identity.arn("dataset", name, &uuid),
        uuid,
        schema: schema.map(str::to_owned),
        kms_key: input.text("ServerSideKmsKeyId").map(str::to_owned),
        tags: input.tags()?,
    };
    let made = request
        .store
        .create_dataset(request.once(), new, request.now);
    answer(made.await?)
}

/// DescribeDataset, with what the last successful ingestion found.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("DatasetName")?;
    let (dataset, job) = request.store.dataset(name).await?;
    let job = job.as_ref();
    Ok(json!({
        "DatasetName": dataset.name,
        "DatasetArn": dataset.arn,
        "CreatedAt": time(dataset.created_us),
        "LastUpdatedAt": time(dataset.updated_us),
        "Status": dataset.status,
        "Schema": dataset.schema,
        "ServerSideKmsKeyId": dataset.kms_key,
        "IngestionInputConfiguration": job.map(|job| &job.input),
        "DataQualitySummary": job.map(|job| &job.quality),
        "IngestedFilesSummary": job.map(|job| &job.files),
        "RoleArn": job.map(|job| &job.role_arn),
        "DataStartTime": maybe_time(job.and_then(|job| job.start_us)),
        "DataEndTime": maybe_time(job.and_then(|job| job.end_us)),
        "SourceDatasetArn": dataset.source_arn,
    }))
}

/// ListDatasets, by name.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let page = request.page("datasets")?;
    let prefix = request.input.text("DatasetNameBeginsWith");
    let after = page.after().unwrap_or_default();
    let found = request
        .store
        .datasets(prefix.unwrap_or_default(), after, page.limit())
        .await?;
    let items = found.into_iter().map(|dataset| {
        let summary = json!({
            "DatasetName": dataset.name,
            "DatasetArn": dataset.arn,
            "Status": dataset.status,
            "CreatedAt": time(dataset.created_us),
        });
        (dataset.name, summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "DatasetSummaries": summaries}))
}

/// DeleteDataset: not during an ingestion, and not while a model was made of it.
pub async fn delete(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("DatasetName")?;
    request.store.delete_dataset(name).await?;
    Ok(Value::Null)
}
