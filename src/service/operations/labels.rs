//! Label groups (five operations) and labels (four).

use serde_json::{Value, json};

use super::{Request, answer, time};
use crate::service::faults::Fault;
use crate::service::store::labels::{Label, LabelsAsked, NewLabelGroup, Rating};

/// CreateLabelGroup.
pub async fn create_group(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let name = input.required("LabelGroupName")?;
    let new = NewLabelGroup {
        name: name.to_owned(),
        arn: request.new_arn("label-group", name),
        fault_codes: input.texts("FaultCodes").unwrap_or_default(),
        tags: input.tags()?,
    };
    let made = request
        .store
        .create_label_group(request.once(), new, request.now);
    answer(made.await?)
}

/// DescribeLabelGroup.
pub async fn describe_group(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("LabelGroupName")?;
    let group = request.store.label_group(name).await?;
    Ok(json!({
        "LabelGroupName": group.name,
        "LabelGroupArn": group.arn,
        "FaultCodes": group.fault_codes,
        "CreatedAt": time(group.created_us),
        "UpdatedAt": time(group.updated_us),
    }))
}

/// ListLabelGroups, by name.
pub async fn list_groups(request: &Request<'_>) -> Result<Value, Fault> {
    let page = request.page("label groups")?;
    let prefix = request.input.text("LabelGroupNameBeginsWith");
    let after = page.after().unwrap_or_default();
    let groups = request
        .store
        .label_groups(prefix.unwrap_or_default(), after, page.limit())
        .await?;
    let items = groups.into_iter().map(|group| {
        let summary = json!({
            "LabelGroupName": group.name,
            "LabelGroupArn": group.arn,
            "CreatedAt": time(group.created_us),
            "UpdatedAt": time(group.updated_us),
        });
        (group.name, summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "LabelGroupSummaries": summaries}))
}

/// UpdateLabelGroup: replaces the fault codes.
pub async fn update_group(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("LabelGroupName")?;
    let codes = request.input.texts("FaultCodes");
    request
        .store
        .update_label_group(name, codes, request.now)
        .await?;
    Ok(Value::Null)
}

/// DeleteLabelGroup: with its labels; not while a model uses it.
pub async fn delete_group(request: &Request<'_>) -> Result<Value, Fault> {
    let name = request.input.required("LabelGroupName")?;
    request.store.delete_label_group(name).await?;
    Ok(Value::Null)
}

/// CreateLabel.
pub async fn create(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let text = |name: &str| input.text(name).map(str::to_owned);
    let (Some(start_us), Some(end_us), Some(rating)) = (
        input.time_us("StartTime"),
        input.time_us("EndTime"),
        input.text("Rating").and_then(Rating::from_sql),
    ) else {
        return Err(Fault::internal());
    };
    if start_us >= end_us {
        return Err(Fault::validation("StartTime must be before EndTime"));
    }
    let label = Label {
        id: uuid::Uuid::new_v4().simple().to_string(),
        start_us,
        end_us,
        rating,
        fault_code: text("FaultCode"),
        notes: text("Notes"),
        equipment: text("Equipment"),
        created_us: request.now.timestamp_micros(),
    };
    let group = input.required("LabelGroupName")?;
    let made = request
        .store
        .create_label(request.once(), group, label, request.now);
    answer(made.await?)
}

/// DescribeLabel.
pub async fn describe(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let (group, label) = request
        .store
        .label(
            input.required("LabelGroupName")?,
            input.required("LabelId")?,
        )
        .await?;
    Ok(json!({
        "LabelGroupName": group.name,
        "LabelGroupArn": group.arn,
        "LabelId": label.id,
        "StartTime": time(label.start_us),
        "EndTime": time(label.end_us),
        "Rating": label.rating,
        "FaultCode": label.fault_code,
        "Notes": label.notes,
        "Equipment": label.equipment,
        "CreatedAt": time(label.created_us),
    }))
}

/// ListLabels: those that end at or after `IntervalStartTime` and start before `IntervalEndTime`, by start. A group that
/// does not exist has no labels: the model gives this operation no `ResourceNotFoundException`.
pub async fn list(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let group_name = input.required("LabelGroupName")?;
    let page = request.page(&format!("labels of {group_name}"))?;
    let after = page.after().and_then(|key| key.split_once(' '));
    let asked = LabelsAsked {
        from_us: input.time_us("IntervalStartTime").unwrap_or(i64::MIN),
        to_us: input.time_us("IntervalEndTime").unwrap_or(i64::MAX),
        fault_code: input.text("FaultCode").map(str::to_owned),
        equipment: input.text("Equipment").map(str::to_owned),
        after: after.and_then(|(start, id)| Some((start.parse().ok()?, id.to_owned()))),
        limit: page.limit(),
    };
    let Some((group, labels)) = request.store.labels(group_name, asked).await? else {
        return Ok(json!({"LabelSummaries": []}));
    };
    let items = labels.into_iter().map(|label| {
        let summary = json!({
            "LabelGroupName": group.name,
            "LabelId": label.id,
            "LabelGroupArn": group.arn,
            "StartTime": time(label.start_us),
            "EndTime": time(label.end_us),
            "Rating": label.rating,
            "FaultCode": label.fault_code,
            "Equipment": label.equipment,
            "CreatedAt": time(label.created_us),
        });
        (format!("{} {}", label.start_us, label.id), summary)
    });
    let (summaries, next) = page.cut(items.collect());
    Ok(json!({"NextToken": next, "LabelSummaries": summaries}))
}

/// DeleteLabel.
pub async fn delete(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let (group, id) = (
        input.required("LabelGroupName")?,
        input.required("LabelId")?,
    );
    request.store.delete_label(group, id).await?;
    Ok(Value::Null)
}
