//! The rows of model versions as the jobs that make them see them: claimed, made, failed; and the retrainings that begin one.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::retraining::{self, PromoteMode, RetrainingStatus};
use super::versions::{self, NewVersion, SourceType};
use super::{Store, leftovers, models};
use crate::service::faults::Fault;
use crate::service::files::{Folder, Staged};

/// The part of a lookback that a retrained version is judged on: its last fifth.
const JUDGED_PART: i64 = 5;
/// The API's limit of a reason.
const LONGEST_REASON: usize = 5000;

/// A version to be made.
#[derive(Debug, Clone)]
pub struct Making {
    /// The model's name.
    pub model: String,
    /// Its identity.
    pub model_uuid: String,
    /// The number of the version.
    pub version: i64,
    /// Where it comes from.
    pub source_type: SourceType,
    /// The rows to learn from.
    pub dataset_file: Option<String>,
    /// The schema string.
    pub schema: String,
    /// Members of Describe answers, as given.
    pub detail: Value,
    /// The model file; an import has it from the start.
    pub file: Option<String>,
    /// The active version's number and model file.
    pub active: Option<(i64, Option<String>)>,
}

/// How a version came out.
#[derive(Debug, Clone)]
pub struct Made {
    /// The model file, if it is new.
    pub file: Option<Staged>,
    /// Metrics of its evaluation; `None` leaves what an import brought.
    pub metrics: Option<String>,
    /// Verdict of its evaluation; an import keeps its own.
    pub quality: Option<String>,
    /// Members of Describe answers.
    pub detail: Value,
    /// A retraining that is not to become active.
    pub held_back: bool,
}

