//! Ingestion: a dataset's CSVs from S3 to sorted rows on disk, with what is wrong with them counted (contract 6).
//!
//! Biased to ingest: a cell that cannot be read is missing, a row without a time is skipped, a file that is no CSV or
//! belongs to no component is discarded; all of it is counted. A job fails only if nothing could be ingested or a header
//! has an illegal name. Files are streamed; memory does not grow with their size beyond 16 bytes per row.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::key_pattern::{KeyPattern, key_pattern};
use super::statistics::{self, Counts};
use super::{Jobs, csv_file};
use crate::service::csv_rows::CsvRows;
use crate::service::faults::Fault;
use crate::service::history::PartWriter;
use crate::service::s3_problem;
use crate::service::schema::{Schema, SchemaComponent};
use crate::service::store::ingestion::{Due, Ingested};

/// Files per component (contract 4.4).
const MOST_FILES: usize = 1_000;
/// Enough for a header of 300 columns.
const HEADER_BYTES: usize = 1 << 16;

/// Runs the oldest job that is to be done; false if there is none.
pub async fn next(jobs: &Jobs) -> Result<bool, Fault> {
    let Some(job) = jobs.store.due_ingestion().await? else {
        return Ok(false);
    };
    tracing::info!(dataset = job.dataset, job = job.id, "ingestion started");
    match &job.source_job {
        Some(_) => import(jobs, &job).await?,
        None => match ingest(jobs, &job).await {
            Ok(found) => succeed(jobs, &job, found).await?,
            Err(error) => fail(jobs, &job, format!("{error:#}")).await?,
        },
    }
    Ok(true)
}

async fn ingest(jobs: &Jobs, job: &Due) -> Result<Ingested> {
    let location = &job.input["S3InputConfiguration"];
    let bucket = location["Bucket"].as_str().unwrap_or_default();
    let prefix = location["Prefix"].as_str().unwrap_or_default();
    let pattern = location["KeyPattern"]
        .as_str()
        .map_or(Ok(KeyPattern::Folder), key_pattern)
        .map_err(|error| anyhow!(error))?;
    let given = job
        .schema
        .as_deref()
        .map(Schema::parse)
        .transpose()
        .map_err(|fault| anyhow!(fault.message))?;

    let objects = list(jobs, bucket, prefix).await?;
    let mut discarded: Vec<Value> = Vec::new();
    let mut discard = |key: &str| discarded.push(json!({"Bucket": bucket, "Key": key}));
    let mut grouped: Vec<(String, Vec<(String, u64)>)> = Vec::new();
    for (key, size) in &objects {
        let name = key.strip_prefix(prefix).unwrap_or(key);
        let component = pattern
            .component(name, given.as_ref())
            .filter(|_| key.to_ascii_lowercase().ends_with(".csv"));
        let Some(component) = component else {
            discard(key);
            continue;
        };
        match grouped.iter_mut().find(|(known, _)| known == component) {
            Some((_, keys)) => keys.push((key.clone(), *size)),
            None => grouped.push((component.to_owned(), vec![(key.clone(), *size)])),
        }
    }
    grouped.sort();
    if grouped.is_empty() {
        bail!(
            "No file under s3://{bucket}/{prefix} belongs to a component of the dataset: {} files were looked at, \
             expected keys such as s3://{bucket}/{prefix}<component>/<file>.csv",
            objects.len()
        );
    }
    if let Some((component, keys)) = grouped.iter().find(|(_, keys)| keys.len() > MOST_FILES) {
        bail!(
            "Component '{component}' has {} files, the limit is {MOST_FILES}",
            keys.len()
        );
    }
    let schema = match given {
        Some(schema) => schema,
        None => detect(jobs, bucket, &grouped).await?,
    };

    let files = jobs.store.files();
    let directory = files
        .workspace(&job.id)
        .context("cannot make a directory for the rows")?;
    let (mut parts, mut all, mut ingested, mut size) = (Vec::new(), Vec::new(), 0, 0);
    for (number, component) in schema.components.iter().enumerate() {
        let keys = grouped
            .iter()
            .find(|(name, _)| *name == component.name)
            .map(|(_, keys)| keys.as_slice());
        let mut writer =
            PartWriter::create(&directory, number, &component.name, &component.sensors)?;
        let mut counts = Counts::new(component.sensors.len());
        for (key, bytes) in keys.unwrap_or_default() {
            let read =
                csv_file::read(jobs, bucket, key, &component.sensors, writer, counts).await?;
            (writer, counts) = (read.writer, read.counts);
            match read.problem {
                None => {
                    ingested += 1;
                    size += bytes;
                }
                Some(problem) => {
                    tracing::warn!(key, %problem, "file discarded");
                    discard(key);
                }
            }
        }
        let directory = directory.clone();
        let (part, statistics) = tokio::task::spawn_blocking(move || -> Result<_> {
            let part = writer.finish()?;
            let statistics = statistics::of(&directory, number, &part, &counts)?;
            Ok((part, statistics))
        })
        .await??;
        tracing::info!(
            dataset = job.dataset,
            component = component.name,
            rows = part.rows,
            "component ingested"
        );
        parts.push(part);
        all.push(statistics);
    }
    if ingested == 0 {
        bail!(
            "None of the {} files could be read as CSV; the service's log names each with its problem",
            objects.len()
        );
    }
    let first = parts.iter().filter_map(|part| part.first_us).min();
    let last = parts.iter().filter_map(|part| part.last_us).max();
    let (Some(start_us), Some(end_us)) = (first, last) else {
        bail!(
            "No row has a timestamp that can be read: the first column must be one of the documented formats, for example \
             2020-01-31T13:05:00"
        );
    };
    let (files, id) = (files.clone(), job.id.clone());
    let staged = tokio::task::spawn_blocking(move || files.stage_dataset(&id, parts)).await??;
    Ok(Ingested {
        staged,
        quality: statistics::quality(&all),
        files: json!({
            "TotalNumberOfFiles": objects.len(),
            "IngestedNumberOfFiles": ingested,
            "DiscardedFiles": discarded,
        }),
        size,
        start_us,
        end_us,
        statistics: all
            .iter()
            .flat_map(|component| component.summaries())
            .collect(),
        schema: schema.to_text(),
    })
}

