//! ListInferenceEvents: contiguous anomalous spans, as the runner recorded them.
//!
//! An event is listed if it lasted longer than five minutes, ends at or after `IntervalStartTime` and starts before
//! `IntervalEndTime`; newest first (contract 5.4). Only this list leaves short ones out: they are events all the same.

use serde_json::{Value, json};

use super::{Request, time};
use crate::service::faults::Fault;
use crate::service::store::past::PastEvent;

/// ListInferenceEvents.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let (Some(from), Some(to)) = (
        input.time_us("IntervalStartTime"),
        input.time_us("IntervalEndTime"),
    ) else {
        return Err(Fault::internal());
    };
    if from >= to {
        return Err(Fault::validation(
            "IntervalStartTime must be before IntervalEndTime",
        ));
    }
    let name = input.required("InferenceSchedulerName")?;
    let scheduler = request.store.scheduler(name).await?;
    let page = request.page(&format!("events of {}", scheduler.uuid))?;
    let after = page.after().and_then(|key| key.parse().ok());
    let found = request.store.events(
        &scheduler.uuid,
        (from, to),
        after.unwrap_or(i64::MAX),
        page.limit(),
    );
    let item = |event: PastEvent| {
        let summary = json!({
            "InferenceSchedulerArn": scheduler.arn,
            "InferenceSchedulerName": scheduler.name,
            "EventStartTime": time(event.start_us),
            "EventEndTime": time(event.end_us),
            "Diagnostics": event.diagnostics,
            "EventDurationInSeconds": (event.end_us - event.start_us) / 1_000_000,
        });
        (event.start_us.to_string(), summary)
    };
    let (summaries, next) = page.cut(found.await?.into_iter().map(item).collect());
    Ok(json!({"NextToken": next, "InferenceEventSummaries": summaries}))
}
