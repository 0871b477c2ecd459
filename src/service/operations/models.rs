//! CreateModel, DescribeModel, ListModels, UpdateModel, DeleteModel. Training runs in the background.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::datasets::{self, stored_json};
use super::{Call, maybe_time, time, versions};
use crate::model::{OffCondition, Sampling};
use crate::service::faults::Fault;
use crate::service::schema::Schema;
use crate::service::store::tags;
use crate::service::store::versions::dataset_file;

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

/// One model as stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// Status of the model.
    pub status: String,
    /// Its schema string.
    pub schema: String,
    /// Name and ARN of the dataset, absent for a model put in from outside.
    pub dataset: Option<(String, String)>,
    /// Sampling interval in microseconds if the model has a target rate.
    pub sampling_us: Option<i64>,
    /// The active version, absent until one succeeded.
    pub active_version: Option<i64>,
    /// The version that was active before.
    pub previous_version: Option<i64>,
    /// When each became active.
    pub activated_us: (Option<i64>, Option<i64>),
    /// What the next training uses.
    pub detail: Value,
    quality: Option<String>,
    created_us: i64,
    updated_us: i64,
}

const COLUMNS: &str = "name, uuid, arn, status, schema, dataset_name, dataset_arn, active_version, previous_version, \
     activated_us, previous_activated_us, detail, quality, created_us, updated_us, sampling_us";

/// CreateModel: checks the request against the dataset and starts the training of version 1.
pub fn create(call: &Call<'_>) -> Result<Value, Fault> {
    let input = call.input;
    let name = input.required("ModelName")?;
    if by_name(call.db, name)?.is_some() {
        return Err(Fault::conflict(format!("Model '{name}' already exists")));
    }
    let dataset = datasets::named(call)?;
    let (Some(job), Some(dataset_schema)) = (&dataset.job_id, &dataset.schema) else {
        return Err(Fault::conflict(format!(
            "Dataset '{}' is {} and holds no data: run StartDataIngestionJob first",
            dataset.name, dataset.status
        )));
    };
    let Some(rows) = dataset_file(call.db, job)? else {
        return Err(Fault::conflict(format!(
            "The rows of dataset '{}' are not there: run StartDataIngestionJob again",
            dataset.name
        )));
    };
    let schema_text = match input
        .get("DatasetSchema")
        .and_then(|schema| schema["InlineDataSchema"].as_str())
    {
        None => dataset_schema.clone(),
        Some(text) => {
            if let Some(absent) = Schema::parse(text)?.missing_from(&Schema::parse(dataset_schema)?)
            {
                return Err(Fault::validation(format!(
                    "'{absent}' is not in the schema of dataset '{}'",
                    dataset.name
                )));
            }
            text.to_owned()
        }
    };
    let detail: Map<String, Value> = GIVEN
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), input.get(name)?.clone())))
        .collect();
    check(call, &detail, &Schema::parse(&schema_text)?)?;

    let uuid = uuid::Uuid::new_v4().to_string();
    let arn = call.arn("model", name, &uuid);
    let detail = Value::Object(detail);
    let sampling_us = sampling_us(&detail);
    let now = call.now.timestamp_micros();
    call.db.execute(
        "INSERT INTO model (name, uuid, arn, status, schema, sampling_us, created_us, updated_us, dataset_name,
                            dataset_arn, detail)
         VALUES (?1, ?2, ?3, 'IN_PROGRESS', ?4, ?5, ?6, ?6, ?7, ?8, ?9)",
        params![name, uuid, arn, schema_text, sampling_us, now, dataset.name, dataset.arn, detail.to_string()],
    )?;
    versions::insert(
        call.db,
        &uuid,
        &arn,
        "TRAINING",
        Some(&rows),
        &schema_text,
        &detail,
        now,
    )?;
    tags::set(call.db, &arn, &input.tags()?)?;
    Ok(json!({"ModelArn": arn, "Status": "IN_PROGRESS"}))
}

/// The target sampling rate among a model's given members, microseconds.
pub fn sampling_us(detail: &Value) -> Option<i64> {
    let sampling = detail["DataPreProcessingConfiguration"]["TargetSamplingRate"].as_str()?;
    Some(sampling.parse::<Sampling>().ok()?.micros())
}

