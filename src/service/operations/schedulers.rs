//! The seven operations of inference schedulers, and their state machine (contract section 2).
//!
//! ```text
//!  (none) --create--> PENDING --> RUNNING --stop--> STOPPING --> STOPPED --delete--> (none)
//!                        ^                                         |
//!                        +------------------ start ----------------+
//! ```
//!
//! The two plain arrows are the runner's. Stop answers 200 in every state: the official SDK stops without looking, and
//! a repeated stop is no mistake. Where the original's error is undocumented the choice is in docs/compatibility.md.

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use super::{Call, time};
use crate::service::faults::Fault;
use crate::service::options::Options;
use crate::service::store::schedulers::{self, COLUMNS, Scheduler, transition};
use crate::service::store::tags;
use crate::signal::{Cadence, Delimiter, ZoneOffset};

/// CreateInferenceScheduler: creates the scheduler and starts it.
pub fn create(call: &Call<'_>) -> Result<Value, Fault> {
    let input = call.input;
    let (name, model) = (
        input.required("InferenceSchedulerName")?,
        input.required("ModelName")?,
    );
    let data_input = input
        .get("DataInputConfiguration")
        .cloned()
        .unwrap_or_default();
    let data_output = input
        .get("DataOutputConfiguration")
        .cloned()
        .unwrap_or_default();
    check_input(&data_input)?;
    let tags = input.tags()?;
    Options::from_tags(
        tags.iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )?;
    if schedulers::by_name(call.db, name)?.is_some() {
        return Err(Fault::conflict(format!(
            "Inference scheduler '{name}' already exists"
        )));
    }
    let model_row: Option<(String, Option<i64>, Option<String>)> = call
        .db
        .query_row(
            "SELECT status, sampling_us, quality FROM model WHERE name = ?1",
            [model],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((status, sampling_us, quality)) = model_row else {
        return Err(Fault::not_found(format!("Model '{model}' does not exist")));
    };
    if status != "SUCCESS" {
        return Err(Fault::conflict(format!(
            "Model '{model}' is {status}: an inference scheduler needs a model that is SUCCESS"
        )));
    }
    let other: Option<String> = call
        .db
        .query_row(
            "SELECT name FROM scheduler WHERE model_name = ?1",
            [model],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(other) = other {
        return Err(Fault::quota(format!(
            "Model '{model}' already has the inference scheduler '{other}'; the quota is one per model"
        )));
    }
    let frequency = input.required("DataUploadFrequency")?;
    check_rates(model, sampling_us, frequency)?;

    let uuid = uuid::Uuid::new_v4().to_string();
    let arn = call.arn("inference-scheduler", name, &uuid);
    call.db.execute(
        "INSERT INTO scheduler (name, uuid, arn, model_name, status, delay_minutes, frequency, input, output, role_arn,
                                kms_key, created_us, updated_us)
         VALUES (?1, ?2, ?3, ?4, 'PENDING', ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11)",
        params![
            name,
            uuid,
            arn,
            model,
            input.integer("DataDelayOffsetInMinutes").unwrap_or(0),
            frequency,
            data_input.to_string(),
            data_output.to_string(),
            input.required("RoleArn")?,
            input.text("ServerSideKmsKeyId"),
            call.now.timestamp_micros(),
        ],
    )?;
    tags::set(call.db, &arn, &tags)?;
    Ok(json!({
        "InferenceSchedulerArn": arn,
        "InferenceSchedulerName": name,
        "Status": "PENDING",
        "ModelQuality": quality,
    }))
}

/// DescribeInferenceScheduler. Always has the delay offset and the whole input configuration with its defaults filled
/// in: the official helper reads them without a guard (contract 1.5).
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let scheduler = named(call)?;
    Ok(json!({
        "ModelArn": scheduler.model_arn,
        "ModelName": scheduler.model_name,
        "InferenceSchedulerName": scheduler.name,
        "InferenceSchedulerArn": scheduler.arn,
        "Status": scheduler.status,
        "DataDelayOffsetInMinutes": scheduler.delay_minutes,
        "DataUploadFrequency": scheduler.frequency,
        "CreatedAt": time(scheduler.created_us),
        "UpdatedAt": time(scheduler.updated_us),
        "DataInputConfiguration": with_defaults(&scheduler.input),
        "DataOutputConfiguration": scheduler.output,
        "RoleArn": scheduler.role_arn,
        "ServerSideKmsKeyId": scheduler.kms_key,
        "LatestInferenceResult": scheduler.latest_result,
    }))
}

