//! Ingestion jobs: what is to be read, and what was found.
//!
//! Guarantees: the end of a job, what it found, and what its dataset holds from then on are one transaction.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::datasets::{self, DatasetStatus};
use super::words::words;
use super::{Once, Store, leftovers, stored_json};
use crate::service::faults::Fault;
use crate::service::files::Staged;

words! {
    /// Where an ingestion job stands.
    pub enum JobStatus {
        /// It is read, or waits.
        InProgress = "IN_PROGRESS",
        /// The dataset holds its rows.
        Success = "SUCCESS",
        /// Nothing changed.
        Failed = "FAILED",
        /// It is copied, or waits.
        ImportInProgress = "IMPORT_IN_PROGRESS",
    }
}

/// The longest reason that is kept (contract 1.4).
const LONGEST_REASON: usize = 5_000;

/// An ingestion to be done.
#[derive(Debug)]
pub struct NewIngestion {
    /// The dataset's name.
    pub dataset: String,
    /// Identity, 32 hexadecimal digits.
    pub job_id: String,
    /// `IngestionInputConfiguration` as given.
    pub input: Value,
    /// Stored for the client.
    pub role_arn: String,
}

/// The answer to StartDataIngestionJob.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MadeIngestion {
    /// The job.
    pub job_id: String,
    /// Where it stood.
    pub status: JobStatus,
}

/// One ingestion job as stored.
#[derive(Debug)]
pub struct Job {
    /// Identity.
    pub id: String,
    /// Its dataset.
    pub dataset_name: String,
    /// Its dataset's ARN.
    pub dataset_arn: String,
    /// `IngestionInputConfiguration`; null for an import.
    pub input: Value,
    /// As given.
    pub role_arn: Option<String>,
    /// Creation, microseconds.
    pub created_us: i64,
    /// Where it stands.
    pub status: JobStatus,
    /// Why it failed.
    pub failed_reason: Option<String>,
    /// `DataQualitySummary`.
    pub quality: Value,
    /// `IngestedFilesSummary`.
    pub files: Value,
    /// Bytes of the files.
    pub size: Option<i64>,
    /// First row, microseconds.
    pub start_us: Option<i64>,
    /// Last row, microseconds.
    pub end_us: Option<i64>,
    /// The dataset an import copies from.
    pub source_arn: Option<String>,
}

/// Which jobs are asked for.
#[derive(Debug)]
pub struct JobsAsked {
    /// Those of this dataset.
    pub dataset: Option<String>,
    /// Those that stand there.
    pub status: Option<JobStatus>,
    /// Creation and identity of the one before the first.
    pub after: Option<(i64, String)>,
    /// So many at most.
    pub limit: i64,
}

/// A job that is to be done.
#[derive(Debug, Clone)]
pub struct Due {
    /// Identity.
    pub id: String,
    /// The dataset's name.
    pub dataset: String,
    /// The dataset's identity.
    pub dataset_uuid: String,
    /// The dataset's schema string, if it has one.
    pub schema: Option<String>,
    /// `IngestionInputConfiguration`; null for an import.
    pub input: Value,
    /// The job whose rows an import takes.
    pub source_job: Option<String>,
    /// The index of the rows an import takes.
    pub file: Option<String>,
}

/// What a job found.
#[derive(Debug)]
pub struct Ingested {
    /// Its rows, durable but not in their place yet.
    pub staged: Staged,
    /// Schema string of a dataset that has none.
    pub schema: String,
    /// `DataQualitySummary`.
    pub quality: Value,
    /// `IngestedFilesSummary`.
    pub files: Value,
    /// Bytes of the files.
    pub size: u64,
    /// First row, microseconds.
    pub start_us: i64,
    /// Last row, microseconds.
    pub end_us: i64,
    /// Component, sensor, summary.
    pub statistics: Vec<(String, String, Value)>,
}

const COLUMNS: &str = "j.id, d.name, d.arn, j.input, j.role_arn, j.created_us, j.status, j.failed_reason, j.quality, j.files, \
     j.size, j.start_us, j.end_us, j.source_arn FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid";

