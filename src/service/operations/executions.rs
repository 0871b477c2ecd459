//! ListInferenceExecutions.
//!
//! Newest first; the input configuration of a summary carries only the S3 location, and `CustomerResultObject` only
//! comes with SUCCESS, as in the recorded answers. The time filters are inclusive (the original's strictness is not
//! documented): a client that polls from the last end it saw misses nothing.

use rusqlite::params;
use serde_json::{Value, json};

use super::{Call, schedulers, time};
use crate::service::faults::Fault;

/// ListInferenceExecutions.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let scheduler = schedulers::named(call)?;
    let page = call.page(&format!("executions of {}", scheduler.uuid))?;
    let before: i64 = page
        .after()
        .and_then(|key| key.parse().ok())
        .unwrap_or(i64::MAX);
    let mut statement = call.db.prepare_cached(
        "SELECT boundary_us, start_us, scheduled_us, status, input, output, model_version, model_version_arn,
                result_bucket, result_key, failed_reason
         FROM execution
         WHERE scheduler_uuid = ?1 AND boundary_us < ?2 AND start_us >= ?3 AND boundary_us <= ?4
           AND (?5 IS NULL OR status = ?5)
         ORDER BY boundary_us DESC LIMIT ?6",
    )?;
    let mut rows = statement.query(params![
        scheduler.uuid,
        before,
        call.input.time_us("DataStartTimeAfter").unwrap_or(i64::MIN),
        call.input.time_us("DataEndTimeBefore").unwrap_or(i64::MAX),
        call.input.text("Status"),
        page.limit(),
    ])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let boundary_us: i64 = row.get(0)?;
        let json_at = |index: usize| -> Result<Value, Fault> {
            serde_json::from_str(&row.get::<_, String>(index)?).map_err(|_| Fault::internal())
        };
        let result = match (
            row.get::<_, Option<String>>(8)?,
            row.get::<_, Option<String>>(9)?,
        ) {
            (Some(bucket), Some(key)) => json!({"Bucket": bucket, "Key": key}),
            _ => Value::Null,
        };
        let summary = json!({
            "ModelName": scheduler.model_name,
            "ModelArn": scheduler.model_arn,
            "InferenceSchedulerName": scheduler.name,
            "InferenceSchedulerArn": scheduler.arn,
            "ScheduledStartTime": time(row.get(2)?),
            "DataStartTime": time(row.get(1)?),
            "DataEndTime": time(boundary_us),
            "DataInputConfiguration": {"S3InputConfiguration": json_at(4)?["S3InputConfiguration"]},
            "DataOutputConfiguration": json_at(5)?,
            "CustomerResultObject": result,
            "Status": row.get::<_, String>(3)?,
            "FailedReason": row.get::<_, Option<String>>(10)?,
            "ModelVersion": row.get::<_, i64>(6)?,
            "ModelVersionArn": row.get::<_, String>(7)?,
        });
        items.push((boundary_us.to_string(), summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "InferenceExecutionSummaries": summaries}))
}
