//! The seven operations of retraining schedulers. The retraining itself runs in the background (`super::super::jobs`).

use serde_json::{Value, json};

use super::{Request, answer, maybe_time, time};
use crate::service::faults::Fault;
use crate::service::store::retraining::{
    NewRetraining, PromoteMode, Retraining, RetrainingChange, RetrainingStatus, RetrainingsAsked,
};

/// CreateRetrainingScheduler: creates and starts it.
pub async fn create(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let promote = input.text("PromoteMode").and_then(PromoteMode::from_sql);
    let new = NewRetraining {
        model: input.required("ModelName")?.to_owned(),
        start_us: input.time_us("RetrainingStartDate"),
        frequency: input.required("RetrainingFrequency")?.to_owned(),
        lookback: input.required("LookbackWindow")?.to_owned(),
        promote: promote.unwrap_or(PromoteMode::Managed),
    };
    let made = request
        .store
        .create_retraining(request.once(), new, request.now);
    answer(made.await?)
}

/// DescribeRetrainingScheduler.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let model = request.input.required("ModelName")?;
    let scheduler = request.store.retraining(model).await?;
    Ok(json!({
        "ModelName": scheduler.model_name,
        "ModelArn": scheduler.model_arn,
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
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let page = request.page("retraining schedulers")?;
    let prefix = input.text("ModelNameBeginsWith").unwrap_or_default();
    let asked = RetrainingsAsked {
        prefix: prefix.to_owned(),
        status: input.text("Status").and_then(RetrainingStatus::from_sql),
        after: page.after().unwrap_or_default().to_owned(),
        limit: page.limit(),
    };
    let found = request.store.retrainings(asked).await?;
    let items = found.into_iter().map(|scheduler| {
        let summary = json!({
            "ModelName": scheduler.model_name,
            "ModelArn": scheduler.model_arn,
            "Status": scheduler.status,
            "RetrainingStartDate": maybe_time(scheduler.start_us),
            "RetrainingFrequency": scheduler.frequency,
            "LookbackWindow": scheduler.lookback,
        });
        (scheduler.model_name, summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"RetrainingSchedulerSummaries": summaries, "NextToken": next}))
}

/// StartRetrainingScheduler: only from STOPPED.
pub async fn start(request: &Request<'_>) -> Result<Value, Fault> {
    let model = request.input.required("ModelName")?;
    let started = request.store.start_retraining(model, request.now).await?;
    Ok(status_of(&started))
}

/// StopRetrainingScheduler: a scheduler that is stopping or stopped stays so.
pub async fn stop(request: &Request<'_>) -> Result<Value, Fault> {
    let model = request.input.required("ModelName")?;
    let stopped = request.store.stop_retraining(model).await?;
    Ok(status_of(&stopped))
}

/// UpdateRetrainingScheduler: only while STOPPED.
pub async fn update(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let text = |name: &str| input.text(name).map(str::to_owned);
    let change = RetrainingChange {
        start_us: input.time_us("RetrainingStartDate"),
        frequency: text("RetrainingFrequency"),
        lookback: text("LookbackWindow"),
        promote: input.text("PromoteMode").and_then(PromoteMode::from_sql),
    };
    let model = input.required("ModelName")?;
    request
        .store
        .update_retraining(model, change, request.now)
        .await?;
    Ok(Value::Null)
}

/// DeleteRetrainingScheduler: only while STOPPED.
pub async fn delete(request: &Request<'_>) -> Result<Value, Fault> {
    let model = request.input.required("ModelName")?;
    request.store.delete_retraining(model).await?;
    Ok(Value::Null)
}

fn status_of(scheduler: &Retraining) -> Value {
    json!({
        "ModelName": scheduler.model_name,
        "ModelArn": scheduler.model_arn,
        "Status": scheduler.status,
    })
}
