//! Datasets: their rows of the database; what they hold lies beside it, by ingestion job.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::ingestion::{self, Job, JobStatus};
use super::words::words;
use super::{Once, Store, tags};
use crate::service::faults::Fault;

words! {
    /// Where a dataset stands.
    pub enum DatasetStatus {
        /// Nothing was ingested.
        Created = "CREATED",
        /// A job reads its files.
        IngestionInProgress = "INGESTION_IN_PROGRESS",
        /// It holds rows.
        Active = "ACTIVE",
        /// A job copies another's rows.
        ImportInProgress = "IMPORT_IN_PROGRESS",
    }
}

impl DatasetStatus {
    /// Whether a job works on it.
    pub fn is_busy(self) -> bool {
        matches!(self, Self::IngestionInProgress | Self::ImportInProgress)
    }
}

/// A dataset to be made.
#[derive(Debug)]
pub struct NewDataset {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// Schema string, if it was given.
    pub schema: Option<String>,
    /// `ServerSideKmsKeyId` as given.
    pub kms_key: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// A dataset to be made of another's rows.
pub struct NewImport {
    /// ARN of the other.
    pub source_arn: String,
    /// Name, unique; that of the other if there is none.
    pub name: Option<String>,
    /// Identity.
    pub uuid: String,
    /// Its ARN, by its name.
    pub arn: Box<dyn FnOnce(&str) -> String + Send>,
    /// Identity of the job that copies.
    pub job_id: String,
    /// `ServerSideKmsKeyId` as given.
    pub kms_key: Option<String>,
    /// Tags.
    pub tags: Vec<(String, String)>,
}

/// The answer to CreateDataset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeDataset {
    /// Its name.
    pub dataset_name: String,
    /// Its ARN.
    pub dataset_arn: String,
    /// Where it stood.
    pub status: DatasetStatus,
}

/// The answer to ImportDataset.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeImport {
    /// Its name.
    pub dataset_name: String,
    /// Its ARN.
    pub dataset_arn: String,
    /// Where it stood.
    pub status: DatasetStatus,
    /// The job that copies.
    pub job_id: String,
}

/// One dataset as stored.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Name, unique.
    pub name: String,
    /// Identity.
    pub uuid: String,
    /// ARN.
    pub arn: String,
    /// Where it stands.
    pub status: DatasetStatus,
    /// Schema string, absent until the first ingestion if none was given.
    pub schema: Option<String>,
    /// The job whose rows it holds.
    pub job_id: Option<String>,
    /// `ServerSideKmsKeyId`.
    pub kms_key: Option<String>,
    /// ARN of the dataset it was copied from.
    pub source_arn: Option<String>,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Last change, microseconds.
    pub updated_us: i64,
}

const COLUMNS: &str =
    "name, uuid, arn, status, schema, job_id, kms_key, source_arn, created_us, updated_us";

impl Store {
    /// Makes a dataset; a taken name is a conflict.
    pub async fn create_dataset(
        &self,
        once: Option<Once>,
        new: NewDataset,
        now: DateTime<Utc>,
    ) -> Result<MadeDataset, Fault> {
        self.make(once, now, move |db| {
            let status = DatasetStatus::Created;
            insert(db, &new, status, None, now)?;
            Ok(MadeDataset {
                dataset_name: new.name,
                dataset_arn: new.arn,
                status,
            })
        })
        .await
    }