impl Store {
    /// Puts an ingestion into the queue: one job of a dataset at a time.
    pub async fn start_ingestion(
        &self,
        once: Option<Once>,
        new: NewIngestion,
        now: DateTime<Utc>,
    ) -> Result<MadeIngestion, Fault> {
        self.make(once, now, move |db| {
            let dataset = datasets::named(db, &new.dataset)?;
            if dataset.status.is_busy() {
                return Err(Fault::conflict(format!(
                    "Dataset '{}' is {}: one job at a time",
                    dataset.name, dataset.status
                )));
            }
            if dataset.schema.is_none() && !new.input["S3InputConfiguration"]["KeyPattern"].is_string() {
                return Err(Fault::validation(
                    "KeyPattern is required for the first ingestion of a dataset without a schema, for example \
                     {prefix}/{component_name}/*",
                ));
            }
            let (status, us) = (JobStatus::InProgress, now.timestamp_micros());
            db.execute(
                "INSERT INTO ingestion_job (id, dataset_uuid, input, role_arn, status, created_us)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    new.job_id,
                    dataset.uuid,
                    new.input.to_string(),
                    new.role_arn,
                    status,
                    us
                ],
            )?;
            db.execute(
                "UPDATE dataset SET status = ?2, updated_us = ?3 WHERE uuid = ?1",
                params![dataset.uuid, DatasetStatus::IngestionInProgress, us],
            )?;
            Ok(MadeIngestion {
                job_id: new.job_id,
                status,
            })
        })
        .await
    }

    /// The job of that identity.
    pub async fn ingestion_job(&self, id: &str) -> Result<Job, Fault> {
        let id = id.to_owned();
        self.transact(move |db| {
            find(db, &id)?.ok_or_else(|| {
                Fault::not_found(format!("Data ingestion job '{id}' does not exist"))
            })
        })
        .await
    }

    /// Ingestion jobs, newest first.
    pub async fn ingestion_jobs(&self, asked: JobsAsked) -> Result<Vec<Job>, Fault> {
        self.transact(move |db| {
            let sql = format!(
                "SELECT {COLUMNS}
                 WHERE (j.created_us, j.id) < (?1, ?2) AND (?3 IS NULL OR d.name = ?3) AND (?4 IS NULL OR j.status = ?4)
                 ORDER BY j.created_us DESC, j.id DESC LIMIT ?5"
            );
            let mut statement = db.prepare_cached(&sql)?;
            let (before_us, before) = asked.after.unwrap_or((i64::MAX, String::new()));
            let rows = statement.query_map(
                params![before_us, before, asked.dataset, asked.status, asked.limit],
                read,
            )?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Statistics of a job of a dataset, by default the one whose rows it holds: component, sensor and summary, by the first
    /// two as strings, after `after`.
    pub async fn sensor_statistics(
        &self,
        dataset: &str,
        job: Option<String>,
        after: (String, String),
        limit: i64,
    ) -> Result<Vec<(String, String, Value)>, Fault> {
        let name = dataset.to_owned();
        self.transact(move |db| {
            let dataset = datasets::named(db, &name)?;
            let job = match job {
                None => dataset.job_id,
                Some(id) => {
                    let sql = "SELECT id FROM ingestion_job WHERE id = ?1 AND dataset_uuid = ?2";
                    let found: Option<String> = db
                        .query_row(sql, [&id, &dataset.uuid], |row| row.get(0))
                        .optional()?;
                    let missing =
                        || Fault::not_found(format!("Dataset '{name}' has no ingestion job '{id}'"));
                    Some(found.ok_or_else(missing)?)
                }
            };
            let mut statement = db.prepare_cached(
                "SELECT component, sensor, summary FROM sensor_statistics
                 WHERE job_id = ?1 AND (component, sensor) > (?2, ?3) ORDER BY component, sensor LIMIT ?4",
            )?;
            let rows = statement.query_map(params![job, after.0, after.1, limit], |row| {
                Ok((row.get(0)?, row.get(1)?, stored_json(row, 2)?))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// The oldest job that is to be done. It stays until it is ended: what a crash interrupted is due again.
    pub async fn due_ingestion(&self) -> Result<Option<Due>, Fault> {
        self.transact(|db| {
            let sql = "SELECT j.id, d.name, d.uuid, d.schema, j.input, j.source_job, j.file
                       FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid
                       WHERE j.status IN (?1, ?2) ORDER BY j.created_us LIMIT 1";
            let read = |row: &Row<'_>| {
                Ok(Due {
                    id: row.get(0)?,
                    dataset: row.get(1)?,
                    dataset_uuid: row.get(2)?,
                    schema: row.get(3)?,
                    input: stored_json(row, 4)?,
                    source_job: row.get(5)?,
                    file: row.get(6)?,
                })
            };
            let waiting = [JobStatus::InProgress, JobStatus::ImportInProgress];
            Ok(db.query_row(sql, waiting, read).optional()?)
        })
        .await
    }

    /// Puts the rows in their place; the dataset holds what the job found.
    pub async fn ingestion_succeeded(
        &self,
        job: &Due,
        found: Ingested,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let (id, dataset) = (job.id.clone(), job.dataset_uuid.clone());
        let (files, staged) = (self.files.clone(), found.staged);
        self.announce(staged.folder, staged.names()).await?;
        self.transact(move |db| {
            leftovers::place(db, &files, &staged)?;
            db.execute(
                "UPDATE ingestion_job SET status = ?7, quality = ?2, files = ?3, size = ?4, start_us = ?5, end_us = ?6, file = ?8
                 WHERE id = ?1",
                params![
                    id,
                    found.quality.to_string(),
                    found.files.to_string(),
                    found.size as i64,
                    found.start_us,
                    found.end_us,
                    JobStatus::Success,
                    staged.name,
                ],
            )?;
            for (component, sensor, summary) in &found.statistics {
                db.execute(
                    "INSERT OR REPLACE INTO sensor_statistics (job_id, component, sensor, summary) VALUES (?1, ?2, ?3, ?4)",
                    params![id, component, sensor, summary.to_string()],
                )?;
            }
            hold(db, &dataset, &id, Some(&found.schema), now)
        })
        .await
    }

    /// The dataset holds the same rows as the import's source did when it was asked for. What is told of them was taken over
    /// then; an import of an older build takes it now.
    pub async fn dataset_imported(&self, job: &Due, now: DateTime<Utc>) -> Result<(), Fault> {
        let job = job.clone();
        self.transact(move |db| {
            db.execute(
                "UPDATE ingestion_job SET (quality, files, size, start_us, end_us) =
                     (SELECT quality, files, size, start_us, end_us FROM ingestion_job WHERE id = ?2)
                 WHERE id = ?1 AND quality IS NULL",
                params![job.id, job.source_job],
            )?;
            db.execute(
                "INSERT OR IGNORE INTO sensor_statistics (job_id, component, sensor, summary)
                 SELECT ?1, component, sensor, summary FROM sensor_statistics WHERE job_id = ?2",
                params![job.id, job.source_job],
            )?;
            db.execute(
                "UPDATE ingestion_job SET status = ?2 WHERE id = ?1",
                params![job.id, JobStatus::Success],
            )?;
            hold(db, &job.dataset_uuid, &job.id, None, now)
        })
        .await
    }

    /// The dataset holds what it held before.
    pub async fn ingestion_failed(
        &self,
        job: &Due,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Fault> {
        let (id, dataset) = (job.id.clone(), job.dataset_uuid.clone());
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        self.transact(move |db| {
            db.execute(
                "UPDATE ingestion_job SET status = ?3, failed_reason = ?2, file = NULL WHERE id = ?1",
                params![id, reason, JobStatus::Failed],
            )?;
            db.execute(
                "UPDATE dataset SET status = CASE WHEN job_id IS NULL THEN ?3 ELSE ?4 END, updated_us = ?2 WHERE uuid = ?1",
                params![
                    dataset,
                    now.timestamp_micros(),
                    DatasetStatus::Created,
                    DatasetStatus::Active,
                ],
            )?;
            Ok(())
        })
        .await
    }
}

fn hold(
    db: &Connection,
    dataset: &str,
    job: &str,
    schema: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), Fault> {
    db.execute(
        "UPDATE dataset SET status = ?5, job_id = ?2, schema = coalesce(schema, ?3), updated_us = ?4 WHERE uuid = ?1",
        params![
            dataset,
            job,
            schema,
            now.timestamp_micros(),
            DatasetStatus::Active
        ],
    )?;
    // Rows that were replaced are given up; a training that reads them keeps them until it ends.
    db.execute(
        "UPDATE ingestion_job SET file = NULL
         WHERE dataset_uuid = ?1 AND id <> ?2 AND file IS NOT NULL AND status IN (?3, ?4)",
        params![dataset, job, JobStatus::Success, JobStatus::Failed],
    )?;
    Ok(())
}

/// The job of that identity.
pub(super) fn find(db: &Connection, id: &str) -> Result<Option<Job>, Fault> {
    let sql = format!("SELECT {COLUMNS} WHERE j.id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([id], read).optional()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: row.get(0)?,
        dataset_name: row.get(1)?,
        dataset_arn: row.get(2)?,
        input: stored_json(row, 3)?,
        role_arn: row.get(4)?,
        created_us: row.get(5)?,
        status: row.get(6)?,
        failed_reason: row.get(7)?,
        quality: stored_json(row, 8)?,
        files: stored_json(row, 9)?,
        size: row.get(10)?,
        start_us: row.get(11)?,
        end_us: row.get(12)?,
        source_arn: row.get(13)?,
    })
}
