//! The seven operations of retraining schedulers. The retraining itself runs in the background (`super::super::jobs`).

use chrono::{DateTime, Months, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::{Call, maybe_time, models, time};
use crate::service::faults::Fault;

/// A retraining scheduler as stored.
#[derive(Debug, Clone)]
pub struct Retraining {
    model_name: String,
    status: String,
    start_us: Option<i64>,
    next_us: Option<i64>,
    frequency: String,
    lookback: String,
    promote: String,
    created_us: i64,
    updated_us: i64,
}

const COLUMNS: &str =
    "model_name, status, start_us, next_us, frequency, lookback, promote, created_us, updated_us";

/// CreateRetrainingScheduler: creates and starts it.
pub fn create(call: &Call<'_>) -> Result<Value, Fault> {
    let input = call.input;
    let model = models::named(call)?;
    if by_model(call.db, &model.name)?.is_some() {
        return Err(Fault::conflict(format!(
            "Model '{}' already has a retraining scheduler",
            model.name
        )));
    }
    if model.status != "SUCCESS" {
        return Err(Fault::conflict(format!(
            "Model '{}' is {}: only SUCCESS can be retrained",
            model.name, model.status
        )));
    }
    let Some((dataset, _)) = &model.dataset else {
        return Err(Fault::conflict(format!(
            "Model '{}' has no dataset it could be retrained on",
            model.name
        )));
    };
    tracing::debug!(model = model.name, dataset, "retraining scheduler created");
    let frequency = input.required("RetrainingFrequency")?;
    let (start_us, next_us) = dates(call.now, input.time_us("RetrainingStartDate"), frequency)?;
    call.db.execute(
        "INSERT INTO retraining_scheduler (model_name, status, start_us, next_us, frequency, lookback, promote, created_us,
                                           updated_us)
         VALUES (?1, 'PENDING', ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        params![
            model.name,
            start_us,
            next_us,
            frequency,
            input.required("LookbackWindow")?,
            input.text("PromoteMode").unwrap_or("MANAGED"),
            call.now.timestamp_micros(),
        ],
    )?;
    Ok(json!({"ModelName": model.name, "ModelArn": model.arn, "Status": "PENDING"}))
}

/// DescribeRetrainingScheduler.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let (model, scheduler) = named(call)?;
    Ok(json!({
        "ModelName": model.name,
        "ModelArn": model.arn,
        "RetrainingStartDate": maybe_time(scheduler.start_us),
        "RetrainingFrequency": scheduler.frequency,
        "LookbackWindow": scheduler.lookback,
        "Status": scheduler.status,
        "PromoteMode": scheduler.promote,
        "CreatedAt": time(scheduler.created_us),
        "UpdatedAt": time(scheduler.updated_us),
    }))
}

/// ListRetrainingSchedulers, by model name.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let page = call.page("retraining schedulers")?;
    let mut statement = call.db.prepare_cached(
        "SELECT r.model_name, m.arn, r.status, r.start_us, r.frequency, r.lookback
         FROM retraining_scheduler r JOIN model m ON m.name = r.model_name
         WHERE r.model_name > ?1 AND substr(r.model_name, 1, length(?2)) = ?2 AND (?3 IS NULL OR r.status = ?3)
         ORDER BY r.model_name LIMIT ?4",
    )?;
    let item = |row: &Row<'_>| {
        let name: String = row.get(0)?;
        let summary = json!({
            "ModelName": name,
            "ModelArn": row.get::<_, String>(1)?,
            "Status": row.get::<_, String>(2)?,
            "RetrainingStartDate": maybe_time(row.get(3)?),
            "RetrainingFrequency": row.get::<_, String>(4)?,
            "LookbackWindow": row.get::<_, String>(5)?,
        });
        Ok((name, summary))
    };
    let prefix = call.input.text("ModelNameBeginsWith").unwrap_or_default();
    let bounds = params![
        page.after().unwrap_or_default(),
        prefix,
        call.input.text("Status"),
        page.limit()
    ];
    let rows = statement.query_map(bounds, item)?;
    let (summaries, next) = page.cut(rows.collect::<rusqlite::Result<_>>()?);
    Ok(json!({"RetrainingSchedulerSummaries": summaries, "NextToken": next}))
}