/// Every key under the prefix that is no folder marker, with its size.
async fn list(jobs: &Jobs, bucket: &str, prefix: &str) -> Result<Vec<(String, u64)>> {
    let mut objects = Vec::new();
    let mut pages = jobs
        .s3
        .list_objects_v2()
        .bucket(bucket)
        .prefix(prefix)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| {
            anyhow!(
                "cannot list s3://{bucket}/{prefix}: {}",
                s3_problem::of(&error)
            )
        })?;
        for object in page.contents() {
            if let Some(key) = object.key().filter(|key| !key.ends_with('/')) {
                objects.push((
                    key.to_owned(),
                    object
                        .size()
                        .and_then(|size| u64::try_from(size).ok())
                        .unwrap_or(0),
                ));
            }
        }
    }
    Ok(objects)
}

/// The schema of a dataset created without one: components and sensors sorted as strings.
async fn detect(
    jobs: &Jobs,
    bucket: &str,
    grouped: &[(String, Vec<(String, u64)>)],
) -> Result<Schema> {
    let mut components = Vec::new();
    for (name, keys) in grouped {
        let mut sensors: Vec<String> = Vec::new();
        // A range of an empty object is an error, and it has no header anyway.
        for (key, _) in keys.iter().filter(|(_, size)| *size > 0) {
            let range = format!("bytes=0-{}", HEADER_BYTES - 1);
            let object = jobs
                .s3
                .get_object()
                .bucket(bucket)
                .key(key)
                .range(range)
                .send()
                .await;
            let object = object.map_err(|error| {
                anyhow!(
                    "cannot read s3://{bucket}/{key}: {}",
                    s3_problem::of(&error)
                )
            })?;
            let head = object.body.collect().await?.into_bytes();
            if let Ok(rows) = CsvRows::open(head.as_ref()) {
                sensors.extend(rows.sensors().iter().cloned());
            }
        }
        sensors.sort();
        sensors.dedup();
        if !sensors.is_empty() {
            components.push(SchemaComponent {
                name: name.clone(),
                sensors,
            });
        }
    }
    let schema = Schema { components };
    // Checks names and quotas the way a given schema is checked.
    Schema::parse(&schema.to_text()).map_err(|fault| anyhow!(fault.message))
}

async fn succeed(jobs: &Jobs, job: &Due, found: Ingested) -> Result<(), Fault> {
    tracing::info!(
        dataset = job.dataset,
        job = job.id,
        bytes = found.size,
        "ingestion succeeded"
    );
    let now = jobs.clock.now();
    jobs.store.ingestion_succeeded(job, found, now).await
}

async fn fail(jobs: &Jobs, job: &Due, reason: String) -> Result<(), Fault> {
    tracing::warn!(
        dataset = job.dataset,
        job = job.id,
        reason,
        "ingestion failed"
    );
    jobs.store.files().discard(&job.id);
    let now = jobs.clock.now();
    jobs.store.ingestion_failed(job, &reason, now).await
}

/// Takes the rows of another dataset, which are there: files never change, both refer to the same.
async fn import(jobs: &Jobs, job: &Due) -> Result<(), Fault> {
    let (files, file) = (jobs.store.files().clone(), job.file.clone());
    let looked = tokio::task::spawn_blocking(move || -> Result<()> {
        let file = file.context("the source's rows are not there: ingest it again")?;
        files.dataset(&file)?.verify()
    })
    .await;
    let problem = match looked {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        return fail(jobs, job, problem).await;
    }
    tracing::info!(dataset = job.dataset, job = job.id, "dataset imported");
    let now = jobs.clock.now();
    jobs.store.dataset_imported(job, now).await
}
