//! Label groups (five operations) and labels (four).

use rusqlite::{OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::{Call, tags, time};
use crate::service::faults::Fault;

/// Labels per group (contract 4.4).
const MOST_LABELS: i64 = 5_000;

/// CreateLabelGroup.
pub fn create_group(call: &Call<'_>) -> Result<Value, Fault> {
    let name = call.input.required("LabelGroupName")?;
    if group(call, name)?.is_some() {
        return Err(Fault::conflict(format!(
            "Label group '{name}' already exists"
        )));
    }
    let arn = call.arn("label-group", name, &uuid::Uuid::new_v4().to_string());
    let codes = call
        .input
        .get("FaultCodes")
        .cloned()
        .unwrap_or_else(|| json!([]));
    call.db.execute(
        "INSERT INTO label_group (name, arn, fault_codes, created_us, updated_us) VALUES (?1, ?2, ?3, ?4, ?4)",
        params![name, arn, codes.to_string(), call.now.timestamp_micros()],
    )?;
    tags::set(call.db, &arn, &call.input.tags())?;
    Ok(json!({"LabelGroupName": name, "LabelGroupArn": arn}))
}

/// DescribeLabelGroup.
pub fn describe_group(call: &Call<'_>) -> Result<Value, Fault> {
    let group = existing_group(call)?;
    Ok(json!({
        "LabelGroupName": group.name,
        "LabelGroupArn": group.arn,
        "FaultCodes": group.fault_codes,
        "CreatedAt": time(group.created_us),
        "UpdatedAt": time(group.updated_us),
    }))
}

/// ListLabelGroups, by name.
pub fn list_groups(call: &Call<'_>) -> Result<Value, Fault> {
    let page = call.page("label groups")?;
    let mut statement = call.db.prepare_cached(
        "SELECT name, arn, fault_codes, created_us, updated_us FROM label_group
         WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY name LIMIT ?3",
    )?;
    let prefix = call
        .input
        .text("LabelGroupNameBeginsWith")
        .unwrap_or_default();
    let rows = statement.query_map(
        params![page.after().unwrap_or_default(), prefix, page.limit()],
        read_group,
    )?;
    let mut items = Vec::new();
    for row in rows {
        let group = row?;
        let summary = json!({
            "LabelGroupName": group.name,
            "LabelGroupArn": group.arn,
            "CreatedAt": time(group.created_us),
            "UpdatedAt": time(group.updated_us),
        });
        items.push((group.name, summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "LabelGroupSummaries": summaries}))
}

/// UpdateLabelGroup: replaces the fault codes. Codes in use by labels stay on those labels.
pub fn update_group(call: &Call<'_>) -> Result<Value, Fault> {
    let group = existing_group(call)?;
    let codes = call.input.get("FaultCodes").unwrap_or(&group.fault_codes);
    call.db.execute(
        "UPDATE label_group SET fault_codes = ?2, updated_us = ?3 WHERE name = ?1",
        params![group.name, codes.to_string(), call.now.timestamp_micros()],
    )?;
    Ok(Value::Null)
}

/// DeleteLabelGroup: with its labels.
pub fn delete_group(call: &Call<'_>) -> Result<Value, Fault> {
    let group = existing_group(call)?;
    call.db
        .execute("DELETE FROM label_group WHERE name = ?1", [&group.name])?;
    tags::forget(call.db, &group.arn)?;
    Ok(Value::Null)
}

/// CreateLabel.
pub fn create(call: &Call<'_>) -> Result<Value, Fault> {
    let input = call.input;
    let group = existing_group(call)?;
    let (Some(start), Some(end)) = (input.time_us("StartTime"), input.time_us("EndTime")) else {
        return Err(Fault::internal());
    };
    if start >= end {
        return Err(Fault::validation("StartTime must be before EndTime"));
    }
    if let Some(code) = input.text("FaultCode") {
        let known = group
            .fault_codes
            .as_array()
            .is_some_and(|codes| codes.iter().any(|known| known == code));
        if !known {
            return Err(Fault::validation(format!(
                "FaultCode '{code}' is not one of label group '{}': add it with UpdateLabelGroup first",
                group.name
            )));
        }
    }
    let count: i64 = call.db.query_row(
        "SELECT count(*) FROM label WHERE label_group = ?1",
        [&group.name],
        |row| row.get(0),
    )?;
    if count >= MOST_LABELS {
        return Err(Fault::quota(format!(
            "Label group '{}' has {count} labels, the quota is {MOST_LABELS}",
            group.name
        )));
    }
    let id = uuid::Uuid::new_v4().simple().to_string();
    call.db.execute(
        "INSERT INTO label (label_group, id, start_us, end_us, rating, fault_code, notes, equipment, created_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            group.name,
            id,
            start,
            end,
            input.required("Rating")?,
            input.text("FaultCode"),
            input.text("Notes"),
            input.text("Equipment"),
            call.now.timestamp_micros(),
        ],
    )?;
    Ok(json!({"LabelId": id}))
}