impl Store {
    /// The oldest version that is to be made; its making begins now.
    pub async fn next_to_make(&self, now: DateTime<Utc>) -> Result<Option<Making>, Fault> {
        self.transact(move |db| {
            let sql = "SELECT m.name, m.uuid, v.version, v.source_type, v.dataset_file, coalesce(v.schema, m.schema), v.detail,
                              v.file, m.active_version, a.file
                       FROM model_version v JOIN model m ON m.uuid = v.model_uuid
                       LEFT JOIN model_version a ON a.model_uuid = m.uuid AND a.version = m.active_version
                       WHERE v.status IN ('IN_PROGRESS', 'IMPORT_IN_PROGRESS') ORDER BY v.created_us LIMIT 1";
            let read = |row: &rusqlite::Row<'_>| {
                let detail: String = row.get(6)?;
                let active: Option<i64> = row.get(8)?;
                let active_file: Option<String> = row.get(9)?;
                Ok(Making {
                    model: row.get(0)?,
                    model_uuid: row.get(1)?,
                    version: row.get(2)?,
                    source_type: row.get(3)?,
                    dataset_file: row.get(4)?,
                    schema: row.get(5)?,
                    detail: serde_json::from_str(&detail).unwrap_or_default(),
                    file: row.get(7)?,
                    active: active.map(|version| (version, active_file)),
                })
            };
            let making = db.query_row(sql, [], read).optional()?;
            if let Some(making) = &making {
                db.execute(
                    "UPDATE model_version SET execution_start_us = ?3 WHERE model_uuid = ?1 AND version = ?2",
                    params![making.model_uuid, making.version, now.timestamp_micros()],
                )?;
            }
            Ok(making)
        })
        .await
    }

    /// Puts the model file in its place and makes the version SUCCESS; active if it is the model's first, or a training that
    /// is not held back. An import into a model that has an active version waits for UpdateActiveModelVersion.
    pub async fn version_made(
        &self,
        making: &Making,
        made: Made,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        if let Some(staged) = &made.file {
            self.announce(staged.folder, staged.names()).await?;
        }
        let (files, making) = (self.files.clone(), making.clone());
        let now = now.timestamp_micros();
        self.transact(move |db| {
            let imported = making.source_type == SourceType::Import;
            let file = made.file.as_ref().map(|staged| staged.name.as_str());
            let changed = db.execute(
                "UPDATE model_version SET status = 'SUCCESS', metrics = coalesce(?3, metrics),
                                          quality = CASE WHEN ?7 THEN coalesce(quality, ?4) ELSE ?4 END, detail = ?5,
                                          execution_end_us = ?6, updated_us = ?6, file = coalesce(?8, file),
                                          dataset_file = NULL
                 WHERE model_uuid = ?1 AND version = ?2 AND status IN ('IN_PROGRESS', 'IMPORT_IN_PROGRESS')",
                params![
                    making.model_uuid,
                    making.version,
                    made.metrics,
                    made.quality,
                    made.detail.to_string(),
                    now,
                    imported,
                    file
                ],
            )?;
            if changed == 0 {
                return Err(Fault::conflict("the version is not in the making any more"));
            }
            if let Some(staged) = &made.file {
                leftovers::place(db, &files, staged)?;
            }
            db.execute(
                "UPDATE model SET status = 'SUCCESS', updated_us = ?2 WHERE uuid = ?1",
                params![making.model_uuid, now],
            )?;
            if making.active.is_none() || !(made.held_back || imported) {
                versions::promote(db, &making.model_uuid, making.version, now)?;
            }
            Ok(())
        })
        .await
    }

    /// Makes the version FAILED. A model that works goes on with the version it has.
    pub async fn version_failed(
        &self,
        making: &Making,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let (making, now) = (making.clone(), now.timestamp_micros());
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        self.transact(move |db| {
            let mut detail = match making.detail.is_object() {
                true => making.detail,
                false => json!({}),
            };
            if making.source_type == SourceType::Retraining {
                detail["AutoPromotionResult"] = "RETRAINING_CUSTOMER_ERROR".into();
                detail["AutoPromotionResultReason"] = reason.as_str().into();
            }
            db.execute(
                "UPDATE model_version SET status = 'FAILED', failed_reason = ?3, execution_end_us = ?4, updated_us = ?4,
                                          detail = ?5, file = NULL, dataset_file = NULL
                 WHERE model_uuid = ?1 AND version = ?2",
                params![making.model_uuid, making.version, reason, now, detail.to_string()],
            )?;
            db.execute(
                "UPDATE model SET status = 'FAILED', updated_us = ?2 WHERE uuid = ?1 AND active_version IS NULL",
                params![making.model_uuid, now],
            )?;
            Ok(())
        })
        .await
    }

    /// Where the file of a version lies.
    pub async fn model_file(&self, model_uuid: &str, version: i64) -> Result<PathBuf, Fault> {
        let (uuid, files) = (model_uuid.to_owned(), self.files.clone());
        self.transact(move |db| {
            let sql = "SELECT file FROM model_version WHERE model_uuid = ?1 AND version = ?2";
            let file: Option<Option<String>> = db
                .prepare_cached(sql)?
                .query_row(params![uuid, version], |row| row.get(0))
                .optional()?;
            // What could not be taken over from an earlier layout is missing under its name there.
            let name = file
                .flatten()
                .unwrap_or_else(|| format!("{uuid}-{version}.model"));
            Ok(files.path(Folder::Models, &name))
        })
        .await
    }

    /// The name of the rows that a dataset holds.
    pub async fn dataset_rows(&self, dataset: &str) -> Result<Option<String>, Fault> {
        let name = dataset.to_owned();
        self.transact(move |db| {
            let sql = "SELECT j.file FROM dataset d JOIN ingestion_job j ON j.id = d.job_id WHERE d.name = ?1";
            let file: Option<Option<String>> =
                db.query_row(sql, [name], |row| row.get(0)).optional()?;
            Ok(file.flatten())
        })
        .await
    }

    /// Whether a retraining scheduler is PENDING or STOPPING.
    pub async fn retraining_moves(&self) -> Result<bool, Fault> {
        self.transact(|db| {
            let sql = "SELECT 1 FROM retraining_scheduler WHERE status IN ('PENDING', 'STOPPING') LIMIT 1";
            Ok(db.query_row(sql, [], |_| Ok(())).optional()?.is_some())
        })
        .await
    }

    /// Completes PENDING and STOPPING, and begins every retraining that is due.
    pub async fn retrain(&self, now: DateTime<Utc>) -> Result<(), Fault> {
        self.transact(move |db| {
            for (from, to) in [
                (RetrainingStatus::Pending, RetrainingStatus::Running),
                (RetrainingStatus::Stopping, RetrainingStatus::Stopped),
            ] {
                db.execute(
                    "UPDATE retraining_scheduler SET status = ?2 WHERE status = ?1",
                    [from, to],
                )?;
            }
            while retrain_one(db, now)? {}
            Ok(())
        })
        .await
    }
}

