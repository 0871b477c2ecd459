//! Tags of datasets, models, label groups and inference schedulers.

use rusqlite::{Connection, OptionalExtension, params};

use super::Store;
use crate::service::faults::Fault;

/// Tags per resource (contract 1.3).
const MOST: i64 = 50;

impl Store {
    /// Adds tags to what `arn` names, or replaces their values.
    pub async fn tag(&self, arn: &str, tags: Vec<(String, String)>) -> Result<(), Fault> {
        let arn = arn.to_owned();
        self.transact(move |db| {
            must_exist(db, &arn)?;
            set(db, &arn, &tags)
        })
        .await
    }

    /// Removes tags; absent keys are no error.
    pub async fn untag(&self, arn: &str, keys: Vec<String>) -> Result<(), Fault> {
        let arn = arn.to_owned();
        self.transact(move |db| {
            must_exist(db, &arn)?;
            for key in keys {
                db.execute("DELETE FROM tag WHERE arn = ?1 AND key = ?2", [&arn, &key])?;
            }
            Ok(())
        })
        .await
    }

    /// The tags of what `arn` names, by key.
    pub async fn tags(&self, arn: &str) -> Result<Vec<(String, String)>, Fault> {
        let arn = arn.to_owned();
        self.transact(move |db| {
            must_exist(db, &arn)?;
            of(db, &arn)
        })
        .await
    }
}

/// Puts `tags` on the resource `arn`, within the quota.
pub(super) fn set(db: &Connection, arn: &str, tags: &[(String, String)]) -> Result<(), Fault> {
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
pub(super) fn of(db: &Connection, arn: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut statement =
        db.prepare_cached("SELECT key, value FROM tag WHERE arn = ?1 ORDER BY key")?;
    let rows = statement.query_map([arn], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Removes every tag of a deleted resource.
pub(super) fn forget(db: &Connection, arn: &str) -> Result<(), Fault> {
    db.execute("DELETE FROM tag WHERE arn = ?1", [arn])?;
    Ok(())
}

fn must_exist(db: &Connection, arn: &str) -> Result<(), Fault> {
    let kind = arn
        .split(':')
        .nth(5)
        .and_then(|resource| resource.split('/').next())
        .unwrap_or_default();
    let sql = match kind {
        "inference-scheduler" => "SELECT 1 FROM scheduler WHERE arn = ?1",
        "label-group" => "SELECT 1 FROM label_group WHERE arn = ?1",
        "model" => "SELECT 1 FROM model WHERE arn = ?1",
        "dataset" => "SELECT 1 FROM dataset WHERE arn = ?1",
        _ => {
            return Err(Fault::validation(format!(
                "'{arn}' is no ARN of a dataset, model, label group or inference scheduler"
            )));
        }
    };
    let found: Option<i64> = db.query_row(sql, [arn], |row| row.get(0)).optional()?;
    found
        .map(drop)
        .ok_or_else(|| Fault::not_found(format!("Resource {arn} does not exist")))
}
