//! Ingestion: a dataset's CSVs from S3 to sorted rows on disk, with what is wrong with them counted (contract 6).
//!
//! Biased to ingest: a cell that cannot be read is missing, a row without a time is skipped, a file that is no CSV or
//! belongs to no component is discarded; all of it is counted. A job fails only if nothing could be ingested or a header
//! has an illegal name. Files are streamed; memory does not grow with their size beyond 16 bytes per row.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use aws_sdk_s3::error::DisplayErrorContext;
use bytes::{Buf, Bytes};
use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Jobs;
use super::statistics::{self, Counts};
use crate::service::csv_rows::{Cell, CsvError, CsvRows};
use crate::service::faults::Fault;
use crate::service::history::{Index, PartWriter};
use crate::service::schema::{Schema, SchemaComponent, legal};

/// Files per component (contract 4.4).
const MOST_FILES: usize = 1_000;
/// Enough for a header of 300 columns.
const HEADER_BYTES: usize = 1 << 16;

/// How a key names its component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPattern {
    /// `{prefix}/{component_name}/*`
    Folder,
    /// `{prefix}/{component_name}<delimiter>*`
    Delimited(char),
}

/// A job as claimed.
struct Job {
    id: String,
    dataset: String,
    dataset_uuid: String,
    schema: Option<String>,
    input: Value,
    source_job: Option<String>,
}

/// What a job found.
struct Found {
    schema: Schema,
    quality: Value,
    files: Value,
    size: u64,
    start_us: i64,
    end_us: i64,
    statistics: Vec<(String, String, Value)>,
}

/// Reads a `KeyPattern`.
pub fn key_pattern(pattern: &str) -> Result<KeyPattern, String> {
    let tail = pattern
        .strip_prefix("{prefix}/")
        .unwrap_or(pattern)
        .strip_prefix("{component_name}");
    match tail.map(|tail| tail.strip_suffix(".csv").unwrap_or(tail)) {
        Some("/*") => Ok(KeyPattern::Folder),
        Some(tail) if tail.len() == 2 && tail.ends_with('*') && " ._-".contains(&tail[..1]) => {
            Ok(KeyPattern::Delimited(tail.chars().next().unwrap_or('_')))
        }
        _ => Err(format!(
            "KeyPattern '{pattern}' is not understood: expected {{prefix}}/{{component_name}}/* or \
             {{prefix}}/{{component_name}}_* with one of space . _ - between name and star"
        )),
    }
}

impl KeyPattern {
    /// The component that `name`, a key without its prefix, belongs to: one of `known`, or any when none is known.
    fn component<'a>(self, name: &'a str, known: Option<&Schema>) -> Option<&'a str> {
        let component = match (self, known) {
            (KeyPattern::Folder, _) => name.split_once('/')?.0,
            (KeyPattern::Delimited(delimiter), Some(schema)) => {
                let fits = |component: &&SchemaComponent| {
                    name.strip_prefix(component.name.as_str())
                        .is_some_and(|rest| rest.starts_with(delimiter))
                };
                let longest = schema
                    .components
                    .iter()
                    .filter(fits)
                    .max_by_key(|component| component.name.len())?;
                &name[..longest.name.len()]
            }
            (KeyPattern::Delimited(delimiter), None) => name.split_once(delimiter)?.0,
        };
        let allowed = known.is_none_or(|schema| {
            schema
                .components
                .iter()
                .any(|known| known.name == component)
        });
        (allowed && legal(component, b"._-")).then_some(component)
    }
}

/// Runs the oldest job that is to be done; false if there is none.
pub async fn next(jobs: &Jobs) -> Result<bool, Fault> {
    let claimed = jobs.store.transact(|db| {
        let sql = "SELECT j.id, d.name, d.uuid, d.schema, j.input, j.source_job
                   FROM ingestion_job j JOIN dataset d ON d.uuid = j.dataset_uuid
                   WHERE j.status IN ('IN_PROGRESS', 'IMPORT_IN_PROGRESS') ORDER BY j.created_us LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| {
            let input: Option<String> = row.get(4)?;
            Ok(Job {
                id: row.get(0)?,
                dataset: row.get(1)?,
                dataset_uuid: row.get(2)?,
                schema: row.get(3)?,
                input: input.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
                source_job: row.get(5)?,
            })
        };
        Ok(db.query_row(sql, [], read).optional()?)
    });
    let Some(job) = claimed.await? else {
        return Ok(false);
    };
    tracing::info!(dataset = job.dataset, job = job.id, "ingestion started");
    match &job.source_job {
        Some(source) => import(jobs, &job, source).await?,
        None => match ingest(jobs, &job).await {
            Ok(found) => succeed(jobs, &job, found).await?,
            Err(error) => fail(jobs, &job, format!("{error:#}")).await?,
        },
    }
    Ok(true)
}

