//! Model versions as the API tells them, and which one is active. How they are made is `super::making`.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

use super::models::{self, Model};
use super::words::words;
use super::{Store, stored_json};
use crate::service::faults::Fault;
use crate::service::schema::Schema;

words! {
    /// Where a model version stands.
    pub enum VersionStatus {
        /// It is trained, or waits for it.
        InProgress = "IN_PROGRESS",
        /// It can be active.
        Success = "SUCCESS",
        /// It was not made.
        Failed = "FAILED",
        /// It is imported, or waits for it.
        ImportInProgress = "IMPORT_IN_PROGRESS",
        /// It was given up.
        Canceled = "CANCELED",
    }
}

words! {
    /// Where a model version comes from.
    pub enum SourceType {
        /// CreateModel.
        Training = "TRAINING",
        /// The model's retraining scheduler.
        Retraining = "RETRAINING",
        /// Another model, or a file.
        Import = "IMPORT",
    }
}

/// One model version as stored.
#[derive(Debug, Clone)]
pub struct Version {
    /// 1, 2, ...
    pub number: i64,
    /// ARN.
    pub arn: String,
    /// Where it stands.
    pub status: VersionStatus,
    /// Where it comes from.
    pub source_type: SourceType,
    /// Its schema string.
    pub schema: Option<String>,
    /// Why it failed.
    pub failed_reason: Option<String>,
    /// Metrics of its evaluation, a JSON string.
    pub metrics: Option<String>,
    /// Verdict of its evaluation.
    pub quality: Option<String>,
    /// When its training began and ended.
    pub execution_us: (Option<i64>, Option<i64>),
    /// Members of Describe answers, as given or found.
    pub detail: Value,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last change, microseconds.
    pub updated_us: i64,
}

/// Which versions of a model are asked for.
#[derive(Debug)]
pub struct VersionsAsked {
    /// Identity of the model.
    pub model_uuid: String,
    /// Those that stand there.
    pub status: Option<VersionStatus>,
    /// Those that come from there.
    pub source_type: Option<SourceType>,
    /// Those made then, from and to, microseconds.
    pub created_us: (i64, i64),
    /// Those with these numbers, from and to.
    pub numbers: (i64, i64),
    /// Those with a lower number.
    pub before: i64,
    /// So many at most.
    pub limit: i64,
}

/// A version that became active.
#[derive(Debug)]
pub struct Activated {
    /// Its model, with what was active before.
    pub model: Model,
    /// The version.
    pub version: Version,
}

const COLUMNS: &str = "version, arn, status, source_type, schema, failed_reason, metrics, quality, execution_start_us, \
     execution_end_us, detail, created_us, updated_us";

impl Store {
    /// The version of that number, and its model.
    pub async fn version(&self, model: &str, number: i64) -> Result<(Model, Version), Fault> {
        let name = model.to_owned();
        self.transact(move |db| {
            let model = models::named(db, &name)?;
            let version = numbered(db, &model, number)?;
            Ok((model, version))
        })
        .await
    }

