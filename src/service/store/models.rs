//! Models: their rows, and what depends on them when one is made, changed or deleted. Training runs in the background.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::retraining::{self, RetrainingTold};
use super::versions::{self, NewVersion, SourceType, Version};
use super::words::words;
use super::{Once, Store, datasets, making, schedulers, stored_json, tags, understood};
use crate::model::{OffCondition, Sampling};
use crate::service::faults::Fault;
use crate::service::schema::Schema;

words! {
    /// Where a model stands.
    pub enum ModelStatus {
        /// Its first version is trained.
        InProgress = "IN_PROGRESS",
        /// It has a version that works.
        Success = "SUCCESS",
        /// It has none, and the last attempt failed.
        Failed = "FAILED",
        /// Its first version is imported.
        ImportInProgress = "IMPORT_IN_PROGRESS",
    }
}

impl ModelStatus {
    /// Whether its first version is under way.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::InProgress | Self::ImportInProgress)
    }
}

/// A model to be trained.
#[derive(Debug)]
pub struct NewTraining {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// The dataset to learn from.
    pub dataset: String,
    /// Its schema string; that of the dataset if there is none.
    pub schema: Option<String>,
    /// Members of Describe answers, as given.
    pub detail: Map<String, Value>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// The answer to CreateModel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeModel {
    /// ARN.
    pub model_arn: String,
    /// Where it stood.
    pub status: ModelStatus,
}

/// Which models are asked for.
#[derive(Debug)]
pub struct ModelsAsked {
    /// Those whose name begins so.
    pub prefix: String,
    /// Those whose dataset's name begins so.
    pub dataset_prefix: String,
    /// Those that stand there.
    pub status: Option<ModelStatus>,
    /// Name of the one before the first.
    pub after: String,
    /// So many at most.
    pub limit: i64,
}

/// One model as stored.
#[derive(Debug, Clone)]
pub struct Model {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// Where it stands.
    pub status: ModelStatus,
    /// Its schema string.
    pub schema: String,
    /// Name and ARN of the dataset, absent for a model put in from outside.
    pub dataset: Option<(String, String)>,
    /// Sampling interval in microseconds if the model has a target rate.
    pub sampling_us: Option<i64>,
    /// The active version, absent until one succeeded.
    pub active_version: Option<i64>,
    /// The version that was active before.
    pub previous_version: Option<i64>,
    /// When each became active.
    pub activated_us: (Option<i64>, Option<i64>),
    /// What the next training uses.
    pub detail: Value,
    /// Verdict of the active version's evaluation.
    pub quality: Option<String>,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last change, microseconds.
    pub updated_us: i64,
}

/// All that is told of one model.
#[derive(Debug)]
pub struct ModelTold {
    /// The model.
    pub model: Model,
    /// Its active version, or the first while that is made.
    pub version: Version,
    /// The version that was active before.
    pub previous: Option<Version>,
    /// How it is retrained.
    pub retraining: RetrainingTold,
}

const COLUMNS: &str = "name, uuid, arn, status, schema, dataset_name, dataset_arn, active_version, previous_version, \
     activated_us, previous_activated_us, detail, quality, created_us, updated_us, sampling_us";

impl Store {
    /// Makes a model and the first version of it, which is to be trained on the rows its dataset holds now.
    pub async fn create_model(
        &self,
        once: Option<Once>,
        new: NewTraining,
        now: DateTime<Utc>,
    ) -> Result<MadeModel, Fault> {
        self.make(once, now, move |db| {
            let name = &new.name;
            if by_name(db, name)?.is_some() {
                return Err(Fault::conflict(format!("Model '{name}' already exists")));
            }
            let dataset = datasets::named(db, &new.dataset)?;
            let (Some(job), Some(known)) = (&dataset.job_id, &dataset.schema) else {
                return Err(Fault::conflict(format!(
                    "Dataset '{}' is {} and holds no data: run StartDataIngestionJob first",
                    dataset.name, dataset.status
                )));
            };
            let Some(rows) = making::dataset_file(db, job)? else {
                return Err(Fault::conflict(format!(
                    "The rows of dataset '{}' are not there: run StartDataIngestionJob again",
                    dataset.name
                )));
            };
            let schema = match new.schema {
                None => known.clone(),
                Some(text) => {
                    if let Some(absent) = Schema::parse(&text)?.missing_from(&Schema::parse(known)?)
                    {
                        return Err(Fault::validation(format!(
                            "'{absent}' is not in the schema of dataset '{}'",
                            dataset.name
                        )));
                    }
                    text
                }
            };
            refuse_detail(db, &new.detail, &Schema::parse(&schema)?)?;
            let detail = Value::Object(new.detail);
            let row = NewRow {
                name,
                uuid: &new.uuid,
                arn: &new.arn,
                status: ModelStatus::InProgress,
                schema: &schema,
                detail: &detail,
                dataset: (&dataset.name, &dataset.arn),
                sampling_us: sampling_us(&detail),
            };
            insert(db, &row, now)?;
            let version = NewVersion {
                model_uuid: row.uuid,
                model_arn: row.arn,
                source_type: SourceType::Training,
                dataset_file: Some(&rows),
                schema: &schema,
                detail: row.detail,
            };
            versions::insert(db, &version, now)?;
            tags::set(db, &new.arn, &new.tags)?;
            Ok(MadeModel {
                status: row.status,
                model_arn: new.arn,
            })
        })
        .await
    }