async fn ingest(jobs: &Jobs, job: &Job) -> Result<Found> {
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

    let directory = jobs.store.dataset_directory(&job.id);
    // What an interrupted attempt left is not to be trusted.
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
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
            let read = read_file(jobs, bucket, key, &component.sensors, writer, counts).await?;
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
    let index = Index { components: parts };
    index.write(&directory)?;
    Ok(Found {
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
        schema,
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
                DisplayErrorContext(&error)
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
        for (key, _) in keys {
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
                    DisplayErrorContext(&error)
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

struct ReadFile {
    writer: PartWriter,
    counts: Counts,
    problem: Option<CsvError>,
}

/// Streams one file into `writer`.
async fn read_file(
    jobs: &Jobs,
    bucket: &str,
    key: &str,
    sensors: &[String],
    writer: PartWriter,
    counts: Counts,
) -> Result<ReadFile> {
    let object = jobs.s3.get_object().bucket(bucket).key(key).send().await;
    let mut body = object
        .map_err(|error| {
            anyhow!(
                "cannot read s3://{bucket}/{key}: {}",
                DisplayErrorContext(&error)
            )
        })?
        .body;
    let (sender, receiver) = mpsc::channel(8);
    let (sensors, name) = (sensors.to_vec(), key.to_owned());
    let parsing = tokio::task::spawn_blocking(move || {
        parse(Chunks::new(receiver), &name, &sensors, writer, counts)
    });
    let mut broken = None;
    loop {
        match body.next().await {
            None => break,
            Some(Ok(chunk)) => {
                // A parser that went away has its own error.
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
            Some(Err(error)) => {
                broken = Some(error);
                break;
            }
        }
    }
    drop(sender);
    let read = parsing.await??;
    match broken {
        Some(error) => Err(anyhow!("s3://{bucket}/{key} broke off: {error}")),
        None => Ok(read),
    }
}

fn parse(
    input: Chunks,
    key: &str,
    sensors: &[String],
    mut writer: PartWriter,
    mut counts: Counts,
) -> Result<ReadFile> {
    let file = match CsvRows::open(input) {
        Ok(file) => file,
        Err(problem) => {
            return Ok(ReadFile {
                writer,
                counts,
                problem: Some(problem),
            });
        }
    };
    if let Some(illegal) = file.sensors().iter().find(|name| !legal(name, b":#$._-")) {
        bail!(
            "The header of '{key}' has the column '{illegal}': names are 1 to 200 of 0-9 a-z A-Z : # $ . _ - (no spaces)"
        );
    }
    let position = |sensor: &String| file.sensors().iter().position(|column| column == sensor);
    let columns: Vec<Option<usize>> = sensors.iter().map(position).collect();
    let mut values = vec![f64::NAN; sensors.len()];
    let mut failed = None;
    let read = file.for_each(|time, cells| {
        let Some(time) = time else {
            counts.invalid_times += 1;
            return;
        };
        for (sensor, column) in columns.iter().enumerate() {
            values[sensor] = match column.map(|column| cells.get(column)) {
                Some(Cell::Number(number)) => number,
                Some(Cell::Invalid) => {
                    counts.invalid[sensor] += 1;
                    f64::NAN
                }
                Some(Cell::Missing) | None => f64::NAN,
            };
        }
        counts.rows += 1;
        if failed.is_none() {
            failed = writer.push(time, &values).err();
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(ReadFile {
        writer,
        counts,
        problem: read.err(),
    })
}

/// A body that arrives in chunks, as a reader.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Chunks {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Chunks {
        Chunks {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

async fn succeed(jobs: &Jobs, job: &Job, found: Found) -> Result<(), Fault> {
    tracing::info!(
        dataset = job.dataset,
        job = job.id,
        bytes = found.size,
        "ingestion succeeded"
    );
    let (id, dataset, now) = (
        job.id.clone(),
        job.dataset_uuid.clone(),
        jobs.clock.now().timestamp_micros(),
    );
    jobs.store
        .transact(move |db| {
            db.execute(
                "UPDATE ingestion_job SET status = 'SUCCESS', quality = ?2, files = ?3, size = ?4, start_us = ?5,
                                          end_us = ?6 WHERE id = ?1",
                params![
                    id,
                    found.quality.to_string(),
                    found.files.to_string(),
                    found.size as i64,
                    found.start_us,
                    found.end_us
                ],
            )?;
            for (component, sensor, summary) in &found.statistics {
                db.execute(
                    "INSERT OR REPLACE INTO sensor_statistics (job_id, component, sensor, summary) VALUES (?1, ?2, ?3, ?4)",
                    params![id, component, sensor, summary.to_string()],
                )?;
            }
            db.execute(
                "UPDATE dataset SET status = 'ACTIVE', job_id = ?2, schema = coalesce(schema, ?3), updated_us = ?4
                 WHERE uuid = ?1",
                params![dataset, id, found.schema.to_text(), now],
            )?;
            Ok(())
        })
        .await
}

async fn fail(jobs: &Jobs, job: &Job, reason: String) -> Result<(), Fault> {
    tracing::warn!(
        dataset = job.dataset,
        job = job.id,
        reason,
        "ingestion failed"
    );
    let _ = std::fs::remove_dir_all(jobs.store.dataset_directory(&job.id));
    let (id, dataset, now) = (
        job.id.clone(),
        job.dataset_uuid.clone(),
        jobs.clock.now().timestamp_micros(),
    );
    jobs.store
        .transact(move |db| {
            let reason: String = reason.chars().take(5000).collect();
            db.execute("UPDATE ingestion_job SET status = 'FAILED', failed_reason = ?2 WHERE id = ?1", [&id, &reason])?;
            // The rows of the job before, if there was one, are still there.
            db.execute(
                "UPDATE dataset SET status = CASE WHEN job_id IS NULL THEN 'CREATED' ELSE 'ACTIVE' END, updated_us = ?2
                 WHERE uuid = ?1",
                params![dataset, now],
            )?;
            Ok(())
        })
        .await
}

/// Copies the rows, statistics and summaries of another dataset's job.
async fn import(jobs: &Jobs, job: &Job, source: &str) -> Result<(), Fault> {
    let (from, to) = (
        jobs.store.dataset_directory(source),
        jobs.store.dataset_directory(&job.id),
    );
    let copied = tokio::task::spawn_blocking(move || copy(&from, &to)).await;
    let problem = match copied {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(error) => Some(error.to_string()),
    };
    if let Some(problem) = problem {
        return fail(jobs, job, problem).await;
    }
    tracing::info!(dataset = job.dataset, job = job.id, "dataset imported");
    let (id, source, dataset) = (job.id.clone(), source.to_owned(), job.dataset_uuid.clone());
    let now = jobs.clock.now().timestamp_micros();
    jobs.store
        .transact(move |db| {
            db.execute(
                "UPDATE ingestion_job SET status = 'SUCCESS', (quality, files, size, start_us, end_us) =
                     (SELECT quality, files, size, start_us, end_us FROM ingestion_job WHERE id = ?2)
                 WHERE id = ?1",
                [&id, &source],
            )?;
            db.execute(
                "INSERT OR REPLACE INTO sensor_statistics (job_id, component, sensor, summary)
                 SELECT ?1, component, sensor, summary FROM sensor_statistics WHERE job_id = ?2",
                [&id, &source],
            )?;
            db.execute(
                "UPDATE dataset SET status = 'ACTIVE', job_id = ?2, updated_us = ?3 WHERE uuid = ?1",
                params![dataset, id, now],
            )?;
            Ok(())
        })
        .await
}

fn copy(from: &PathBuf, to: &PathBuf) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in
        std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?
    {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))
            .context("cannot copy the dataset's rows")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_patterns_of_the_contract_are_understood() {
        assert_eq!(
            key_pattern("{prefix}/{component_name}/*"),
            Ok(KeyPattern::Folder)
        );
        assert_eq!(
            key_pattern("{prefix}/{component_name}_*"),
            Ok(KeyPattern::Delimited('_'))
        );
        assert_eq!(
            key_pattern("{prefix}/{component_name} *"),
            Ok(KeyPattern::Delimited(' '))
        );
        for bad in [
            "",
            "*",
            "{prefix}/{component_name}",
            "{prefix}/{component_name}xx*",
            "{prefix}/{component_name}é*",
        ] {
            assert!(key_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_component_that_holds_the_delimiter_is_taken_whole() {
        let component = |name: &str| SchemaComponent {
            name: name.into(),
            sensors: vec!["a".into()],
        };
        let schema = Schema {
            components: vec![component("pump"), component("pump_2")],
        };
        let of = |name| KeyPattern::Delimited('_').component(name, Some(&schema));
        assert_eq!(of("pump_2_2020.csv"), Some("pump_2"));
        assert_eq!(of("pump_2020.csv"), Some("pump"));
        assert_eq!(of("fan_2020.csv"), None);
        assert_eq!(
            KeyPattern::Folder.component("pump/a/b.csv", Some(&schema)),
            Some("pump")
        );
        assert_eq!(KeyPattern::Folder.component("pump.csv", None), None);
    }
}
