//! CreateModel, DescribeModel, ListModels, UpdateModel, DeleteModel. Training runs in the background.

use serde_json::{Map, Value, json};

use super::{Input, Request, answer, maybe_time, time};
use crate::service::faults::Fault;
use crate::service::store::models::{ModelStatus, ModelsAsked, NewTraining};
use crate::service::store::versions;

/// Members of a CreateModel request that describe the model and come back in Describe answers.
const GIVEN: [&str; 10] = [
    "LabelsInputConfiguration",
    "TrainingDataStartTime",
    "TrainingDataEndTime",
    "EvaluationDataStartTime",
    "EvaluationDataEndTime",
    "RoleArn",
    "DataPreProcessingConfiguration",
    "ServerSideKmsKeyId",
    "OffCondition",
    "ModelDiagnosticsOutputConfiguration",
];

/// Those of them that UpdateModel changes.
const CHANGEABLE: [&str; 3] = [
    "LabelsInputConfiguration",
    "RoleArn",
    "ModelDiagnosticsOutputConfiguration",
];

/// CreateModel: checks the request against the dataset and starts the training of version 1.
pub async fn create(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("ModelName")?;
    let schema = input
        .get("DatasetSchema")
        .and_then(|schema| schema["InlineDataSchema"].as_str());
    let uuid = uuid::Uuid::new_v4().to_string();
    let new = NewTraining {
        name: name.to_owned(),
        arn: request.identity.arn("model", name, &uuid),
        uuid,
        dataset: input.required("DatasetName")?.to_owned(),
        schema: schema.map(str::to_owned),
        detail: given(input, &GIVEN),
        tags: input.tags()?,
    };
    let made = request.store.create_model(request.once(), new, request.now);
    answer(made.await?)
}

/// DescribeModel: the model with its active version, or the first while that is in training.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("ModelName")?;
    let told = request.store.model(name).await?;
    let (model, version) = (told.model, told.version);
    let given = |name: &str| version.detail[name].clone();
    let retrained = told.retraining.latest.as_ref();
    Ok(json!({
        "ModelName": model.name,
        "ModelArn": model.arn,
        "DatasetName": model.dataset.as_ref().map(|(name, _)| name),
        "DatasetArn": model.dataset.as_ref().map(|(_, arn)| arn),
        "Schema": model.schema,
        "LabelsInputConfiguration": model.detail["LabelsInputConfiguration"],
        "TrainingDataStartTime": given("TrainingDataStartTime"),
        "TrainingDataEndTime": given("TrainingDataEndTime"),
        "EvaluationDataStartTime": given("EvaluationDataStartTime"),
        "EvaluationDataEndTime": given("EvaluationDataEndTime"),
        "RoleArn": model.detail["RoleArn"],
        "DataPreProcessingConfiguration": given("DataPreProcessingConfiguration"),
        "Status": model.status,
        "TrainingExecutionStartTime": maybe_time(version.execution_us.0),
        "TrainingExecutionEndTime": maybe_time(version.execution_us.1),
        "FailedReason": version.failed_reason,
        "ModelMetrics": version.metrics,
        "LastUpdatedTime": time(model.updated_us),
        "CreatedAt": time(model.created_us),
        "ServerSideKmsKeyId": model.detail["ServerSideKmsKeyId"],
        "OffCondition": given("OffCondition"),
        "SourceModelVersionArn": given("SourceModelVersionArn"),
        "ImportJobStartTime": given("ImportJobStartTime"),
        "ImportJobEndTime": given("ImportJobEndTime"),
        "ActiveModelVersion": model.active_version,
        "ActiveModelVersionArn": model.active_version.map(|_| version.arn.clone()),
        "ModelVersionActivatedAt": maybe_time(model.activated_us.0),
        "PreviousActiveModelVersion": model.previous_version,
        "PreviousActiveModelVersionArn": told.previous.as_ref().map(|previous| previous.arn.clone()),
        "PreviousModelVersionActivatedAt": maybe_time(model.activated_us.1),
        "PriorModelMetrics": given("PriorModelMetrics"),
        "LatestScheduledRetrainingFailedReason": retrained.and_then(|latest| latest.failed_reason.as_ref()),
        "LatestScheduledRetrainingStatus": retrained.map(|latest| latest.status),
        "LatestScheduledRetrainingModelVersion": retrained.map(|latest| latest.version),
        "LatestScheduledRetrainingStartTime": maybe_time(retrained.map(|latest| latest.created_us)),
        "LatestScheduledRetrainingAvailableDataInDays": retrained.map(|latest| &latest.available_days),
        "NextScheduledRetrainingStartDate": maybe_time(told.retraining.next_us),
        "RetrainingSchedulerStatus": told.retraining.status,
        "ModelDiagnosticsOutputConfiguration": model.detail["ModelDiagnosticsOutputConfiguration"],
        "ModelQuality": model.quality,
    }))
}

/// ListModels, by name.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let page = request.page("models")?;
    let prefix = |name: &str| input.text(name).unwrap_or_default().to_owned();
    let asked = ModelsAsked {
        prefix: prefix("ModelNameBeginsWith"),
        dataset_prefix: prefix("DatasetNameBeginsWith"),
        status: input.text("Status").and_then(ModelStatus::from_sql),
        after: page.after().unwrap_or_default().to_owned(),
        limit: page.limit(),
    };
    let found = request.store.models(asked).await?;
    let items = found.into_iter().map(|(model, retraining)| {
        let active = model
            .active_version
            .map(|version| versions::arn(&model.arn, version));
        let retrained = retraining.latest.as_ref();
        let summary = json!({
            "ModelName": model.name,
            "ModelArn": model.arn,
            "DatasetName": model.dataset.as_ref().map(|(name, _)| name),
            "DatasetArn": model.dataset.as_ref().map(|(_, arn)| arn),
            "Status": model.status,
            "CreatedAt": time(model.created_us),
            "ActiveModelVersion": model.active_version,
            "ActiveModelVersionArn": active,
            "LatestScheduledRetrainingStatus": retrained.map(|latest| latest.status),
            "LatestScheduledRetrainingModelVersion": retrained.map(|latest| latest.version),
            "LatestScheduledRetrainingStartTime": maybe_time(retrained.map(|latest| latest.created_us)),
            "NextScheduledRetrainingStartDate": maybe_time(retraining.next_us),
            "RetrainingSchedulerStatus": retraining.status,
            "ModelDiagnosticsOutputConfiguration": model.detail["ModelDiagnosticsOutputConfiguration"],
            "ModelQuality": model.quality,
        });
        (model.name, summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "ModelSummaries": summaries}))
}

/// UpdateModel: what the next training uses.
pub async fn update(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("ModelName")?;
    let change = given(request.input, &CHANGEABLE);
    request
        .store
        .update_model(name, change, request.now)
        .await?;
    Ok(Value::Null)
}

/// DeleteModel: not while a version of it is made, and not while a scheduler points at it.
pub async fn delete(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("ModelName")?;
    request.store.delete_model(name).await?;
    Ok(Value::Null)
}

/// Those of these members that a request has.
pub fn given(input: &Input, names: &[&str]) -> Map<String, Value> {
    let found = names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), input.get(name)?.clone())));
    found.collect()
}