/// ListInferenceSchedulers, by name.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let page = call.page("schedulers")?;
    let sql = format!(
        "SELECT {COLUMNS} FROM scheduler s JOIN model m ON m.name = s.model_name
         WHERE s.name > ?1 AND substr(s.name, 1, length(?2)) = ?2
           AND (?3 IS NULL OR s.model_name = ?3) AND (?4 IS NULL OR s.status = ?4)
         ORDER BY s.name LIMIT ?5"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let rows = statement.query_map(
        params![
            page.after().unwrap_or_default(),
            call.input
                .text("InferenceSchedulerNameBeginsWith")
                .unwrap_or_default(),
            call.input.text("ModelName"),
            call.input.text("Status"),
            page.limit(),
        ],
        schedulers::read,
    )?;
    let mut items = Vec::new();
    for row in rows {
        let scheduler = row?;
        let summary = json!({
            "ModelName": scheduler.model_name,
            "ModelArn": scheduler.model_arn,
            "InferenceSchedulerName": scheduler.name,
            "InferenceSchedulerArn": scheduler.arn,
            "Status": scheduler.status,
            "DataDelayOffsetInMinutes": scheduler.delay_minutes,
            "DataUploadFrequency": scheduler.frequency,
            "LatestInferenceResult": scheduler.latest_result,
        });
        items.push((scheduler.name, summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "InferenceSchedulerSummaries": summaries}))
}

/// StartInferenceScheduler: only from STOPPED.
pub fn start(call: &Call<'_>) -> Result<Value, Fault> {
    let scheduler = named(call)?;
    if !transition(call.db, &scheduler.uuid, "STOPPED", "PENDING")? {
        return Err(wrong_state(&scheduler, "started"));
    }
    Ok(status_of(&scheduler, "PENDING"))
}

/// StopInferenceScheduler: from PENDING or RUNNING; a scheduler that is stopping or stopped stays so.
pub fn stop(call: &Call<'_>) -> Result<Value, Fault> {
    let scheduler = named(call)?;
    let stopping = transition(call.db, &scheduler.uuid, "RUNNING", "STOPPING")?
        || transition(call.db, &scheduler.uuid, "PENDING", "STOPPING")?;
    Ok(status_of(
        &scheduler,
        if stopping {
            "STOPPING"
        } else {
            &scheduler.status
        },
    ))
}

/// UpdateInferenceScheduler: only while STOPPED.
pub fn update(call: &Call<'_>) -> Result<Value, Fault> {
    let scheduler = named(call)?;
    if scheduler.status != "STOPPED" {
        return Err(wrong_state(&scheduler, "updated"));
    }
    let input = call.input;
    let frequency = input
        .text("DataUploadFrequency")
        .unwrap_or(&scheduler.frequency);
    let data_input = input
        .get("DataInputConfiguration")
        .unwrap_or(&scheduler.input);
    let data_output = input
        .get("DataOutputConfiguration")
        .unwrap_or(&scheduler.output);
    let sampling_us = call.db.query_row(
        "SELECT sampling_us FROM model WHERE name = ?1",
        [&scheduler.model_name],
        |row| row.get::<_, Option<i64>>(0),
    )?;
    check_rates(&scheduler.model_name, sampling_us, frequency)?;
    check_input(data_input)?;
    call.db.execute(
        "UPDATE scheduler SET delay_minutes = ?2, frequency = ?3, input = ?4, output = ?5, role_arn = ?6, updated_us = ?7
         WHERE uuid = ?1",
        params![
            scheduler.uuid,
            input.integer("DataDelayOffsetInMinutes").unwrap_or(scheduler.delay_minutes),
            frequency,
            data_input.to_string(),
            data_output.to_string(),
            input.text("RoleArn").unwrap_or(&scheduler.role_arn),
            call.now.timestamp_micros(),
        ],
    )?;
    Ok(Value::Null)
}

