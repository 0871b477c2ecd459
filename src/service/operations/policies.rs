//! PutResourcePolicy, DescribeResourcePolicy, DeleteResourcePolicy.
//!
//! A policy is kept and given back; there are no other accounts it could let in, so nothing evaluates it.

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};

use super::{Call, time};
use crate::service::faults::Fault;

/// PutResourcePolicy: with a revision id only if that is the current one.
pub fn put(call: &Call<'_>) -> Result<Value, Fault> {
    let arn = known(call)?;
    let policy = call.input.required("ResourcePolicy")?;
    if !serde_json::from_str(policy).is_ok_and(|policy: Value| policy.is_object()) {
        return Err(Fault::validation("ResourcePolicy must be a JSON object"));
    }
    let current: Option<String> = call
        .db
        .query_row(
            "SELECT revision FROM resource_policy WHERE arn = ?1",
            [arn],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(expected) = call.input.text("PolicyRevisionId")
        && current.as_deref() != Some(expected)
    {
        return Err(Fault::conflict(format!(
            "The policy of {arn} has the revision {}, not {expected}: read it again",
            current.as_deref().unwrap_or("(none)")
        )));
    }
    let revision = uuid::Uuid::new_v4().simple().to_string();
    call.db.execute(
        "INSERT INTO resource_policy (arn, policy, revision, created_us, updated_us) VALUES (?1, ?2, ?3, ?4, ?4)
         ON CONFLICT (arn) DO UPDATE SET policy = ?2, revision = ?3, updated_us = ?4",
        params![arn, policy, revision, call.now.timestamp_micros()],
    )?;
    Ok(json!({"ResourceArn": arn, "PolicyRevisionId": revision}))
}

/// DescribeResourcePolicy.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let arn = call.input.required("ResourceArn")?;
    let sql = "SELECT revision, policy, created_us, updated_us FROM resource_policy WHERE arn = ?1";
    let found = call
        .db
        .query_row(sql, [arn], |row| {
            Ok(json!({
                "PolicyRevisionId": row.get::<_, String>(0)?,
                "ResourcePolicy": row.get::<_, String>(1)?,
                "CreationTime": time(row.get(2)?),
                "LastModifiedTime": time(row.get(3)?),
            }))
        })
        .optional()?;
    found.ok_or_else(|| none(arn))
}

/// DeleteResourcePolicy.
pub fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    let arn = call.input.required("ResourceArn")?;
    match call
        .db
        .execute("DELETE FROM resource_policy WHERE arn = ?1", [arn])?
    {
        0 => Err(none(arn)),
        _ => Ok(Value::Null),
    }
}

fn none(arn: &str) -> Fault {
    Fault::not_found(format!("Resource {arn} has no policy"))
}

/// The request's ARN if it is a dataset or a model version that exists.
fn known<'a>(call: &'a Call<'_>) -> Result<&'a str, Fault> {
    let arn = call.input.required("ResourceArn")?;
    let sql =
        "SELECT 1 FROM dataset WHERE arn = ?1 UNION SELECT 1 FROM model_version WHERE arn = ?1
               UNION SELECT 1 FROM model WHERE arn = ?1";
    let found: Option<i64> = call.db.query_row(sql, [arn], |row| row.get(0)).optional()?;
    found
        .map(|_| arn)
        .ok_or_else(|| Fault::not_found(format!("Dataset or model {arn} does not exist")))
}
