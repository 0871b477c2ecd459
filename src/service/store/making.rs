//! The rows of model versions as the jobs that make them see them: claimed, made, failed; and the retrainings that begin one.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::models::Model;
use super::retraining::{self, PromoteMode, RetrainingStatus};
use super::versions::{self, NewVersion, SourceType};
use super::{Store, leftovers, models, stored_json};
use crate::clock;
use crate::service::faults::Fault;
use crate::service::files::{Folder, Staged};

/// The part of a lookback that a retrained version is judged on: its last fifth.
const JUDGED_PART: i64 = 5;
/// The API's limit of a reason.
const LONGEST_REASON: usize = 5000;
/// How often a retraining scheduler fails whose frequency is unknown: the shortest that there is.
const UNKNOWN_FREQUENCY: TimeDelta = TimeDelta::days(30);
/// Days that a lookback may have, by far.
const MOST_DAYS: i64 = 36_500;

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
            loop {
                let Some((word, mut making)) = waiting(db)? else {
                    return Ok(None);
                };
                let Some(source_type) = SourceType::from_sql(&word) else {
                    let reason = format!("This build of the service does not know versions of the source type '{word}'");
                    tracing::warn!(model = making.model, version = making.version, reason, "training failed");
                    fail(db, making, &reason, now)?;
                    continue;
                };
                making.source_type = source_type;
                db.execute(
                    "UPDATE model_version SET execution_start_us = ?3 WHERE model_uuid = ?1 AND version = ?2",
                    params![making.model_uuid, making.version, now.timestamp_micros()],
                )?;
                return Ok(Some(making));
            }
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
        let (making, reason) = (making.clone(), reason.to_owned());
        self.transact(move |db| fail(db, making, &reason, now))
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

    /// Completes PENDING and STOPPING, and begins every retraining that is due. None is before the clock has been set.
    pub async fn retrain(&self, now: DateTime<Utc>) -> Result<(), Fault> {
        if !clock::is_set(now) {
            return Ok(());
        }
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
            retraining::rewind(db, now)?;
            while retrain_one(db, now)? {}
            Ok(())
        })
        .await
    }
}

/// The version that has waited longest, and the word for where it comes from.
fn waiting(db: &Connection) -> Result<Option<(String, Making)>, Fault> {
    let sql = "SELECT m.name, m.uuid, v.version, v.source_type, v.dataset_file, coalesce(v.schema, m.schema), v.detail,
                      v.file, m.active_version, a.file
               FROM model_version v JOIN model m ON m.uuid = v.model_uuid
               LEFT JOIN model_version a ON a.model_uuid = m.uuid AND a.version = m.active_version
               WHERE v.status IN ('IN_PROGRESS', 'IMPORT_IN_PROGRESS') ORDER BY v.created_us LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let active: Option<i64> = row.get(8)?;
        let active_file: Option<String> = row.get(9)?;
        let making = Making {
            model: row.get(0)?,
            model_uuid: row.get(1)?,
            version: row.get(2)?,
            source_type: SourceType::Training,
            dataset_file: row.get(4)?,
            schema: row.get(5)?,
            detail: stored_json(row, 6)?,
            file: row.get(7)?,
            active: active.map(|version| (version, active_file)),
        };
        Ok((row.get(3)?, making))
    };
    Ok(db.query_row(sql, [], read).optional()?)
}

fn fail(db: &Connection, making: Making, reason: &str, now: DateTime<Utc>) -> Result<(), Fault> {
    let now = now.timestamp_micros();
    let reason: String = reason.chars().take(LONGEST_REASON).collect();
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
}

/// A retraining that is due, as it is stored.
struct DueRetraining {
    model: String,
    frequency: String,
    lookback: String,
    promote: String,
    next_us: i64,
}

/// Begins one retraining that is due; false if there is none. One that this build does not understand is a version that has
/// failed, and its schedule goes on.
fn retrain_one(db: &Connection, now: DateTime<Utc>) -> Result<bool, Fault> {
    let due = db
        .query_row(
            "SELECT model_name, frequency, lookback, promote, next_us FROM retraining_scheduler
             WHERE status = 'RUNNING' AND next_us <= ?1 LIMIT 1",
            [now.timestamp_micros()],
            |row| {
                Ok(DueRetraining {
                    model: row.get(0)?,
                    frequency: row.get(1)?,
                    lookback: row.get(2)?,
                    promote: row.get(3)?,
                    next_us: row.get(4)?,
                })
            },
        )
        .optional()?;
    let Some(due) = due else {
        return Ok(false);
    };
    let mut next = DateTime::from_timestamp_micros(due.next_us).or(Some(now));
    while let Some(past) = next.filter(|next| *next <= now) {
        next = retraining::after(past, &due.frequency);
    }
    let moved = next.unwrap_or(now + UNKNOWN_FREQUENCY);
    db.execute(
        "UPDATE retraining_scheduler SET next_us = ?2 WHERE model_name = ?1",
        params![due.model, moved.timestamp_micros()],
    )?;
    let days = due
        .lookback
        .strip_prefix('P')
        .and_then(|text| text.strip_suffix('D')?.parse::<i64>().ok())
        .filter(|days| (1..=MOST_DAYS).contains(days));
    let promote = PromoteMode::from_sql(&due.promote);
    let model = models::if_understood(db, &due.model)?;
    // A clock that went back comes to a date whose retraining was begun.
    if let Ok(Some(model)) = &model
        && retraining::was_begun(db, &model.uuid, due.next_us, now)?
    {
        return Ok(true);
    }
    match (next, days, promote, model) {
        (Some(_), Some(days), Some(promote), Ok(Some(model))) => {
            begin_retraining(db, &model, days, promote, now)?;
        }
        (None, ..) => refuse(db, &due, &format!("the frequency '{}'", due.frequency), now)?,
        (_, None, ..) => refuse(db, &due, &format!("the lookback '{}'", due.lookback), now)?,
        (_, _, None, _) => refuse(
            db,
            &due,
            &format!("the promote mode '{}'", due.promote),
            now,
        )?,
        (.., Err(problem)) => refuse(db, &due, &format!("the model's row: {problem}"), now)?,
        // A scheduler goes with its model.
        (.., Ok(None)) => {}
    }
    Ok(true)
}

