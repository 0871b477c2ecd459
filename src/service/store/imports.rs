//! Model versions made of others: the next version of a model, or a new model. The copying runs in the background.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::models::{self, Model, ModelStatus, NewRow};
use super::versions::{self, NewVersion, SourceType, Version, VersionStatus};
use super::{Once, Store, datasets, seconds, tags};
use crate::service::faults::Fault;
use crate::service::schema::Schema;

/// A version to be imported.
pub struct NewVersionImport {
    /// ARN of the version it is made of.
    pub source_arn: String,
    /// The model it is to be a version of; that of the source if there is none.
    pub model: Option<String>,
    /// The dataset that a new model belongs to.
    pub dataset: String,
    /// Identity of a new model.
    pub uuid: String,
    /// Its ARN, by its name.
    pub arn: Box<dyn FnOnce(&str) -> String + Send>,
    /// Members of Describe answers, as given, over those of the source.
    pub detail: Map<String, Value>,
    /// Tags of a new model.
    pub tags: Vec<(String, String)>,
}

/// The answer to ImportModelVersion.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeVersionImport {
    /// The model.
    pub model_name: String,
    /// Its ARN.
    pub model_arn: String,
    /// ARN of the version.
    pub model_version_arn: String,
    /// Its number.
    pub model_version: i64,
    /// Where it stood.
    pub status: VersionStatus,
}

impl Store {
    /// Makes the next version of a model, or a new model, of a version that succeeded.
    pub async fn import_version(
        &self,
        once: Option<Once>,
        new: NewVersionImport,
        now: DateTime<Utc>,
    ) -> Result<MadeVersionImport, Fault> {
        self.make(once, now, move |db| {
            let dataset = datasets::named(db, &new.dataset)?;
            let (source, version) = source(db, &new.source_arn)?;
            let mut detail = version.detail.as_object().cloned().unwrap_or_default();
            detail.extend(new.detail);
            detail.insert("SourceModelVersionArn".to_owned(), new.source_arn.into());
            let millis = now.timestamp_micros().div_euclid(1000);
            detail.insert("ImportJobStartTime".to_owned(), seconds(millis * 1000).into());
            let detail = Value::Object(detail);

            let schema = version.schema.as_ref().unwrap_or(&source.schema);
            let sampling_us = models::sampling_us(&version.detail).or(source.sampling_us);
            let name = new.model.unwrap_or_else(|| source.name.clone());
            let (uuid, arn) = match models::by_name(db, &name)? {
                Some(model) => {
                    refuse_model(&model, &dataset, schema, sampling_us, &new.tags)?;
                    (model.uuid, model.arn)
                }
                None => {
                    if let Some(known) = &dataset.schema
                        && let Some(absent) = Schema::parse(schema)?.missing_from(&Schema::parse(known)?)
                    {
                        return Err(Fault::validation(format!(
                            "'{absent}' of the imported version is not in the schema of dataset '{}'",
                            dataset.name
                        )));
                    }
                    let arn = (new.arn)(&name);
                    let row = NewRow {
                        name: &name,
                        uuid: &new.uuid,
                        arn: &arn,
                        status: ModelStatus::ImportInProgress,
                        schema,
                        detail: &detail,
                        dataset: (&dataset.name, &dataset.arn),
                        sampling_us,
                    };
                    models::insert(db, &row, now)?;
                    tags::set(db, &arn, &new.tags)?;
                    (new.uuid, arn)
                }
            };
            let imported = NewVersion {
                model_uuid: &uuid,
                model_arn: &arn,
                source_type: SourceType::Import,
                dataset_file: None,
                schema,
                detail: &detail,
            };
            let number = versions::insert(db, &imported, now)?;
            db.execute(
                "UPDATE model_version SET (file, metrics, quality) =
                     (SELECT file, metrics, quality FROM model_version WHERE model_uuid = ?3 AND version = ?4)
                 WHERE model_uuid = ?1 AND version = ?2",
                params![uuid, number, source.uuid, version.number],
            )?;
            Ok(MadeVersionImport {
                model_name: name,
                model_version_arn: versions::arn(&arn, number),
                model_arn: arn,
                model_version: number,
                status: VersionStatus::ImportInProgress,
            })
        })
        .await
    }
}

/// The version of that ARN and its model.
fn source(db: &Connection, arn: &str) -> Result<(Model, Version), Fault> {
    let sql = "SELECT m.name, v.version FROM model_version v JOIN model m ON m.uuid = v.model_uuid WHERE v.arn = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found: Option<(String, i64)> = db.query_row(sql, [arn], read).optional()?;
    let Some((model, number)) = found else {
        return Err(Fault::not_found(format!(
            "Model version {arn} does not exist here; only models of this service can be imported"
        )));
    };
    let model = models::named(db, &model)?;
    let version = versions::find(db, &model.uuid, number)?.ok_or_else(Fault::internal)?;
    if version.status != VersionStatus::Success {
        return Err(Fault::conflict(format!(
            "Model version {arn} is {}: only SUCCESS can be imported",
            version.status
        )));
    }
    Ok((model, version))
}

/// Refuses a model that cannot take the version: it keeps its dataset, its sensors and its sampling, because its schedulers'
/// files and windows are made for them.
fn refuse_model(
    model: &Model,
    dataset: &datasets::Dataset,
    schema: &str,
    sampling_us: Option<i64>,
    tags: &[(String, String)],
) -> Result<(), Fault> {
    let own_dataset = model.dataset.as_ref();
    if own_dataset.is_some_and(|(_, arn)| *arn != dataset.arn) {
        return Err(Fault::conflict(format!(
            "Model '{}' belongs to another dataset than '{}'",
            model.name, dataset.name
        )));
    }
    refuse_version(model, schema, sampling_us)?;
    if !tags.is_empty() {
        return Err(Fault::validation(format!(
            "Model '{}' exists: Tags can be given only with a new model, use TagResource",
            model.name
        )));
    }
    Ok(())
}

/// Refuses a version of other sensors or another sampling than the model's.
pub(super) fn refuse_version(
    model: &Model,
    schema: &str,
    sampling_us: Option<i64>,
) -> Result<(), Fault> {
    let (own, other) = (Schema::parse(&model.schema)?, Schema::parse(schema)?);
    let refuse = |what: String| {
        Fault::validation(format!(
            "The version cannot be imported into model '{}': {what}. Import it into a model of another name",
            model.name
        ))
    };
    if let Some(absent) = own.missing_from(&other) {
        return Err(refuse(format!("it lacks '{absent}', which the model has")));
    }
    if let Some(more) = other.missing_from(&own) {
        return Err(refuse(format!("it has '{more}', which the model lacks")));
    }
    if model.sampling_us != sampling_us {
        let shown = |sampling: Option<i64>| match sampling {
            None => "none".to_owned(),
            Some(micros) => format!("{} s", micros / 1_000_000),
        };
        return Err(refuse(format!(
            "its sampling rate is {}, the model's is {}",
            shown(sampling_us),
            shown(model.sampling_us)
        )));
    }
    Ok(())
}