    /// Versions of a model, newest first.
    pub async fn versions(&self, asked: VersionsAsked) -> Result<Vec<Version>, Fault> {
        self.transact(move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM model_version
                 WHERE model_uuid = ?1 AND version < ?2 AND (?3 IS NULL OR status = ?3) AND (?4 IS NULL OR source_type = ?4)
                   AND created_us >= ?5 AND created_us <= ?6 AND version >= ?7 AND version <= ?8
                 ORDER BY version DESC LIMIT ?9"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let bounds = params![
                asked.model_uuid,
                asked.before,
                asked.status,
                asked.source_type,
                asked.created_us.0,
                asked.created_us.1,
                asked.numbers.0,
                asked.numbers.1,
                asked.limit,
            ];
            let rows = statement.query_map(bounds, read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Makes a version that is SUCCESS, and was made for the sensors the model has, the active one.
    pub async fn activate_version(
        &self,
        model: &str,
        number: i64,
        now: DateTime<Utc>,
    ) -> Result<Activated, Fault> {
        let name = model.to_owned();
        self.transact(move |db| {
            let model = models::named(db, &name)?;
            let version = numbered(db, &model, number)?;
            if version.status != VersionStatus::Success {
                return Err(Fault::conflict(format!(
                    "Version {number} of model '{name}' is {}: only a version that is SUCCESS can be active",
                    version.status
                )));
            }
            if let Some(schema) = &version.schema {
                let (own, other) = (Schema::parse(&model.schema)?, Schema::parse(schema)?);
                let odd = own
                    .missing_from(&other)
                    .or_else(|| other.missing_from(&own));
                if let Some(odd) = odd {
                    return Err(Fault::conflict(format!(
                        "Version {number} of model '{name}' was made for other sensors than the model has, '{odd}' among \
                         them: it cannot be active"
                    )));
                }
            }
            promote(db, &model.uuid, number, now.timestamp_micros())?;
            Ok(Activated {
                model: models::named(db, &name)?,
                version,
            })
        })
        .await
    }
}

/// A version to be made.
pub(super) struct NewVersion<'a> {
    pub model_uuid: &'a str,
    pub model_arn: &'a str,
    pub source_type: SourceType,
    /// The rows to learn from.
    pub dataset_file: Option<&'a str>,
    pub schema: &'a str,
    pub detail: &'a Value,
}

/// Adds the next version of a model, to be made. Returns its number.
pub(super) fn insert(
    db: &Connection,
    new: &NewVersion<'_>,
    now: DateTime<Utc>,
) -> Result<i64, Fault> {
    let number = next_number(db, new.model_uuid)?;
    let status = match new.source_type {
        SourceType::Import => VersionStatus::ImportInProgress,
        SourceType::Training | SourceType::Retraining => VersionStatus::InProgress,
    };
    db.execute(
        "INSERT INTO model_version (model_uuid, version, arn, status, source_type, created_us, updated_us, dataset_file,
                                    schema, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9)",
        params![
            new.model_uuid,
            number,
            arn(new.model_arn, number),
            status,
            new.source_type,
            now.timestamp_micros(),
            new.dataset_file,
            new.schema,
            new.detail.to_string()
        ],
    )?;
    Ok(number)
}

/// The number of a model's next version.
pub(super) fn next_number(db: &Connection, model_uuid: &str) -> Result<i64, Fault> {
    let sql = "SELECT coalesce(max(version), 0) + 1 FROM model_version WHERE model_uuid = ?1";
    Ok(db.query_row(sql, [model_uuid], |row| row.get(0))?)
}

/// Makes version `number` the active one; what was active becomes the previous.
pub(super) fn promote(
    db: &Connection,
    model_uuid: &str,
    number: i64,
    now: i64,
) -> Result<(), Fault> {
    db.execute(
        "UPDATE model SET previous_version = active_version, previous_activated_us = activated_us, active_version = ?2,
                          activated_us = ?3, updated_us = ?3,
                          quality = (SELECT quality FROM model_version WHERE model_uuid = ?1 AND version = ?2)
         WHERE uuid = ?1 AND active_version IS NOT ?2",
        params![model_uuid, number, now],
    )?;
    Ok(())
}

/// The ARN of a model's version.
pub fn arn(model_arn: &str, number: i64) -> String {
    format!("{model_arn}/model-version/{number}")
}

/// The version of that number.
pub(super) fn find(
    db: &Connection,
    model_uuid: &str,
    number: i64,
) -> Result<Option<Version>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM model_version WHERE model_uuid = ?1 AND version = ?2");
    Ok(db
        .prepare_cached(&sql)?
        .query_row(params![model_uuid, number], read)
        .optional()?)
}

/// A version of the model that is trained or imported now, or waits for it: its number and status.
pub(super) fn under_way(
    db: &Connection,
    model_uuid: &str,
) -> Result<Option<(i64, VersionStatus)>, Fault> {
    let sql = "SELECT version, status FROM model_version
               WHERE model_uuid = ?1 AND status IN ('IN_PROGRESS', 'IMPORT_IN_PROGRESS') ORDER BY version LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(db.query_row(sql, [model_uuid], read).optional()?)
}

fn numbered(db: &Connection, model: &Model, number: i64) -> Result<Version, Fault> {
    find(db, &model.uuid, number)?
        .ok_or_else(|| Fault::not_found(format!("Model '{}' has no version {number}", model.name)))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        number: row.get(0)?,
        arn: row.get(1)?,
        status: row.get(2)?,
        source_type: row.get(3)?,
        schema: row.get(4)?,
        failed_reason: row.get(5)?,
        metrics: row.get(6)?,
        quality: row.get(7)?,
        execution_us: (row.get(8)?, row.get(9)?),
        detail: stored_json(row, 10)?,
        created_us: row.get(11)?,
        updated_us: row.get(12)?,
    })
}