/// StartRetrainingScheduler: only from STOPPED.
pub fn start(call: &Call<'_>) -> Result<Value, Fault> {
    let (model, scheduler) = named(call)?;
    if scheduler.status != "STOPPED" {
        return Err(wrong_state(&scheduler, "started"));
    }
    let (_, next_us) = dates(call.now, scheduler.next_us, &scheduler.frequency)?;
    call.db.execute(
        "UPDATE retraining_scheduler SET status = 'PENDING', next_us = ?2 WHERE model_name = ?1",
        params![model.name, next_us],
    )?;
    Ok(json!({"ModelName": model.name, "ModelArn": model.arn, "Status": "PENDING"}))
}

/// StopRetrainingScheduler: a scheduler that is stopping or stopped stays so.
pub fn stop(call: &Call<'_>) -> Result<Value, Fault> {
    let (model, scheduler) = named(call)?;
    let stopping = matches!(scheduler.status.as_str(), "PENDING" | "RUNNING");
    let status = if stopping {
        "STOPPING"
    } else {
        &scheduler.status
    };
    call.db.execute(
        "UPDATE retraining_scheduler SET status = ?2 WHERE model_name = ?1",
        [&model.name, status],
    )?;
    Ok(json!({"ModelName": model.name, "ModelArn": model.arn, "Status": status}))
}

/// UpdateRetrainingScheduler: only while STOPPED.
pub fn update(call: &Call<'_>) -> Result<Value, Fault> {
    let (model, scheduler) = named(call)?;
    if scheduler.status != "STOPPED" {
        return Err(wrong_state(&scheduler, "updated"));
    }
    let input = call.input;
    let frequency = input
        .text("RetrainingFrequency")
        .unwrap_or(&scheduler.frequency);
    let (start_us, next_us) = dates(
        call.now,
        input.time_us("RetrainingStartDate").or(scheduler.start_us),
        frequency,
    )?;
    call.db.execute(
        "UPDATE retraining_scheduler SET start_us = ?2, next_us = ?3, frequency = ?4, lookback = ?5, promote = ?6,
                                         updated_us = ?7
         WHERE model_name = ?1",
        params![
            model.name,
            start_us,
            next_us,
            frequency,
            input.text("LookbackWindow").unwrap_or(&scheduler.lookback),
            input.text("PromoteMode").unwrap_or(&scheduler.promote),
            call.now.timestamp_micros(),
        ],
    )?;
    Ok(Value::Null)
}

/// DeleteRetrainingScheduler: only while STOPPED.
pub fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    let (model, scheduler) = named(call)?;
    if scheduler.status != "STOPPED" {
        return Err(wrong_state(&scheduler, "deleted"));
    }
    call.db.execute(
        "DELETE FROM retraining_scheduler WHERE model_name = ?1",
        [&model.name],
    )?;
    Ok(Value::Null)
}

/// What Describe and List of models say about retraining.
pub fn summary(db: &Connection, model: &models::Stored) -> Result<Value, Fault> {
    let scheduler = by_model(db, &model.name)?;
    let latest: Option<Value> = db
        .query_row(
            "SELECT failed_reason, status, version, created_us, detail FROM model_version
             WHERE model_uuid = ?1 AND source_type = 'RETRAINING' ORDER BY version DESC LIMIT 1",
            [&model.uuid],
            |row| {
                let detail = super::datasets::stored_json(row, 4)?;
                Ok(json!({
                    "FailedReason": row.get::<_, Option<String>>(0)?,
                    "Status": row.get::<_, String>(1)?,
                    "ModelVersion": row.get::<_, i64>(2)?,
                    "StartTime": time(row.get(3)?),
                    "AvailableDataInDays": detail["RetrainingAvailableDataInDays"],
                }))
            },
        )
        .optional()?;
    let mut summary = latest.unwrap_or_else(|| json!({}));
    if let Some(scheduler) = scheduler {
        summary["SchedulerStatus"] = scheduler.status.clone().into();
        summary["NextStartDate"] = if scheduler.status == "STOPPED" {
            Value::Null
        } else {
            maybe_time(scheduler.next_us)
        };
    }
    Ok(summary)
}