/// Tells a retraining that this build does not understand as a version that has failed.
fn refuse(
    db: &Connection,
    due: &DueRetraining,
    what: &str,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    let reason = format!(
        "This build of the service does not understand the retraining scheduler: {what}. Start the build that stored it, or \
         delete the retraining scheduler and create it again"
    );
    let sql = "SELECT uuid, arn, schema FROM model WHERE name = ?1";
    let (model_uuid, arn, schema): (String, String, String) =
        db.query_row(sql, [&due.model], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let detail = json!({});
    let new = NewVersion {
        model_uuid: &model_uuid,
        model_arn: &arn,
        source_type: SourceType::Retraining,
        dataset_file: None,
        schema: &schema,
        detail: &detail,
    };
    let version = versions::insert(db, &new, now)?;
    tracing::warn!(model = due.model, version, reason, "retraining failed");
    let making = Making {
        model: due.model.clone(),
        model_uuid,
        version,
        source_type: SourceType::Retraining,
        dataset_file: None,
        schema,
        detail,
        file: None,
        active: None,
    };
    fail(db, making, &reason, now)
}

fn begin_retraining(
    db: &Connection,
    model: &Model,
    days: i64,
    promote: PromoteMode,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
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
            model = model.name,
            "retraining skipped, the model's dataset holds no data"
        );
        return Ok(());
    };
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
    tracing::info!(model = model.name, version, "retraining started");
    Ok(())
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
    use crate::service::store::versions::VersionStatus;

    #[tokio::test]
    async fn a_retraining_that_is_not_understood_is_a_version_that_failed_and_the_others_begin() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let now: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
        let fill = store.transact(|db| {
            db.execute_batch(
                "INSERT INTO dataset (name, uuid, arn, status, job_id, created_us, updated_us)
                     VALUES ('d', 'du', 'da', 'ACTIVE', 'j', 0, 0);
                 INSERT INTO ingestion_job (id, dataset_uuid, status, created_us, file, start_us, end_us)
                     VALUES ('j', 'du', 'SUCCESS', 0, 'j.index', 0, 86400000000);",
            )?;
            for name in ["a", "frequency", "lookback", "model", "promote", "z"] {
                db.execute(
                    "INSERT INTO model (name, uuid, arn, status, schema, dataset_name, dataset_arn, active_version, detail,
                                        created_us, updated_us)
                     VALUES (?1, ?1, ?1, 'SUCCESS', '{}', 'd', 'da', 1, '{}', 0, 0)",
                    [name],
                )?;
                db.execute(
                    "INSERT INTO retraining_scheduler (model_name, status, start_us, next_us, frequency, lookback, promote,
                                                       created_us, updated_us)
                     VALUES (?1, 'RUNNING', 0, 0, 'P30D', 'P180D', 'MANAGED', 0, 0)",
                    [name],
                )?;
            }
            db.execute_batch(
                "UPDATE retraining_scheduler SET frequency = 'P1W' WHERE model_name = 'frequency';
                 UPDATE retraining_scheduler SET lookback = 'all' WHERE model_name = 'lookback';
                 UPDATE retraining_scheduler SET promote = 'VOTE' WHERE model_name = 'promote';
                 UPDATE model SET status = 'ASLEEP' WHERE name = 'model';",
            )?;
            Ok(())
        });
        fill.await.unwrap();
        store.retrain(now).await.unwrap();
        // Once, and not again at each look.
        store.retrain(now).await.unwrap();
        let read = store.transact(|db| {
            let sql = "SELECT model_uuid, status, coalesce(failed_reason, '') FROM model_version ORDER BY model_uuid";
            let mut statement = db.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, VersionStatus>(1)?,
                    row.get::<_, String>(2)?,
                ))
            })?;
            Ok(rows.collect::<rusqlite::Result<Vec<_>>>()?)
        });
        let versions = read.await.unwrap();
        assert_eq!(versions.len(), 6, "{versions:?}");
        for (name, status, reason) in versions {
            let word = match name.as_str() {
                "frequency" => "'P1W'",
                "lookback" => "'all'",
                "promote" => "'VOTE'",
                "model" => "'ASLEEP'",
                _ => {
                    assert_eq!(status, VersionStatus::InProgress, "{name}");
                    continue;
                }
            };
            assert_eq!(status, VersionStatus::Failed);
            assert!(reason.contains(word), "{name}: {reason}");
        }
        // A version of an unknown kind fails, and the next is made.
        let spoil = store.transact(|db| {
            Ok(db.execute("UPDATE model_version SET source_type = 'GUESSED', created_us = 0 WHERE model_uuid = 'a'", [])?)
        });
        spoil.await.unwrap();
        let making = store.next_to_make(now).await.unwrap().unwrap();
        assert_eq!(making.model, "z");
    }

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