/// What the shape cannot say about a model's inputs.
fn check(call: &Call<'_>, detail: &Map<String, Value>, schema: &Schema) -> Result<(), Fault> {
    for range in ["Training", "Evaluation"] {
        let at = |end: &str| {
            detail
                .get(&format!("{range}Data{end}Time"))
                .and_then(Value::as_f64)
        };
        if let (Some(start), Some(end)) = (at("Start"), at("End"))
            && start >= end
        {
            return Err(Fault::validation(format!(
                "{range}DataStartTime must be before {range}DataEndTime"
            )));
        }
    }
    if detail.contains_key("EvaluationDataStartTime")
        != detail.contains_key("EvaluationDataEndTime")
    {
        return Err(Fault::validation(
            "EvaluationDataStartTime and EvaluationDataEndTime must be given together",
        ));
    }
    let labels = detail
        .get("LabelsInputConfiguration")
        .cloned()
        .unwrap_or_default();
    if let Some(group) = labels["LabelGroupName"].as_str() {
        let sql = "SELECT 1 FROM label_group WHERE name = ?1";
        let found: Option<i64> = call
            .db
            .query_row(sql, [group], |row| row.get(0))
            .optional()?;
        found.ok_or_else(|| Fault::not_found(format!("Label group '{group}' does not exist")))?;
    }
    let in_s3 = labels["S3InputConfiguration"].is_object()
        || detail.contains_key("ModelDiagnosticsOutputConfiguration");
    if in_s3 && !detail.contains_key("RoleArn") {
        return Err(Fault::validation(
            "RoleArn is required when labels or diagnostics are in S3",
        ));
    }
    if let Some(condition) = detail.get("OffCondition").and_then(Value::as_str) {
        let off: OffCondition = condition
            .parse()
            .map_err(|error| Fault::validation(format!("OffCondition is invalid: {error}")))?;
        let known = schema.components.iter().any(|component| {
            component.name == off.sensor.component && component.sensors.contains(&off.sensor.signal)
        });
        if !known {
            return Err(Fault::validation(format!(
                "OffCondition names '{}', which is not in the schema",
                off.sensor
            )));
        }
    }
    Ok(())
}

/// DescribeModel: the model with its active version, or the first while that is in training.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let model = named(call)?;
    let version = versions::stored(call.db, &model.uuid, model.active_version.unwrap_or(1))?;
    let previous = match model.previous_version {
        Some(number) => versions::stored(call.db, &model.uuid, number)?,
        None => None,
    };
    let version = version.ok_or_else(Fault::internal)?;
    let given = |name: &str| version.detail[name].clone();
    let retraining = super::retraining::summary(call.db, &model)?;
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
        "PreviousActiveModelVersionArn": previous.as_ref().map(|previous| previous.arn.clone()),
        "PreviousModelVersionActivatedAt": maybe_time(model.activated_us.1),
        "PriorModelMetrics": given("PriorModelMetrics"),
        "LatestScheduledRetrainingFailedReason": retraining["FailedReason"],
        "LatestScheduledRetrainingStatus": retraining["Status"],
        "LatestScheduledRetrainingModelVersion": retraining["ModelVersion"],
        "LatestScheduledRetrainingStartTime": retraining["StartTime"],
        "LatestScheduledRetrainingAvailableDataInDays": retraining["AvailableDataInDays"],
        "NextScheduledRetrainingStartDate": retraining["NextStartDate"],
        "RetrainingSchedulerStatus": retraining["SchedulerStatus"],
        "ModelDiagnosticsOutputConfiguration": model.detail["ModelDiagnosticsOutputConfiguration"],
        "ModelQuality": model.quality,
    }))
}

