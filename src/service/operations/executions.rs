//! ListInferenceExecutions.
//!
//! Newest first; the input configuration of a summary carries only the S3 location, and `CustomerResultObject` only
//! comes with SUCCESS, as in the recorded answers. The time filters are inclusive (the original's strictness is not
//! documented): a client that polls from the last end it saw misses nothing.

use serde_json::{Value, json};

use super::{Request, time};
use crate::clock;
use crate::service::faults::Fault;
use crate::service::store::executions::ExecutionStatus;
use crate::service::store::past::ExecutionsAsked;

/// ListInferenceExecutions.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("InferenceSchedulerName")?;
    let scheduler = request.store.scheduler(name).await?;
    let page = request.page(&format!("executions of {}", scheduler.uuid))?;
    let after = page.after().and_then(|key| key.parse().ok());
    let asked = ExecutionsAsked {
        scheduler_uuid: scheduler.uuid,
        before_us: after.unwrap_or(i64::MAX),
        from_us: input.time_us("DataStartTimeAfter").unwrap_or(i64::MIN),
        to_us: input.time_us("DataEndTimeBefore").unwrap_or(i64::MAX),
        status: input.text("Status").and_then(ExecutionStatus::from_sql),
        limit: page.limit(),
        // Before the clock is set nothing is of a time to come.
        now_us: match clock::is_set(request.now) {
            true => request.now.timestamp_micros(),
            false => i64::MAX,
        },
    };
    let found = request.store.executions(asked).await?;
    let item = |past: crate::service::store::past::Past| {
        let result = past.result.map_or(
            Value::Null,
            |(bucket, key)| json!({"Bucket": bucket, "Key": key}),
        );
        let input = match past.input.is_null() {
            true => Value::Null,
            false => json!({"S3InputConfiguration": past.input["S3InputConfiguration"]}),
        };
        let summary = json!({
            "ModelName": scheduler.model_name,
            "ModelArn": scheduler.model_arn,
            "InferenceSchedulerName": scheduler.name,
            "InferenceSchedulerArn": scheduler.arn,
            "ScheduledStartTime": time(past.scheduled_us),
            "DataStartTime": time(past.start_us),
            "DataEndTime": time(past.boundary_us),
            "DataInputConfiguration": input,
            "DataOutputConfiguration": past.output,
            "CustomerResultObject": result,
            "Status": past.status,
            "FailedReason": past.failed_reason,
            "ModelVersion": past.model_version,
            "ModelVersionArn": past.model_version_arn,
        });
        (past.boundary_us.to_string(), summary)
    };
    let (summaries, next) = page.cut(found.into_iter().map(item).collect());
    Ok(json!({"NextToken": next, "InferenceExecutionSummaries": summaries}))
}
