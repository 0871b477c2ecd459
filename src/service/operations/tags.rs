//! TagResource, UntagResource, ListTagsForResource, and the tags given at creation.
//!
//! A tag on a scheduler may be an option of lookoutd (`super::super::options`); it is checked here, when it is set.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::Call;
use crate::service::faults::Fault;
use crate::service::options::Options;

/// Tags per resource (contract 1.3).
const MOST: i64 = 50;

/// TagResource: adds tags or replaces their values.
pub fn tag(call: &Call<'_>) -> Result<Value, Fault> {
    let arn = known(call)?;
    set(call.db, arn, &call.input.tags())?;
    Ok(json!({}))
}

/// UntagResource: removes tags; absent keys are no error.
pub fn untag(call: &Call<'_>) -> Result<Value, Fault> {
    let arn = known(call)?;
    for key in call
        .input
        .get("TagKeys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        call.db.execute(
            "DELETE FROM tag WHERE arn = ?1 AND key = ?2",
            params![arn, key.as_str()],
        )?;
    }
    Ok(json!({}))
}

/// ListTagsForResource, by key.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let arn = known(call)?;
    let tags: Vec<Value> = of(call.db, arn)?
        .into_iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    Ok(json!({"Tags": tags}))
}

/// Puts `tags` on the resource `arn`, checking the quota and lookoutd's options.
pub fn set(db: &Connection, arn: &str, tags: &[(String, String)]) -> Result<(), Fault> {
    Options::from_tags(
        tags.iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
    )?;
    for (key, value) in tags {
        db.execute(
            "INSERT INTO tag (arn, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (arn, key) DO UPDATE SET value = ?3",
            params![arn, key, value],
        )?;
    }
    let count: i64 = db.query_row("SELECT count(*) FROM tag WHERE arn = ?1", [arn], |row| {
        row.get(0)
    })?;
    if count > MOST {
        return Err(Fault::quota(format!(
            "{arn} would have {count} tags, the quota is {MOST}"
        )));
    }
    Ok(())
}

/// The tags of a resource, by key.
pub fn of(db: &Connection, arn: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut statement =
        db.prepare_cached("SELECT key, value FROM tag WHERE arn = ?1 ORDER BY key")?;
    let rows = statement.query_map([arn], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Removes every tag of a deleted resource.
pub fn forget(db: &Connection, arn: &str) -> Result<(), Fault> {
    db.execute("DELETE FROM tag WHERE arn = ?1", [arn])?;
    Ok(())
}

/// The request's ARN if it names something that can be tagged and exists.
fn known<'a>(call: &'a Call<'_>) -> Result<&'a str, Fault> {
    let arn = call.input.required("ResourceArn")?;
    let kind = arn
        .split(':')
        .nth(5)
        .and_then(|resource| resource.split('/').next())
        .unwrap_or_default();
    let table = match kind {
        "inference-scheduler" => "scheduler",
        "label-group" => "label_group",
        "model" => "model",
        "dataset" => "dataset",
        _ => {
            return Err(Fault::validation(format!(
                "'{arn}' is no ARN of a dataset, model, label group or inference scheduler"
            )));
        }
    };
    let found: Option<i64> = call
        .db
        .query_row(
            &format!("SELECT 1 FROM {table} WHERE arn = ?1"),
            [arn],
            |row| row.get(0),
        )
        .optional()?;
    found
        .map(|_| arn)
        .ok_or_else(|| Fault::not_found(format!("Resource {arn} does not exist")))
}