/// DescribeLabel.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let group = existing_group(call)?;
    let label = existing(call, &group)?;
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
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let input = call.input;
    let Some(group) = group(call, input.required("LabelGroupName")?)? else {
        return Ok(json!({"LabelSummaries": []}));
    };
    let page = call.page(&format!("labels of {}", group.arn))?;
    let (after_start, after_id) = match page.after().and_then(|key| key.split_once(' ')) {
        Some((start, id)) => (start.parse().unwrap_or(i64::MIN), id.to_owned()),
        None => (i64::MIN, String::new()),
    };
    let mut statement = call.db.prepare_cached(
        "SELECT id, start_us, end_us, rating, fault_code, notes, equipment, created_us FROM label
         WHERE label_group = ?1 AND (start_us, id) > (?2, ?3) AND end_us >= ?4 AND start_us < ?5
           AND (?6 IS NULL OR fault_code = ?6) AND (?7 IS NULL OR equipment = ?7)
         ORDER BY start_us, id LIMIT ?8",
    )?;
    let rows = statement.query_map(
        params![
            group.name,
            after_start,
            after_id,
            input.time_us("IntervalStartTime").unwrap_or(i64::MIN),
            input.time_us("IntervalEndTime").unwrap_or(i64::MAX),
            input.text("FaultCode"),
            input.text("Equipment"),
            page.limit(),
        ],
        read,
    )?;
    let mut items = Vec::new();
    for row in rows {
        let label = row?;
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
        items.push((format!("{} {}", label.start_us, label.id), summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "LabelSummaries": summaries}))
}

/// DeleteLabel.
pub fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    let group = existing_group(call)?;
    let label = existing(call, &group)?;
    call.db.execute(
        "DELETE FROM label WHERE label_group = ?1 AND id = ?2",
        [&group.name, &label.id],
    )?;
    Ok(Value::Null)
}

struct Group {
    name: String,
    arn: String,
    fault_codes: Value,
    created_us: i64,
    updated_us: i64,
}

struct Label {
    id: String,
    start_us: i64,
    end_us: i64,
    rating: String,
    fault_code: Option<String>,
    notes: Option<String>,
    equipment: Option<String>,
    created_us: i64,
}

fn read_group(row: &Row<'_>) -> rusqlite::Result<Group> {
    Ok(Group {
        name: row.get(0)?,
        arn: row.get(1)?,
        fault_codes: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        created_us: row.get(3)?,
        updated_us: row.get(4)?,
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<Label> {
    Ok(Label {
        id: row.get(0)?,
        start_us: row.get(1)?,
        end_us: row.get(2)?,
        rating: row.get(3)?,
        fault_code: row.get(4)?,
        notes: row.get(5)?,
        equipment: row.get(6)?,
        created_us: row.get(7)?,
    })
}

fn group(call: &Call<'_>, name: &str) -> Result<Option<Group>, Fault> {
    let sql =
        "SELECT name, arn, fault_codes, created_us, updated_us FROM label_group WHERE name = ?1";
    Ok(call
        .db
        .prepare_cached(sql)?
        .query_row([name], read_group)
        .optional()?)
}

fn existing_group(call: &Call<'_>) -> Result<Group, Fault> {
    let name = call.input.required("LabelGroupName")?;
    group(call, name)?
        .ok_or_else(|| Fault::not_found(format!("Label group '{name}' does not exist")))
}

fn existing(call: &Call<'_>, group: &Group) -> Result<Label, Fault> {
    let id = call.input.required("LabelId")?;
    let sql =
        "SELECT id, start_us, end_us, rating, fault_code, notes, equipment, created_us FROM label
               WHERE label_group = ?1 AND id = ?2";
    call.db
        .prepare_cached(sql)?
        .query_row([group.name.as_str(), id], read)
        .optional()?
        .ok_or_else(|| {
            Fault::not_found(format!(
                "Label '{id}' does not exist in label group '{}'",
                group.name
            ))
        })
}
