//! DescribeModelVersion, ListModelVersions, UpdateActiveModelVersion.

use serde_json::{Value, json};

use super::{Request, maybe_time, time};
use crate::service::faults::Fault;
use crate::service::store::versions::{self, SourceType, VersionStatus, VersionsAsked};

/// DescribeModelVersion.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let number = input.integer("ModelVersion").unwrap_or_default();
    let found = request
        .store
        .version(input.required("ModelName")?, number)
        .await;
    let (model, version) = found?;
    let given = |name: &str| version.detail[name].clone();
    Ok(json!({
        "ModelName": model.name,
        "ModelArn": model.arn,
        "ModelVersion": version.number,
        "ModelVersionArn": version.arn,
        "Status": version.status,
        "SourceType": version.source_type,
        "DatasetName": model.dataset.as_ref().map(|(name, _)| name),
        "DatasetArn": model.dataset.as_ref().map(|(_, arn)| arn),
        "Schema": version.schema.as_ref().unwrap_or(&model.schema),
        "LabelsInputConfiguration": given("LabelsInputConfiguration"),
        "TrainingDataStartTime": given("TrainingDataStartTime"),
        "TrainingDataEndTime": given("TrainingDataEndTime"),
        "EvaluationDataStartTime": given("EvaluationDataStartTime"),
        "EvaluationDataEndTime": given("EvaluationDataEndTime"),
        "RoleArn": given("RoleArn"),
        "DataPreProcessingConfiguration": given("DataPreProcessingConfiguration"),
        "TrainingExecutionStartTime": maybe_time(version.execution_us.0),
        "TrainingExecutionEndTime": maybe_time(version.execution_us.1),
        "FailedReason": version.failed_reason,
        "ModelMetrics": version.metrics,
        "LastUpdatedTime": time(version.updated_us),
        "CreatedAt": time(version.created_us),
        "ServerSideKmsKeyId": given("ServerSideKmsKeyId"),
        "OffCondition": given("OffCondition"),
        "SourceModelVersionArn": given("SourceModelVersionArn"),
        "ImportJobStartTime": given("ImportJobStartTime"),
        "ImportJobEndTime": given("ImportJobEndTime"),
        "ImportedDataSizeInBytes": given("ImportedDataSizeInBytes"),
        "PriorModelMetrics": given("PriorModelMetrics"),
        "RetrainingAvailableDataInDays": given("RetrainingAvailableDataInDays"),
        "AutoPromotionResult": given("AutoPromotionResult"),
        "AutoPromotionResultReason": given("AutoPromotionResultReason"),
        "ModelDiagnosticsOutputConfiguration": given("ModelDiagnosticsOutputConfiguration"),
        "ModelDiagnosticsResultsObject": given("ModelDiagnosticsResultsObject"),
        "ModelQuality": version.quality,
    }))
}

/// ListModelVersions, newest first.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("ModelName")?;
    let model = request.store.model(name).await?.model;
    let page = request.page(&format!("versions of {}", model.uuid))?;
    let after = page.after().and_then(|key| key.parse().ok());
    let asked = VersionsAsked {
        model_uuid: model.uuid,
        status: input.text("Status").and_then(VersionStatus::from_sql),
        source_type: input.text("SourceType").and_then(SourceType::from_sql),
        created_us: (
            input.time_us("CreatedAtStartTime").unwrap_or(i64::MIN),
            input.time_us("CreatedAtEndTime").unwrap_or(i64::MAX),
        ),
        numbers: (
            input.integer("MinModelVersion").unwrap_or(1),
            input.integer("MaxModelVersion").unwrap_or(i64::MAX),
        ),
        before: after.unwrap_or(i64::MAX),
        limit: page.limit(),
    };
    let found = request.store.versions(asked).await?;
    let items = found.into_iter().map(|version| {
        let summary = json!({
            "ModelName": model.name,
            "ModelArn": model.arn,
            "ModelVersion": version.number,
            "ModelVersionArn": version.arn,
            "CreatedAt": time(version.created_us),
            "Status": version.status,
            "SourceType": version.source_type,
            "ModelQuality": version.quality,
        });
        (version.number.to_string(), summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "ModelVersionSummaries": summaries}))
}

/// UpdateActiveModelVersion: schedulers take it up with their next execution.
pub async fn activate(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let number = input.integer("ModelVersion").unwrap_or_default();
    let name = input.required("ModelName")?;
    let activated = request
        .store
        .activate_version(name, number, request.now)
        .await?;
    let (model, version) = (activated.model, activated.version);
    Ok(json!({
        "ModelName": model.name,
        "ModelArn": model.arn,
        "CurrentActiveVersion": version.number,
        "PreviousActiveVersion": model.previous_version,
        "CurrentActiveVersionArn": version.arn,
        "PreviousActiveVersionArn": model.previous_version.map(|previous| versions::arn(&model.arn, previous)),
    }))
}
