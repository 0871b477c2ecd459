//! ListInferenceEvents: contiguous anomalous spans, as the runner recorded them.
//!
//! An event is listed if it lasted longer than five minutes, ends at or after `IntervalStartTime` and starts before
//! `IntervalEndTime`; newest first (contract 5.4).

use rusqlite::params;
use serde_json::{Value, json};

use super::{Call, schedulers, time};
use crate::service::faults::Fault;

/// Only events longer than this are listed.
const LONGER_THAN_US: i64 = 300_000_000;

/// ListInferenceEvents.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let (Some(from), Some(to)) = (
        call.input.time_us("IntervalStartTime"),
        call.input.time_us("IntervalEndTime"),
    ) else {
        return Err(Fault::internal());
    };
    if from >= to {
        return Err(Fault::validation(
            "IntervalStartTime must be before IntervalEndTime",
        ));
    }
    let scheduler = schedulers::named(call)?;
    let page = call.page(&format!("events of {}", scheduler.uuid))?;
    let before: i64 = page
        .after()
        .and_then(|key| key.parse().ok())
        .unwrap_or(i64::MAX);
    let mut statement = call.db.prepare_cached(
        "SELECT start_us, end_us, diagnostics FROM event
         WHERE scheduler_uuid = ?1 AND start_us < ?2 AND end_us >= ?3 AND start_us < ?4 AND end_us - start_us > ?5
         ORDER BY start_us DESC LIMIT ?6",
    )?;
    let mut rows = statement.query(params![
        scheduler.uuid,
        before,
        from,
        to,
        LONGER_THAN_US,
        page.limit()
    ])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let (start_us, end_us): (i64, i64) = (row.get(0)?, row.get(1)?);
        let summary = json!({
            "InferenceSchedulerArn": scheduler.arn,
            "InferenceSchedulerName": scheduler.name,
            "EventStartTime": time(start_us),
            "EventEndTime": time(end_us),
            "Diagnostics": row.get::<_, String>(2)?,
            "EventDurationInSeconds": (end_us - start_us) / 1_000_000,
        });
        items.push((start_us.to_string(), summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "InferenceEventSummaries": summaries}))
}