    /// Makes a dataset that is to get the rows another holds now, and takes over at once all that is told of them: the
    /// other may be deleted while the copy waits.
    pub async fn import_dataset(
        &self,
        once: Option<Once>,
        new: NewImport,
        now: DateTime<Utc>,
    ) -> Result<MadeImport, Fault> {
        self.make(once, now, move |db| {
            let source_arn = new.source_arn;
            let source = by_arn(db, &source_arn)?.ok_or_else(|| {
                Fault::not_found(format!(
                    "Dataset {source_arn} does not exist here; only datasets of this service can be imported"
                ))
            })?;
            let Some(source_job) = source.job_id else {
                return Err(Fault::conflict(format!("Dataset '{}' holds no data to import", source.name)));
            };
            let name = new.name.unwrap_or(source.name);
            let dataset = NewDataset {
                arn: (new.arn)(&name),
                name,
                uuid: new.uuid,
                schema: source.schema,
                kms_key: new.kms_key,
                tags: new.tags,
            };
            let status = DatasetStatus::ImportInProgress;
            insert(db, &dataset, status, Some(&source_arn), now)?;
            db.execute(
                "INSERT INTO ingestion_job (id, dataset_uuid, status, source_job, source_arn, created_us, quality, files, size,
                                            start_us, end_us, file)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, quality, files, size, start_us, end_us, file FROM ingestion_job WHERE id = ?4",
                params![
                    new.job_id,
                    dataset.uuid,
                    JobStatus::ImportInProgress,
                    source_job,
                    source_arn,
                    now.timestamp_micros(),
                ],
            )?;
            db.execute(
                "INSERT INTO sensor_statistics (job_id, component, sensor, summary)
                 SELECT ?1, component, sensor, summary FROM sensor_statistics WHERE job_id = ?2",
                [&new.job_id, &source_job],
            )?;
            Ok(MadeImport {
                dataset_name: dataset.name,
                dataset_arn: dataset.arn,
                status,
                job_id: new.job_id,
            })
        })
        .await
    }

    /// The dataset of that name, with the job whose rows it holds.
    pub async fn dataset(&self, name: &str) -> Result<(Dataset, Option<Job>), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let dataset = named(db, &name)?;
            let job = match &dataset.job_id {
                Some(id) => ingestion::find(db, id)?,
                None => None,
            };
            Ok((dataset, job))
        })
        .await
    }

    /// Datasets whose name begins with `prefix`, by name, after `after`.
    pub async fn datasets(
        &self,
        prefix: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Dataset>, Fault> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.transact(move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM dataset WHERE name > ?1 AND substr(name, 1, length(?2)) = ?2 ORDER BY name LIMIT ?3"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(params![after, prefix, limit], read)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Deletes a dataset: not while a job works on it, and not while a model was made of it.
    pub async fn delete_dataset(&self, name: &str) -> Result<(), Fault> {
        let name = name.to_owned();
        self.transact(move |db| {
            let dataset = named(db, &name)?;
            if dataset.status.is_busy() {
                return Err(Fault::conflict(format!(
                    "Dataset '{name}' is {}: wait for the job to end before deleting it",
                    dataset.status
                )));
            }
            let sql = "SELECT name FROM model WHERE dataset_arn = ?1 LIMIT 1";
            let model: Option<String> = db
                .query_row(sql, [&dataset.arn], |row| row.get(0))
                .optional()?;
            if let Some(model) = model {
                return Err(Fault::conflict(format!(
                    "Dataset '{name}' is used by model '{model}': delete the model first"
                )));
            }
            db.execute("DELETE FROM dataset WHERE uuid = ?1", [&dataset.uuid])?;
            db.execute("DELETE FROM resource_policy WHERE arn = ?1", [&dataset.arn])?;
            tags::forget(db, &dataset.arn)
        })
        .await
    }
}

/// The dataset of that name; that there is none is the fault.
pub(super) fn named(db: &Connection, name: &str) -> Result<Dataset, Fault> {
    by_name(db, name)?.ok_or_else(|| Fault::not_found(format!("Dataset '{name}' does not exist")))
}

/// The dataset of that name.
pub(super) fn by_name(db: &Connection, name: &str) -> Result<Option<Dataset>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM dataset WHERE name = ?1");
    Ok(db
        .prepare_cached(&sql)?
        .query_row([name], read)
        .optional()?)
}

fn by_arn(db: &Connection, arn: &str) -> Result<Option<Dataset>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM dataset WHERE arn = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([arn], read).optional()?)
}

fn insert(
    db: &Connection,
    new: &NewDataset,
    status: DatasetStatus,
    source_arn: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    if by_name(db, &new.name)?.is_some() {
        return Err(Fault::conflict(format!(
            "Dataset '{}' already exists",
            new.name
        )));
    }
    db.execute(
        "INSERT INTO dataset (name, uuid, arn, status, schema, kms_key, source_arn, created_us, updated_us)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        params![
            new.name,
            new.uuid,
            new.arn,
            status,
            new.schema,
            new.kms_key,
            source_arn,
            now.timestamp_micros()
        ],
    )?;
    tags::set(db, &new.arn, &new.tags)
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