    /// The model of that name, with its active version, or the first while that is made.
    pub async fn model(&self, name: &str) -> Result<ModelTold, Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let model = named(db, &name)?;
            let version = versions::find(db, &model.uuid, model.active_version.unwrap_or(1))?;
            let previous = match model.previous_version {
                Some(number) => versions::find(db, &model.uuid, number)?,
                None => None,
            };
            Ok(ModelTold {
                version: version.ok_or_else(Fault::internal)?,
                previous,
                retraining: retraining::told(db, &model)?,
                model,
            })
        })
        .await
    }

    /// Models, by name, each with how it is retrained.
    pub async fn models(&self, asked: ModelsAsked) -> Result<Vec<(Model, RetrainingTold)>, Fault> {
        self.transact(move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM model
                 WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2
                   AND substr(coalesce(dataset_name, ''), 1, length(?3)) = ?3 AND (?4 IS NULL OR status = ?4)
                 ORDER BY name LIMIT ?5"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let bounds = params![asked.after, asked.prefix, asked.dataset_prefix, asked.status, asked.limit];
            let found = statement.query_map(bounds, read)?.collect::<rusqlite::Result<Vec<_>>>()?;
            let with_retraining = found.into_iter().map(|model| {
                let told = retraining::told(db, &model)?;
                Ok((model, told))
            });
            with_retraining.collect()
        })
        .await
    }

    /// Changes what the next training uses.
    pub async fn update_model(
        &self,
        name: &str,
        change: Map<String, Value>,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let model = named(db, &name)?;
            if model.status.is_busy() {
                return Err(Fault::conflict(format!(
                    "Model '{name}' is {}: wait until it has ended",
                    model.status
                )));
            }
            let mut detail = model.detail.as_object().cloned().unwrap_or_default();
            detail.extend(change);
            refuse_detail(db, &detail, &Schema::parse(&model.schema)?)?;
            db.execute(
                "UPDATE model SET detail = ?2, updated_us = ?3 WHERE uuid = ?1",
                params![
                    model.uuid,
                    Value::Object(detail).to_string(),
                    now.timestamp_micros()
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Deletes a model: not while a version of it is made, and not while a scheduler points at it.
    pub async fn delete_model(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let model = named(db, &name)?;
            if let Some((version, status)) = versions::under_way(db, &model.uuid)? {
                return Err(Fault::conflict(format!(
                    "Version {version} of model '{name}' is {status}: wait until it has ended"
                )));
            }
            if let Some(scheduler) = schedulers::of_model(db, &name)? {
                return Err(Fault::conflict(format!(
                    "Model '{name}' is used by inference scheduler '{scheduler}': stop and delete the scheduler first"
                )));
            }
            db.execute("DELETE FROM model WHERE uuid = ?1", [&model.uuid])?;
            db.execute(
                "DELETE FROM resource_policy WHERE arn = ?1 OR arn LIKE ?1 || '/model-version/%'",
                [&model.arn],
            )?;
            tags::forget(db, &model.arn)
        })
        .await
    }
}

/// The row of a new model.
pub(super) struct NewRow<'a> {
    pub name: &'a str,
    pub uuid: &'a str,
    pub arn: &'a str,
    pub status: ModelStatus,
    pub schema: &'a str,
    pub detail: &'a Value,
    /// Name and ARN of its dataset.
    pub dataset: (&'a str, &'a str),
    pub sampling_us: Option<i64>,
}