/// DeleteInferenceScheduler: only while STOPPED. Drops the history, keeps the result objects in S3.
pub fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    let scheduler = named(call)?;
    if scheduler.status != "STOPPED" {
        return Err(wrong_state(&scheduler, "deleted"));
    }
    call.db
        .execute("DELETE FROM scheduler WHERE uuid = ?1", [&scheduler.uuid])?;
    tags::forget(call.db, &scheduler.arn)?;
    Ok(Value::Null)
}

/// The scheduler the request names.
pub fn named(call: &Call<'_>) -> Result<Scheduler, Fault> {
    let name = call.input.required("InferenceSchedulerName")?;
    schedulers::by_name(call.db, name)?
        .ok_or_else(|| Fault::not_found(format!("Inference scheduler '{name}' does not exist")))
}

/// `DataInputConfiguration` with what the original assumes when a member is absent.
pub fn with_defaults(input: &Value) -> Value {
    let naming = &input["InferenceInputNameConfiguration"];
    json!({
        "S3InputConfiguration": input["S3InputConfiguration"],
        "InputTimeZoneOffset": input["InputTimeZoneOffset"].as_str().unwrap_or("+00:00"),
        "InferenceInputNameConfiguration": {
            "TimestampFormat": naming["TimestampFormat"].as_str().unwrap_or("yyyyMMddHHmmss"),
            "ComponentTimestampDelimiter": naming["ComponentTimestampDelimiter"].as_str().unwrap_or("-"),
        },
    })
}

fn status_of(scheduler: &Scheduler, status: &str) -> Value {
    json!({
        "ModelArn": scheduler.model_arn,
        "ModelName": scheduler.model_name,
        "InferenceSchedulerName": scheduler.name,
        "InferenceSchedulerArn": scheduler.arn,
        "Status": status,
    })
}

fn wrong_state(scheduler: &Scheduler, wanted: &str) -> Fault {
    let Scheduler { name, status, .. } = scheduler;
    Fault::conflict(format!(
        "Inference scheduler '{name}' is {status}: it can be {wanted} only while STOPPED"
    ))
}

/// Contract 4.3: a window must hold at least one step of the model's sampling grid.
fn check_rates(model: &str, sampling_us: Option<i64>, frequency: &str) -> Result<(), Fault> {
    let window_us = cadence(frequency)?.micros();
    match sampling_us {
        Some(step) if step > window_us => Err(Fault::validation(format!(
            "DataUploadFrequency {frequency} is shorter than the sampling rate of model '{model}' ({} minutes): choose \
             a frequency of {} minutes or longer",
            step / 60_000_000,
            step / 60_000_000,
        ))),
        _ => Ok(()),
    }
}

/// The cadence of a validated `DataUploadFrequency`.
fn cadence(frequency: &str) -> Result<Cadence, Fault> {
    frequency.parse().map_err(|_| Fault::internal())
}

/// What the shape cannot say: the bucket is needed, and the offset must be an offset.
fn check_input(input: &Value) -> Result<(), Fault> {
    if input["S3InputConfiguration"]["Bucket"].as_str().is_none() {
        return Err(Fault::validation(
            "1 validation error detected: Value null at 'dataInputConfiguration.s3InputConfiguration' failed to satisfy \
             constraint: Member must not be null",
        ));
    }
    if let Some(offset) = input["InputTimeZoneOffset"].as_str() {
        offset
            .parse::<ZoneOffset>()
            .map_err(|error| Fault::validation(format!("InputTimeZoneOffset: {error}")))?;
    }
    // The API's pattern allows any white space; a name with a tab or a line's end is found by nobody.
    let naming = &input["InferenceInputNameConfiguration"];
    if let Some(delimiter) = naming["ComponentTimestampDelimiter"].as_str()
        && delimiter.parse::<Delimiter>().is_err()
    {
        return Err(Fault::validation(format!(
            "ComponentTimestampDelimiter {delimiter:?} cannot stand in the name of a file: use \"-\", \"_\", a space, or \"\" \
             for none"
        )));
    }
    Ok(())
}
