//! ImportDataset and ImportModelVersion, from datasets and models of this same service. The copying runs in the
//! background.

use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value, json};

use super::{Call, Request, answer, datasets, models, versions};
use crate::service::faults::Fault;
use crate::service::schema::Schema;
use crate::service::store::datasets::NewImport;
use crate::service::store::tags;

/// ImportDataset: a new dataset with the rows another holds now.
pub async fn dataset(request: &Request<'_>) -> Result<Value, Fault> {
    let input = request.input;
    let uuid = uuid::Uuid::new_v4().to_string();
    let (identity, id) = (request.identity.clone(), uuid.clone());
    let new = NewImport {
        source_arn: input.required("SourceDatasetArn")?.to_owned(),
        name: input.text("DatasetName").map(str::to_owned),
        uuid,
        arn: Box::new(move |name| identity.arn("dataset", name, &id)),
        job_id: uuid::Uuid::new_v4().simple().to_string(),
        kms_key: input.text("ServerSideKmsKeyId").map(str::to_owned),
        tags: input.tags()?,
    };
    let made = request
        .store
        .import_dataset(request.once(), new, request.now);
    answer(made.await?)
}

/// ImportModelVersion: the next version of a model, or a new model, from a version that succeeded.
pub fn model_version(call: &Call<'_>) -> Result<Value, Fault> {
    let input = call.input;
    let source_arn = input.required("SourceModelVersionArn")?;
    let dataset = datasets::named(call)?;
    let found: Option<(String, i64, String)> = call
        .db
        .query_row(
            "SELECT m.name, v.version, v.status FROM model_version v JOIN model m ON m.uuid = v.model_uuid
             WHERE v.arn = ?1",
            [source_arn],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((source_name, number, status)) = found else {
        return Err(Fault::not_found(format!(
            "Model version {source_arn} does not exist here; only models of this service can be imported"
        )));
    };
    if status != "SUCCESS" {
        return Err(Fault::conflict(format!(
            "Model version {source_arn} is {status}: only SUCCESS can be imported"
        )));
    }
    let source = models::by_name(call.db, &source_name)?.ok_or_else(Fault::internal)?;
    let version = versions::stored(call.db, &source.uuid, number)?.ok_or_else(Fault::internal)?;
    let now = call.now.timestamp_micros();
    let mut detail: Map<String, Value> = version.detail.as_object().cloned().unwrap_or_default();
    for name in ["LabelsInputConfiguration", "RoleArn", "ServerSideKmsKeyId"] {
        if let Some(value) = input.get(name) {
            detail.insert(name.to_owned(), value.clone());
        }
    }
    detail.insert("SourceModelVersionArn".to_owned(), source_arn.into());
    detail.insert("ImportJobStartTime".to_owned(), super::time(now));
    let detail = Value::Object(detail);

    let name = input.text("ModelName").unwrap_or(&source_name);
    let schema = version.schema.as_ref().unwrap_or(&source.schema);
    let sampling_us = models::sampling_us(&version.detail).or(source.sampling_us);
    let (uuid, arn) = match models::by_name(call.db, name)? {
        Some(model)
            if model
                .dataset
                .as_ref()
                .is_some_and(|(_, arn)| *arn != dataset.arn) =>
        {
            return Err(Fault::conflict(format!(
                "Model '{name}' belongs to another dataset than '{}'",
                dataset.name
            )));
        }
        Some(model) => {
            fits(&model, schema, sampling_us)?;
            if !input.tags()?.is_empty() {
                return Err(Fault::validation(format!(
                    "Model '{name}' exists: Tags can be given only with a new model, use TagResource"
                )));
            }
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
            let uuid = uuid::Uuid::new_v4().to_string();
            let arn = call.arn("model", name, &uuid);
            call.db.execute(
                "INSERT INTO model (name, uuid, arn, status, schema, sampling_us, created_us, updated_us, dataset_name,
                                    dataset_arn, detail)
                 VALUES (?1, ?2, ?3, 'IMPORT_IN_PROGRESS', ?4, ?9, ?5, ?5, ?6, ?7, ?8)",
                params![name, uuid, arn, schema, now, dataset.name, dataset.arn, detail.to_string(), sampling_us],
            )?;
            tags::set(call.db, &arn, &input.tags()?)?;
            (uuid, arn)
        }
    };
    let imported = versions::insert(call.db, &uuid, &arn, "IMPORT", None, schema, &detail, now)?;
    call.db.execute(
        "UPDATE model_version SET (file, metrics, quality) =
             (SELECT file, metrics, quality FROM model_version WHERE model_uuid = ?3 AND version = ?4)
         WHERE model_uuid = ?1 AND version = ?2",
        params![uuid, imported, source.uuid, number],
    )?;
    Ok(json!({
        "ModelName": name,
        "ModelArn": arn,
        "ModelVersionArn": versions::arn(&arn, imported),
        "ModelVersion": imported,
        "Status": "IMPORT_IN_PROGRESS",
    }))
}

/// A model keeps its sensors and its sampling: its schedulers' files and windows are made for them.
fn fits(model: &models::Stored, schema: &str, sampling_us: Option<i64>) -> Result<(), Fault> {
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
