//! StartDataIngestionJob, DescribeDataIngestionJob, ListDataIngestionJobs, ListSensorStatistics.
//!
//! The job itself runs in the background (`super::super::jobs`).

use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::datasets::{self, stored_json};
use super::{Call, maybe_time, time};
use crate::service::faults::Fault;

/// StartDataIngestionJob.
pub fn start(call: &Call<'_>) -> Result<Value, Fault> {
    let dataset = datasets::named(call)?;
    if dataset.status.ends_with("IN_PROGRESS") {
        return Err(Fault::conflict(format!(
            "Dataset '{}' is {}: one job at a time",
            dataset.name, dataset.status
        )));
    }
    let input = call
        .input
        .get("IngestionInputConfiguration")
        .cloned()
        .unwrap_or_default();
    let pattern = input["S3InputConfiguration"]["KeyPattern"].as_str();
    if let Some(pattern) = pattern {
        crate::service::jobs::key_pattern(pattern).map_err(Fault::validation)?;
    } else if dataset.schema.is_none() {
        return Err(Fault::validation(
            "KeyPattern is required for the first ingestion of a dataset without a schema, for example \
             {prefix}/{component_name}/*",
        ));
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    let now = call.now.timestamp_micros();
    call.db.execute(
        "INSERT INTO ingestion_job (id, dataset_uuid, input, role_arn, status, created_us)
         VALUES (?1, ?2, ?3, ?4, 'IN_PROGRESS', ?5)",
        params![
            id,
            dataset.uuid,
            input.to_string(),
            call.input.required("RoleArn")?,
            now
        ],
    )?;
    call.db.execute(
        "UPDATE dataset SET status = 'INGESTION_IN_PROGRESS', updated_us = ?2 WHERE uuid = ?1",
        params![dataset.uuid, now],
    )?;
    Ok(json!({"JobId": id, "Status": "IN_PROGRESS"}))
}

/// DescribeDataIngestionJob.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let id = call.input.required("JobId")?;
    let described = call
        .db
        .query_row(
            "SELECT j.id, d.arn, j.input, j.role_arn, j.created_us, j.status, j.failed_reason, j.quality, j.files, j.size,
                    j.start_us, j.end_us, j.source_arn
             FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid WHERE j.id = ?1",
            [id],
            |row| {
                Ok(json!({
                    "JobId": row.get::<_, String>(0)?,
                    "DatasetArn": row.get::<_, String>(1)?,
                    "IngestionInputConfiguration": stored_json(row, 2)?,
                    "RoleArn": row.get::<_, Option<String>>(3)?,
                    "CreatedAt": time(row.get(4)?),
                    "Status": row.get::<_, String>(5)?,
                    "FailedReason": row.get::<_, Option<String>>(6)?,
                    "DataQualitySummary": stored_json(row, 7)?,
                    "IngestedFilesSummary": stored_json(row, 8)?,
                    "IngestedDataSize": row.get::<_, Option<i64>>(9)?,
                    "DataStartTime": maybe_time(row.get(10)?),
                    "DataEndTime": maybe_time(row.get(11)?),
                    "SourceDatasetArn": row.get::<_, Option<String>>(12)?,
                }))
            },
        )
        .optional()?;
    described.ok_or_else(|| Fault::not_found(format!("Data ingestion job '{id}' does not exist")))
}

/// ListDataIngestionJobs, newest first.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let page = call.page("ingestion jobs")?;
    let (before, before_id) = match page.after().and_then(|key| key.split_once(' ')) {
        Some((created, id)) => (created.parse().unwrap_or(i64::MAX), id.to_owned()),
        None => (i64::MAX, String::new()),
    };
    let mut statement = call.db.prepare_cached(
        "SELECT j.id, d.name, d.arn, j.input, j.status, j.created_us
         FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid
         WHERE (j.created_us, j.id) < (?1, ?2) AND (?3 IS NULL OR d.name = ?3) AND (?4 IS NULL OR j.status = ?4)
         ORDER BY j.created_us DESC, j.id DESC LIMIT ?5",
    )?;
    let item = |row: &Row<'_>| {
        let (id, created): (String, i64) = (row.get(0)?, row.get(5)?);
        let summary = json!({
            "JobId": id,
            "DatasetName": row.get::<_, String>(1)?,
            "DatasetArn": row.get::<_, String>(2)?,
            "IngestionInputConfiguration": stored_json(row, 3)?,
            "Status": row.get::<_, String>(4)?,
        });
        Ok((format!("{created} {id}"), summary))
    };
    let (name, status) = (call.input.text("DatasetName"), call.input.text("Status"));
    let rows = statement.query_map(params![before, before_id, name, status, page.limit()], item)?;
    let (summaries, next) = page.cut(rows.collect::<rusqlite::Result<_>>()?);
    Ok(json!({"NextToken": next, "DataIngestionJobSummaries": summaries}))
}

/// ListSensorStatistics of a job, by default the one whose rows the dataset holds; by component and sensor as strings.
pub fn statistics(call: &Call<'_>) -> Result<Value, Fault> {
    let dataset = datasets::named(call)?;
    let job = match call.input.text("IngestionJobId") {
        None => dataset.job_id,
        Some(id) => {
            let sql = "SELECT id FROM ingestion_job WHERE id = ?1 AND dataset_uuid = ?2";
            let found = call
                .db
                .query_row(sql, [id, &dataset.uuid], |row| row.get(0))
                .optional()?;
            let missing = || {
                Fault::not_found(format!(
                    "Dataset '{}' has no ingestion job '{id}'",
                    dataset.name
                ))
            };
            Some(found.ok_or_else(missing)?)
        }
    };
    let Some(job) = job else {
        return Ok(json!({"SensorStatisticsSummaries": []}));
    };
    let page = call.page(&format!("statistics of {job}"))?;
    let (component, sensor) = page
        .after()
        .and_then(|key| key.split_once('\\'))
        .unwrap_or_default();
    let mut statement = call.db.prepare_cached(
        "SELECT component, sensor, summary FROM sensor_statistics
         WHERE job_id = ?1 AND (component, sensor) > (?2, ?3) ORDER BY component, sensor LIMIT ?4",
    )?;
    let item = |row: &Row<'_>| {
        let key = format!("{}\\{}", row.get::<_, String>(0)?, row.get::<_, String>(1)?);
        Ok((key, stored_json(row, 2)?))
    };
    let rows = statement.query_map(params![job, component, sensor, page.limit()], item)?;
    let (summaries, next) = page.cut(rows.collect::<rusqlite::Result<_>>()?);
    Ok(json!({"SensorStatisticsSummaries": summaries, "NextToken": next}))
}
