//! CreateDataset, DescribeDataset, ListDatasets, DeleteDataset.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};

use super::{Call, maybe_time, time};
use crate::service::faults::Fault;
use crate::service::schema::Schema;
use crate::service::store::tags;

/// One dataset as stored.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// `CREATED`, `INGESTION_IN_PROGRESS`, `ACTIVE` or `IMPORT_IN_PROGRESS`.
    pub status: String,
    /// Schema string, absent until the first ingestion if none was given.
    pub schema: Option<String>,
    /// The job whose rows it holds.
    pub job_id: Option<String>,
    kms_key: Option<String>,
    source_arn: Option<String>,
    created_us: i64,
    updated_us: i64,
}

const COLUMNS: &str =
    "name, uuid, arn, status, schema, job_id, kms_key, source_arn, created_us, updated_us";

/// CreateDataset.
pub fn create(call: &Call<'_>) -> Result<Value, Fault> {
    let name = call.input.required("DatasetName")?;
    let schema = call
        .input
        .get("DatasetSchema")
        .and_then(|schema| schema["InlineDataSchema"].as_str());
    if let Some(text) = schema {
        Schema::parse(text)?;
    }
    let arn = insert(call, name, "CREATED", schema, None)?;
    Ok(json!({"DatasetName": name, "DatasetArn": arn, "Status": "CREATED"}))
}

/// Adds a dataset with the request's key and tags; a taken name is a conflict. Returns its ARN.
pub fn insert(
    call: &Call<'_>,
    name: &str,
    status: &str,
    schema: Option<&str>,
    source_arn: Option<&str>,
) -> Result<String, Fault> {
    if by_name(call.db, name)?.is_some() {
        return Err(Fault::conflict(format!("Dataset '{name}' already exists")));
    }
    let uuid = uuid::Uuid::new_v4().to_string();
    let arn = call.arn("dataset", name, &uuid);
    call.db.execute(
        "INSERT INTO dataset (name, uuid, arn, status, schema, kms_key, source_arn, created_us, updated_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        params![
            name,
            uuid,
            arn,
            status,
            schema,
            call.input.text("ServerSideKmsKeyId"),
            source_arn,
            call.now.timestamp_micros()
        ],
    )?;
    tags::set(call.db, &arn, &call.input.tags()?)?;
    Ok(arn)
}

/// DescribeDataset, with what the last successful ingestion found.
pub fn describe(call: &Call<'_>) -> Result<Value, Fault> {
    let dataset = named(call)?;
    let job = match &dataset.job_id {
        None => json!({}),
        Some(job) => call.db.query_row(
            "SELECT input, quality, files, role_arn, start_us, end_us FROM ingestion_job WHERE id = ?1",
            [job],
            |row| {
                Ok(json!({
                    "IngestionInputConfiguration": stored_json(row, 0)?,
                    "DataQualitySummary": stored_json(row, 1)?,
                    "IngestedFilesSummary": stored_json(row, 2)?,
                    "RoleArn": row.get::<_, Option<String>>(3)?,
                    "DataStartTime": maybe_time(row.get(4)?),
                    "DataEndTime": maybe_time(row.get(5)?),
                }))
            },
        )?,
    };
    Ok(json!({
        "DatasetName": dataset.name,
        "DatasetArn": dataset.arn,
        "CreatedAt": time(dataset.created_us),
        "LastUpdatedAt": time(dataset.updated_us),
        "Status": dataset.status,
        "Schema": dataset.schema,
        "ServerSideKmsKeyId": dataset.kms_key,
        "IngestionInputConfiguration": job["IngestionInputConfiguration"],
        "DataQualitySummary": job["DataQualitySummary"],
        "IngestedFilesSummary": job["IngestedFilesSummary"],
        "RoleArn": job["RoleArn"],
        "DataStartTime": job["DataStartTime"],
        "DataEndTime": job["DataEndTime"],
        "SourceDatasetArn": dataset.source_arn,
    }))
}

/// ListDatasets, by name.
pub fn list(call: &Call<'_>) -> Result<Value, Fault> {
    let page = call.page("datasets")?;
    let sql = format!(
        "SELECT {COLUMNS} FROM dataset WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY name LIMIT ?3"
    );
    let mut statement = call.db.prepare_cached(&sql)?;
    let prefix = call.input.text("DatasetNameBeginsWith").unwrap_or_default();
    let rows = statement.query_map(
        params![page.after().unwrap_or_default(), prefix, page.limit()],
        read,
    )?;
    let mut items = Vec::new();
    for row in rows {
        let dataset = row?;
        let summary = json!({
            "DatasetName": dataset.name,
            "DatasetArn": dataset.arn,
            "Status": dataset.status,
            "CreatedAt": time(dataset.created_us),
        });
        items.push((dataset.name, summary));
    }
    let (summaries, next) = page.cut(items);
    Ok(json!({"NextToken": next, "DatasetSummaries": summaries}))
}

/// DeleteDataset: not during an ingestion, and not while a model was made of it.
pub fn delete(call: &Call<'_>) -> Result<Value, Fault> {
    let dataset = named(call)?;
    if dataset.status.ends_with("IN_PROGRESS") {
        return Err(Fault::conflict(format!(
            "Dataset '{}' is {}: wait for the job to end before deleting it",
            dataset.name, dataset.status
        )));
    }
    let model: Option<String> = call
        .db
        .query_row(
            "SELECT name FROM model WHERE dataset_arn = ?1 LIMIT 1",
            [&dataset.arn],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(model) = model {
        return Err(Fault::conflict(format!(
            "Dataset '{}' is used by model '{model}': delete the model first",
            dataset.name
        )));
    }
    call.db
        .execute("DELETE FROM dataset WHERE uuid = ?1", [&dataset.uuid])?;
    call.db
        .execute("DELETE FROM resource_policy WHERE arn = ?1", [&dataset.arn])?;
    tags::forget(call.db, &dataset.arn)?;
    Ok(Value::Null)
}

/// The dataset the request names.
pub fn named(call: &Call<'_>) -> Result<Dataset, Fault> {
    let name = call.input.required("DatasetName")?;
    by_name(call.db, name)?
        .ok_or_else(|| Fault::not_found(format!("Dataset '{name}' does not exist")))
}

/// The dataset of that name.
pub fn by_name(db: &Connection, name: &str) -> Result<Option<Dataset>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM dataset WHERE name = ?1");
    Ok(db
        .prepare_cached(&sql)?
        .query_row([name], read)
        .optional()?)
}

/// The dataset of that ARN.
pub fn by_arn(db: &Connection, arn: &str) -> Result<Option<Dataset>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM dataset WHERE arn = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([arn], read).optional()?)
}

/// A JSON column, null where it is empty.
pub fn stored_json(row: &Row<'_>, index: usize) -> rusqlite::Result<Value> {
    let text: Option<String> = row.get(index)?;
    Ok(text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Dataset> {
    Ok(Dataset {
        name: row.get(0)?,
        uuid: row.get(1)?,
        arn: row.get(2)?,
        status: row.get(3)?,
        schema: row.get(4)?,
        job_id: row.get(5)?,
        kms_key: row.get(6)?,
        source_arn: row.get(7)?,
        created_us: row.get(8)?,
        updated_us: row.get(9)?,
    })
}