/// ListModels, by name.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let page = call.page("models")?;
    let sql = format!(
        "SELECT {COLUMNS} FROM model
         WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2
           AND substr(coalesce(dataset_name, ''), 1, length(?3)) = ?3 AND (?4 IS NULL OR status = ?4)
         ORDER BY name LIMIT ?5"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let found: Vec<Stored> = statement
        .query_map(
            params![
                page.after().unwrap_or_default(),
                call.input.text("ModelNameBeginsWith").unwrap_or_default(),
                call.input.text("DatasetNameBeginsWith").unwrap_or_default(),
                call.input.text("Status"),
                page.limit(),
            ],
            read,
        )?
        .collect::<rusqlite::Result<_>>()?;
    let mut items = Vec::new();
    for model in found {
        let retraining = super::retraining::summary(call.db, &model)?;
        let active = model
            .active_version
            .map(|version| versions::arn(&model.arn, version));
        let summary = json!({
            "ModelName": model.name,
            "ModelArn": model.arn,
            "DatasetName": model.dataset.as_ref().map(|(name, _)| name),
            "DatasetArn": model.dataset.as_ref().map(|(_, arn)| arn),
            "Status": model.status,
            "CreatedAt": time(model.created_us),
            "ActiveModelVersion": model.active_version,
            "ActiveModelVersionArn": active,
            "LatestScheduledRetrainingStatus": retraining["Status"],
            "LatestScheduledRetrainingModelVersion": retraining["ModelVersion"],
            "LatestScheduledRetrainingStartTime": retraining["StartTime"],
            "NextScheduledRetrainingStartDate": retraining["NextStartDate"],
            "RetrainingSchedulerStatus": retraining["SchedulerStatus"],
            "ModelDiagnosticsOutputConfiguration": model.detail["ModelDiagnosticsOutputConfiguration"],
            "ModelQuality": model.quality,
        });
        items.push((model.name, summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "ModelSummaries": summaries}))
}

/// UpdateModel: what the next training uses.
pub fn update(call: &Call<'_>) -> Result<Value, Fault> {
    let model = named(call)?;
    if model.status.ends_with("IN_PROGRESS") {
        return Err(Fault::conflict(format!(
            "Model '{}' is {}: wait until it has ended",
            model.name, model.status
        )));
    }
    let mut detail = model.detail.as_object().cloned().unwrap_or_default();
    for name in [
        "LabelsInputConfiguration",
        "RoleArn",
        "ModelDiagnosticsOutputConfiguration",
    ] {
        if let Some(value) = call.input.get(name) {
            detail.insert(name.to_owned(), value.clone());
        }
    }
    check(call, &detail, &Schema::parse(&model.schema)?)?;
    call.db.execute(
        "UPDATE model SET detail = ?2, updated_us = ?3 WHERE uuid = ?1",
        params![
            model.uuid,
            Value::Object(detail).to_string(),
            call.now.timestamp_micros()
        ],
    )?;
    Ok(Value::Null)
}

/// DeleteModel: not while a version of it is made, and not while a scheduler points at it.
pub fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    let model = named(call)?;
    if let Some((version, status)) = versions::under_way(call.db, &model.uuid)? {
        return Err(Fault::conflict(format!(
            "Version {version} of model '{}' is {status}: wait until it has ended",
            model.name
        )));
    }
    let scheduler: Option<String> = call
        .db
        .query_row(
            "SELECT name FROM scheduler WHERE model_name = ?1",
            [&model.name],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(scheduler) = scheduler {
        return Err(Fault::conflict(format!(
            "Model '{}' is used by inference scheduler '{scheduler}': stop and delete the scheduler first",
            model.name
        )));
    }
    call.db
        .execute("DELETE FROM model WHERE uuid = ?1", [&model.uuid])?;
    call.db.execute(
        "DELETE FROM resource_policy WHERE arn = ?1 OR arn LIKE ?1 || '/model-version/%'",
        [&model.arn],
    )?;
    tags::forget(call.db, &model.arn)?;
    Ok(Value::Null)
}

/// The model the request names.
pub fn named(call: &Call<'_>) -> Result<Stored, Fault> {
    let name = call.input.required("ModelName")?;
    by_name(call.db, name)?
        .ok_or_else(|| Fault::not_found(format!("Model '{name}' does not exist")))
}

/// The model of that name.
pub fn by_name(db: &Connection, name: &str) -> Result<Option<Stored>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM model WHERE name = ?1");
    Ok(db
        .prepare_cached(&sql)?
        .query_row([name], read)
        .optional()?)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    let dataset: (Option<String>, Option<String>) = (row.get(5)?, row.get(6)?);
    Ok(Stored {
        name: row.get(0)?,
        uuid: row.get(1)?,
        arn: row.get(2)?,
        status: row.get(3)?,
        schema: row.get(4)?,
        dataset: dataset.0.zip(dataset.1),
        active_version: row.get(7)?,
        previous_version: row.get(8)?,
        activated_us: (row.get(9)?, row.get(10)?),
        detail: stored_json(row, 11)?,
        quality: row.get(12)?,
        created_us: row.get(13)?,
        updated_us: row.get(14)?,
        sampling_us: row.get(15)?,
    })
}