/// Begins one retraining that is due; false if there is none.
fn retrain_one(db: &Connection, now: DateTime<Utc>) -> Result<bool, Fault> {
    let due: Option<(String, String, String, PromoteMode, i64)> = db
        .query_row(
            "SELECT model_name, frequency, lookback, promote, next_us FROM retraining_scheduler
             WHERE status = 'RUNNING' AND next_us <= ?1 LIMIT 1",
            [now.timestamp_micros()],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            },
        )
        .optional()?;
    let Some((name, frequency, lookback, promote, next_us)) = due else {
        return Ok(false);
    };
    let mut next = DateTime::from_timestamp_micros(next_us).unwrap_or(now);
    while next <= now {
        next = retraining::after(next, &frequency).ok_or_else(Fault::internal)?;
    }
    db.execute(
        "UPDATE retraining_scheduler SET next_us = ?2 WHERE model_name = ?1",
        params![name, next.timestamp_micros()],
    )?;
    let model = models::by_name(db, &name)?.ok_or_else(Fault::internal)?;
    let source: Option<(Option<String>, Option<i64>, Option<i64>)> = match &model.dataset {
        None => None,
        Some((dataset, _)) => db
            .query_row(
                "SELECT j.file, j.start_us, j.end_us FROM dataset d LEFT JOIN ingestion_job j ON j.id = d.job_id
                 WHERE d.name = ?1",
                [dataset],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()?,
    };
    let Some((Some(file), Some(start_us), Some(end_us))) = source else {
        tracing::warn!(
            model = name,
            "retraining skipped, the model's dataset holds no data"
        );
        return Ok(true);
    };
    let days: i64 = lookback.trim_matches(['P', 'D']).parse().unwrap_or(180);
    let from_us = start_us.max(end_us - days * 86_400_000_000);
    let mut detail = model.detail.clone();
    divide(&mut detail, from_us, end_us);
    detail["RetrainingAvailableDataInDays"] = json!((end_us - from_us) / 86_400_000_000);
    detail["PromoteMode"] = json!(promote);
    let new = NewVersion {
        model_uuid: &model.uuid,
        model_arn: &model.arn,
        source_type: SourceType::Retraining,
        dataset_file: Some(&file),
        schema: &model.schema,
        detail: &detail,
    };
    let version = versions::insert(db, &new, now)?;
    tracing::info!(model = name, version, "retraining started");
    Ok(true)
}

/// Divides a lookback into what is learnt and, at its end, what the new and the active version are judged on, where the model
/// is judged at all: no version is judged on rows that it has learnt.
fn divide(detail: &mut Value, from_us: i64, end_us: i64) {
    let labels = detail["LabelsInputConfiguration"]
        .as_object()
        .is_some_and(|labels| !labels.is_empty());
    let judged = labels || detail["EvaluationDataStartTime"].is_number();
    let second = |us: i64| json!(us as f64 / 1e6);
    let learnt_us = match judged {
        // Whole seconds, which the API's numbers hold exactly.
        true => (end_us - (end_us - from_us) / JUDGED_PART) / 1_000_000 * 1_000_000,
        false => end_us,
    };
    detail["TrainingDataStartTime"] = second(from_us);
    detail["TrainingDataEndTime"] = second(learnt_us);
    if judged {
        detail["EvaluationDataStartTime"] = second(learnt_us);
        detail["EvaluationDataEndTime"] = second(end_us);
    }
}

/// The index of the rows that a job made.
pub(super) fn dataset_file(db: &Connection, job: &str) -> Result<Option<String>, Fault> {
    let sql = "SELECT file FROM ingestion_job WHERE id = ?1";
    let found: Option<Option<String>> = db.query_row(sql, [job], |row| row.get(0)).optional()?;
    Ok(found.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookback_is_divided_where_the_model_is_judged() {
        let (from, end) = (1_700_000_000_500_000, 1_700_864_000_500_000);
        for given in [
            json!({"EvaluationDataStartTime": 5.0, "EvaluationDataEndTime": 6.0}),
            json!({"LabelsInputConfiguration": {"LabelGroupName": "g"}}),
        ] {
            let mut detail = given;
            divide(&mut detail, from, end);
            assert_eq!(detail["TrainingDataStartTime"], 1_700_000_000.5);
            assert_eq!(detail["TrainingDataEndTime"], 1_700_691_200.0);
            assert_eq!(detail["EvaluationDataStartTime"], 1_700_691_200.0);
            assert_eq!(detail["EvaluationDataEndTime"], 1_700_864_000.5);
        }
        let mut detail = json!({"LabelsInputConfiguration": {}});
        divide(&mut detail, from, end);
        assert_eq!(detail["TrainingDataEndTime"], 1_700_864_000.5);
        assert!(
            detail
                .get("EvaluationDataStartTime")
                .is_none_or(Value::is_null)
        );
    }
}