pub(super) fn insert(db: &Connection, new: &NewRow<'_>, now: DateTime<Utc>) -> Result<(), Fault> {
    db.execute(
        "INSERT INTO model (name, uuid, arn, status, schema, sampling_us, created_us, updated_us, dataset_name,
                            dataset_arn, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10)",
        params![
            new.name,
            new.uuid,
            new.arn,
            new.status,
            new.schema,
            new.sampling_us,
            now.timestamp_micros(),
            new.dataset.0,
            new.dataset.1,
            new.detail.to_string(),
        ],
    )?;
    Ok(())
}

/// The target sampling rate among a model's given members, microseconds.
pub(super) fn sampling_us(detail: &Value) -> Option<i64> {
    let sampling = detail["DataPreProcessingConfiguration"]["TargetSamplingRate"].as_str()?;
    Some(sampling.parse::<Sampling>().ok()?.micros())
}

/// The model of that name; that there is none is the fault.
pub(super) fn named(db: &Connection, name: &str) -> Result<Model, Fault> {
    by_name(db, name)?.ok_or_else(|| Fault::not_found(format!("Model '{name}' does not exist")))
}

/// The model of that name.
pub(super) fn by_name(db: &Connection, name: &str) -> Result<Option<Model>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM model WHERE name = ?1");
    Ok(db
        .prepare_cached(&sql)?
        .query_row([name], read)
        .optional()?)
}

/// The same, or why this build does not understand its row.
pub(super) fn if_understood(
    db: &Connection,
    name: &str,
) -> Result<Result<Option<Model>, String>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM model WHERE name = ?1");
    let read = db.prepare_cached(&sql)?.query_row([name], read);
    Ok(understood(read.optional())?)
}

/// Refuses what the shape cannot say about a model's inputs.
fn refuse_detail(
    db: &Connection,
    detail: &Map<String, Value>,
    schema: &Schema,
) -> Result<(), Fault> {
    for range in ["Training", "Evaluation"] {
        let at = |end: &str| {
            detail
                .get(&format!("{range}Data{end}Time"))
                .and_then(Value::as_f64)
        };
        if let (Some(start), Some(end)) = (at("Start"), at("End"))
            && start >= end
        {
            return Err(Fault::validation(format!(
                "{range}DataStartTime must be before {range}DataEndTime"
            )));
        }
    }
    if detail.contains_key("EvaluationDataStartTime")
        != detail.contains_key("EvaluationDataEndTime")
    {
        return Err(Fault::validation(
            "EvaluationDataStartTime and EvaluationDataEndTime must be given together",
        ));
    }
    let labels = detail
        .get("LabelsInputConfiguration")
        .cloned()
        .unwrap_or_default();
    if let Some(group) = labels["LabelGroupName"].as_str() {
        let sql = "SELECT 1 FROM label_group WHERE name = ?1";
        let found: Option<i64> = db.query_row(sql, [group], |row| row.get(0)).optional()?;
        found.ok_or_else(|| Fault::not_found(format!("Label group '{group}' does not exist")))?;
    }
    let in_s3 = labels["S3InputConfiguration"].is_object()
        || detail.contains_key("ModelDiagnosticsOutputConfiguration");
    if in_s3 && !detail.contains_key("RoleArn") {
        return Err(Fault::validation(
            "RoleArn is required when labels or diagnostics are in S3",
        ));
    }
    if let Some(condition) = detail.get("OffCondition").and_then(Value::as_str) {
        let off: OffCondition = condition
            .parse()
            .map_err(|error| Fault::validation(format!("OffCondition is invalid: {error}")))?;
        let known = schema.components.iter().any(|component| {
            component.name == off.sensor.component && component.sensors.contains(&off.sensor.signal)
        });
        if !known {
            return Err(Fault::validation(format!(
                "OffCondition names '{}', which is not in the schema",
                off.sensor
            )));
        }
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Model> {
    let dataset: (Option<String>, Option<String>) = (row.get(5)?, row.get(6)?);
    Ok(Model {
        name: row.get(0)?,
        uuid: row.get(1)?,
        arn: row.get(2)?,
        status: row.get(3)?,
        schema: row.get(4)?,
        dataset: dataset.0.zip(dataset.1),
        active_version: row.get(7)?,
        previous_version: row.get(8)?,
        activated_us: (row.get(9)?, row.get(10)?),
        detail: stored_json(row, 11)?,
        quality: row.get(12)?,
        created_us: row.get(13)?,
        updated_us: row.get(14)?,
        sampling_us: row.get(15)?,
    })
}
