//! The seven operations of inference schedulers; `store::schedulers` has their states.
//!
//! Stop answers 200 in every state: the official SDK stops without looking, and a repeated stop is no mistake. Where the
//! original's error is undocumented the choice is in docs/compatibility.md.

use serde_json::{Value, json};

use super::{Request, answer, time};
use crate::service::faults::Fault;
use crate::service::store::schedulers::{
    NewScheduler, Scheduler, SchedulerChange, SchedulerStatus, SchedulersAsked,
};
use crate::signal::{Delimiter, ZoneOffset};

/// CreateInferenceScheduler: creates the scheduler and starts it.
pub async fn create(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("InferenceSchedulerName")?;
    let given = |name: &str| input.get(name).cloned().unwrap_or_default();
    let data_input = given("DataInputConfiguration");
    check_input(&data_input)?;
    let uuid = uuid::Uuid::new_v4().to_string();
    let new = NewScheduler {
        name: name.to_owned(),
        arn: request.identity.arn("inference-scheduler", name, &uuid),
        uuid,
        model: input.required("ModelName")?.to_owned(),
        delay_minutes: input.integer("DataDelayOffsetInMinutes").unwrap_or(0),
        frequency: input.required("DataUploadFrequency")?.to_owned(),
        input: data_input,
        output: given("DataOutputConfiguration"),
        role_arn: input.required("RoleArn")?.to_owned(),
        kms_key: input.text("ServerSideKmsKeyId").map(str::to_owned),
        tags: input.tags()?,
    };
    let made = request
        .store
        .create_scheduler(request.once(), new, request.now);
    answer(made.await?)
}

/// DescribeInferenceScheduler. Always has the delay offset and the whole input configuration with its defaults filled
/// in: the official helper reads them without a guard (contract 1.5).
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("InferenceSchedulerName")?;
    let scheduler = request.store.scheduler(name).await?;
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
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let page = request.page("schedulers")?;
    let prefix = input.text("InferenceSchedulerNameBeginsWith");
    let asked = SchedulersAsked {
        prefix: prefix.unwrap_or_default().to_owned(),
        model: input.text("ModelName").map(str::to_owned),
        status: input.text("Status").and_then(SchedulerStatus::from_sql),
        after: page.after().unwrap_or_default().to_owned(),
        limit: page.limit(),
    };
    let found = request.store.schedulers(asked).await?;
    let items = found.into_iter().map(|scheduler| {
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
        (scheduler.name, summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "InferenceSchedulerSummaries": summaries}))
}

/// StartInferenceScheduler: only from STOPPED.
pub async fn start(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("InferenceSchedulerName")?;
    let started = request.store.start_scheduler(name).await?;
    Ok(status_of(&started))
}

/// StopInferenceScheduler: from PENDING or RUNNING; a scheduler that is stopping or stopped stays so.
pub async fn stop(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("InferenceSchedulerName")?;
    let stopped = request.store.stop_scheduler(name).await?;
    Ok(status_of(&stopped))
}

/// UpdateInferenceScheduler: only while STOPPED.
pub async fn update(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("InferenceSchedulerName")?;
    let text = |name: &str| input.text(name).map(str::to_owned);
    let change = SchedulerChange {
        delay_minutes: input.integer("DataDelayOffsetInMinutes"),
        frequency: text("DataUploadFrequency"),
        input: input.get("DataInputConfiguration").cloned(),
        output: input.get("DataOutputConfiguration").cloned(),
        role_arn: text("RoleArn"),
    };
    if let Some(data_input) = &change.input {
        check_input(data_input)?;
    }
    request
        .store
        .update_scheduler(name, change, request.now)
        .await?;
    Ok(Value::Null)
}

/// DeleteInferenceScheduler: only while STOPPED. Drops the history, keeps the result objects in S3.
pub async fn delete(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("InferenceSchedulerName")?;
    request.store.delete_scheduler(name).await?;
    Ok(Value::Null)
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

fn status_of(scheduler: &Scheduler) -> Value {
    json!({
        "ModelArn": scheduler.model_arn,
        "ModelName": scheduler.model_name,
        "InferenceSchedulerName": scheduler.name,
        "InferenceSchedulerArn": scheduler.arn,
        "Status": scheduler.status,
    })
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
