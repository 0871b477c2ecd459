//! DescribeModelVersion, ListModelVersions, UpdateActiveModelVersion.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::datasets::stored_json;
use super::{Call, maybe_time, models, time};
use crate::service::faults::Fault;
use crate::service::schema::Schema;

/// One model version as stored.
#[derive(Debug, Clone)]
pub struct Version {
    /// 1, 2, ...
    pub number: i64,
    /// ARN.
    pub arn: String,
    /// `IN_PROGRESS`, `SUCCESS`, `FAILED`, `IMPORT_IN_PROGRESS` or `CANCELED`.
    pub status: String,
    /// `TRAINING`, `RETRAINING` or `IMPORT`.
    pub source_type: String,
    /// Its schema string.
    pub schema: Option<String>,
    /// Why it failed.
    pub failed_reason: Option<String>,
    /// Metrics of its evaluation, a JSON string.
    pub metrics: Option<String>,
    /// Verdict of its evaluation.
    pub quality: Option<String>,
    /// When its training began and ended.
    pub execution_us: (Option<i64>, Option<i64>),
    /// Members of Describe answers, as given or found.
    pub detail: Value,
    created_us: i64,
    updated_us: i64,
}

const COLUMNS: &str = "version, arn, status, source_type, schema, failed_reason, metrics, quality, execution_start_us, \
     execution_end_us, detail, created_us, updated_us";

/// DescribeModelVersion.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let model = models::named(call)?;
    let number = call.input.integer("ModelVersion").unwrap_or_default();
    let version =
        stored(call.db, &model.uuid, number)?.ok_or_else(|| unknown(&model.name, number))?;
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
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let model = models::named(call)?;
    let input = call.input;
    let page = call.page(&format!("versions of {}", model.uuid))?;
    let sql = format!(
        "SELECT {COLUMNS} FROM model_version
         WHERE model_uuid = ?1 AND version < ?2 AND (?3 IS NULL OR status = ?3) AND (?4 IS NULL OR source_type = ?4)
           AND created_us >= ?5 AND created_us <= ?6 AND version >= ?7 AND version <= ?8
         ORDER BY version DESC LIMIT ?9"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let rows = statement.query_map(
        params![
            model.uuid,
            page.after()
                .and_then(|key| key.parse().ok())
                .unwrap_or(i64::MAX),
            input.text("Status"),
            input.text("SourceType"),
            input.time_us("CreatedAtStartTime").unwrap_or(i64::MIN),
            input.time_us("CreatedAtEndTime").unwrap_or(i64::MAX),
            input.integer("MinModelVersion").unwrap_or(1),
            input.integer("MaxModelVersion").unwrap_or(i64::MAX),
            page.limit(),
        ],
        read,
    )?;
    let mut items = Vec::new();
    for row in rows {
        let version = row?;
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
        items.push((version.number.to_string(), summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "ModelVersionSummaries": summaries}))
}

/// UpdateActiveModelVersion: schedulers take it up with their next execution.
pub fn activate(call: &Call<'_>) -> Result<Value, Fault> {
    let model = models::named(call)?;
    let number = call.input.integer("ModelVersion").unwrap_or_default();
    let version =
        stored(call.db, &model.uuid, number)?.ok_or_else(|| unknown(&model.name, number))?;
    if version.status != "SUCCESS" {
        return Err(Fault::conflict(format!(
            "Version {number} of model '{}' is {}: only a version that is SUCCESS can be active",
            model.name, version.status
        )));
    }
    if let Some(schema) = &version.schema {
        let (own, other) = (Schema::parse(&model.schema)?, Schema::parse(schema)?);
        let odd = own
            .missing_from(&other)
            .or_else(|| other.missing_from(&own));
        if let Some(odd) = odd {
            return Err(Fault::conflict(format!(
                "Version {number} of model '{}' was made for other sensors than the model has, '{odd}' among them: it \
                 cannot be active",
                model.name
            )));
        }
    }
    promote(call.db, &model.uuid, number, call.now.timestamp_micros())?;
    let current = models::named(call)?;
    Ok(json!({
        "ModelName": model.name,
        "ModelArn": model.arn,
        "CurrentActiveVersion": number,
        "PreviousActiveVersion": current.previous_version,
        "CurrentActiveVersionArn": version.arn,
        "PreviousActiveVersionArn": current.previous_version.map(|previous| arn(&model.arn, previous)),
    }))
}

/// Makes version `number` the active one; what was active becomes the previous.
pub fn promote(db: &Connection, model_uuid: &str, number: i64, now: i64) -> Result<(), Fault> {
    db.execute(
        "UPDATE model SET previous_version = active_version, previous_activated_us = activated_us, active_version = ?2,
                          activated_us = ?3, updated_us = ?3,
                          quality = (SELECT quality FROM model_version WHERE model_uuid = ?1 AND version = ?2)
         WHERE uuid = ?1 AND active_version IS NOT ?2",
        params![model_uuid, number, now],
    )?;
    Ok(())
}

/// Adds the next version of a model, in training on the rows of `dataset_file`. Returns its number.
#[expect(clippy::too_many_arguments, reason = "a row has this many columns")]
pub fn insert(
    db: &Connection,
    model_uuid: &str,
    model_arn: &str,
    source_type: &str,
    dataset_file: Option<&str>,
    schema: &str,
    detail: &Value,
    now: i64,
) -> Result<i64, Fault> {
    let sql = "SELECT coalesce(max(version), 0) + 1 FROM model_version WHERE model_uuid = ?1";
    let number: i64 = db.query_row(sql, [model_uuid], |row| row.get(0))?;
    let status = if source_type == "IMPORT" {
        "IMPORT_IN_PROGRESS"
    } else {
        "IN_PROGRESS"
    };
    db.execute(
        "INSERT INTO model_version (model_uuid, version, arn, status, source_type, created_us, updated_us, dataset_file,
                                    schema, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9)",
        params![
            model_uuid,
            number,
            arn(model_arn, number),
            status,
            source_type,
            now,
            dataset_file,
            schema,
            detail.to_string()
        ],
    )?;
    Ok(number)
}

/// The ARN of a model's version.
pub fn arn(model_arn: &str, number: i64) -> String {
    format!("{model_arn}/model-version/{number}")
}

/// The version of that number.
pub fn stored(db: &Connection, model_uuid: &str, number: i64) -> Result<Option<Version>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM model_version WHERE model_uuid = ?1 AND version = ?2");
    Ok(db
        .prepare_cached(&sql)?
        .query_row(params![model_uuid, number], read)
        .optional()?)
}

/// A version of the model that is trained or imported now, or waits for it: its number and status.
pub fn under_way(db: &Connection, model_uuid: &str) -> Result<Option<(i64, String)>, Fault> {
    let sql = "SELECT version, status FROM model_version
               WHERE model_uuid = ?1 AND status IN ('IN_PROGRESS', 'IMPORT_IN_PROGRESS') ORDER BY version LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(db.query_row(sql, [model_uuid], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        number: row.get(0)?,
        arn: row.get(1)?,
        status: row.get(2)?,
        source_type: row.get(3)?,
        schema: row.get(4)?,
        failed_reason: row.get(5)?,
        metrics: row.get(6)?,
        quality: row.get(7)?,
        execution_us: (row.get(8)?, row.get(9)?),
        detail: stored_json(row, 10)?,
        created_us: row.get(11)?,
        updated_us: row.get(12)?,
    })
}

fn unknown(model: &str, number: i64) -> Fault {
    Fault::not_found(format!("Model '{model}' has no version {number}"))
}