/// `at` plus a retraining frequency such as `P1M`; `None` where it is shorter than 30 days or longer than a year.
pub fn after(at: DateTime<Utc>, frequency: &str) -> Option<DateTime<Utc>> {
    let (mut months, mut days, mut number) = (0, 0, 0);
    for letter in frequency.strip_prefix('P')?.chars() {
        match letter {
            'Y' => months += 12 * std::mem::take(&mut number),
            'M' => months += std::mem::take(&mut number),
            'D' => days += i64::from(std::mem::take(&mut number)),
            digit => number = number * 10 + digit.to_digit(10)?,
        }
    }
    let least = i64::from(months) * 30 + days;
    let most = i64::from(months) * 365 / 12 + days;
    (least >= 30 && most <= 365).then_some(())?;
    at.checked_add_months(Months::new(months))?
        .checked_add_signed(TimeDelta::days(days))
}

/// The start date at the beginning of its day (UTC), and the first retraining that is not in the past.
fn dates(
    now: DateTime<Utc>,
    start_us: Option<i64>,
    frequency: &str,
) -> Result<(Option<i64>, i64), Fault> {
    let refuse = || {
        Fault::validation(
            "RetrainingFrequency must be between 30 days (P30D, P1M) and one year (P1Y)",
        )
    };
    let day = |at: DateTime<Utc>| at.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
    let start = start_us.and_then(DateTime::from_timestamp_micros).map(day);
    let mut next = match start {
        Some(start) => start,
        None => after(day(now), frequency).ok_or_else(refuse)?,
    };
    after(next, frequency).ok_or_else(refuse)?;
    while next < day(now) {
        next = after(next, frequency).ok_or_else(refuse)?;
    }
    Ok((
        start.map(|start| start.timestamp_micros()),
        next.timestamp_micros(),
    ))
}

fn named(call: &Call<'_>) -> Result<(models::Stored, Retraining), Fault> {
    let model = models::named(call)?;
    let scheduler = by_model(call.db, &model.name)?.ok_or_else(|| {
        Fault::not_found(format!(
            "Model '{}' has no retraining scheduler",
            model.name
        ))
    })?;
    Ok((model, scheduler))
}

fn by_model(db: &Connection, model: &str) -> Result<Option<Retraining>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM retraining_scheduler WHERE model_name = ?1");
    let read = |row: &Row<'_>| {
        Ok(Retraining {
            model_name: row.get(0)?,
            status: row.get(1)?,
            start_us: row.get(2)?,
            next_us: row.get(3)?,
            frequency: row.get(4)?,
            lookback: row.get(5)?,
            promote: row.get(6)?,
            created_us: row.get(7)?,
            updated_us: row.get(8)?,
        })
    };
    Ok(db
        .prepare_cached(&sql)?
        .query_row([model], read)
        .optional()?)
}

fn wrong_state(scheduler: &Retraining, wanted: &str) -> Fault {
    let Retraining {
        model_name, status, ..
    } = scheduler;
    Fault::conflict(format!(
        "The retraining scheduler of model '{model_name}' is {status}: it can be {wanted} only while STOPPED"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_added_by_the_calendar_and_bounded() {
        let at: DateTime<Utc> = "2026-01-31T00:00:00Z".parse().unwrap();
        let shown = |frequency: &str| after(at, frequency).map(|at| at.to_rfc3339());
        assert_eq!(shown("P1M").as_deref(), Some("2026-02-28T00:00:00+00:00"));
        assert_eq!(shown("P1Y").as_deref(), Some("2027-01-31T00:00:00+00:00"));
        assert_eq!(
            shown("P2M15D").as_deref(),
            Some("2026-04-15T00:00:00+00:00")
        );
        for bad in ["P", "P29D", "P2Y", "P400D", "P366D", "P1Y1D", "P12M1D"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
