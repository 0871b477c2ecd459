//! Ingestion: a dataset's CSVs from S3 to sorted rows on disk, with what is wrong with them counted (contract 6).
//!
//! Biased to ingest: a cell that cannot be read is missing, a row without a time is skipped, a file that is no CSV or
//! belongs to no component is discarded; all of it is counted. A job fails only if nothing could be ingested or a header
//! has an illegal name, and says of which file. Files of one component are merged by time. Rows are on the disk before the
//! job is SUCCESS. Quotas hold by the sizes of the listing. Files are streamed; memory does not grow with their size beyond 16
//! bytes per row.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::key_pattern::{KeyPattern, is_csv, key_pattern};
use super::objects::Objects;
use super::statistics::{self, Counts};
use super::{Jobs, csv_file};
use crate::records::MOST_BYTES;
use crate::s3::Listed;
use crate::service::csv_rows::{CsvError, CsvRows};
use crate::service::faults::Fault;
use crate::service::history::PartWriter;
use crate::service::schema::{MOST, Schema, SchemaComponent, TIME};
use crate::service::store::ingestion::{Due, Ingested};

/// Files per component (contract 4.4).
const MOST_FILES: usize = 1_000;
/// Bytes of a file, and of all files of a dataset (contract 4.4).
const LARGEST_FILE: u64 = 5 << 30;
const LARGEST_DATASET: u64 = 50 << 30;
/// Enough for a header of 300 columns; of a longer one as much is asked for as a header may have.
const HEADER_BYTES: u64 = 1 << 16;
/// Files that a reason names.
const SHOWN: usize = 5;

/// The files of each component: key and size.
type Grouped = BTreeMap<String, Vec<(String, u64)>>;

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
    let given = job.schema.as_deref().map(Schema::read).transpose();
    let given = given.map_err(|problem| anyhow!("the dataset's schema is damaged: {problem}"))?;

    let objects = Objects::of(jobs, bucket);
    let listed = objects.list(prefix).await?;
    let mut discarded = Discarded::of(bucket);
    let mut grouped: Grouped = BTreeMap::new();
    for Listed { key, size, .. } in &listed {
        let name = key.strip_prefix(prefix).unwrap_or(key);
        let component = pattern
            .component(name, given.as_ref())
            .filter(|_| is_csv(prefix, key));
        match component {
            None => discarded.keys.push(key.clone()),
            Some(component) => {
                let keys = grouped.entry(component.to_owned()).or_default();
                keys.push((key.clone(), *size));
            }
        }
    }
    if grouped.is_empty() {
        bail!(
            "No file under s3://{bucket}/{prefix} belongs to a component of the dataset: {} files were looked at, \
             expected keys such as s3://{bucket}/{prefix}<component>/<file>.csv",
            listed.len()
        );
    }
    hold_to_the_limits(&grouped)?;
    let schema = match given {
        Some(schema) => schema,
        None => detect(&objects, &mut grouped, &mut discarded).await?,
    };

    let files = jobs.store.files();
    let directory = files
        .workspace(&job.id)
        .context("cannot make a directory for the rows")?;
    let (mut parts, mut all, mut ingested, mut size) = (Vec::new(), Vec::new(), 0, 0);
    for (number, component) in schema.components.iter().enumerate() {
        let keys = grouped.get(&component.name);
        let mut writer =
            PartWriter::create(&directory, number, &component.name, &component.sensors);
        let mut counts = Counts::new(component.sensors.len());
        for (key, bytes) in keys.into_iter().flatten() {
            let read = csv_file::read(&objects, key, &component.sensors, writer, counts).await?;
            (writer, counts) = (read.writer, read.counts);
            match read.problem {
                None => {
                    ingested += 1;
                    size += bytes;
                }
                Some(problem) => discarded.add(key, problem),
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
        bail!("No file could be ingested. {}", discarded.reasons());
    }
    let first = parts.iter().filter_map(|part| part.first_us).min();
    let last = parts.iter().filter_map(|part| part.last_us).max();
    let (Some(start_us), Some(end_us)) = (first, last) else {
        bail!(
            "No row of the {ingested} files has a timestamp that can be read, '{}' for one: the first column must be one of \
             the documented formats, for example 2020-01-31T13:05:00. {}",
            grouped.values().flatten().next().map_or("", |(key, _)| key),
            discarded.reasons()
        );
    };
    let (files, id) = (files.clone(), job.id.clone());
    let staged = tokio::task::spawn_blocking(move || files.stage_dataset(&id, parts)).await??;
    Ok(Ingested {
        staged,
        quality: statistics::quality(&all),
        files: json!({
            "TotalNumberOfFiles": listed.len(),
            "IngestedNumberOfFiles": ingested,
            "DiscardedFiles": discarded.listed(),
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

/// Files that were not taken.
struct Discarded {
    bucket: String,
    keys: Vec<String>,
    /// What was wrong with those that a component's folder has.
    problems: Vec<String>,
}

impl Discarded {
    fn of(bucket: &str) -> Discarded {
        Discarded {
            bucket: bucket.to_owned(),
            keys: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn add(&mut self, key: &str, problem: String) {
        tracing::warn!(key, problem, "file discarded");
        self.keys.push(key.to_owned());
        self.problems.push(format!("'{key}': {problem}"));
    }

    /// As the API lists them.
    fn listed(&self) -> Vec<Value> {
        let mut keys: Vec<&String> = self.keys.iter().collect();
        keys.sort();
        let listed = |key| json!({"Bucket": self.bucket, "Key": key});
        keys.into_iter().map(listed).collect()
    }

    /// What was wrong with the first of them.
    fn reasons(&self) -> String {
        let more = self.problems.len().saturating_sub(SHOWN);
        let shown = self.problems[..self.problems.len() - more].join("; ");
        match more {
            0 => shown,
            more => format!("{shown}; and {more} more files"),
        }
    }
}

/// Refuses by the sizes of the listing what is over a quota, before any of it is read.
fn hold_to_the_limits(grouped: &Grouped) -> Result<()> {
    if let Some((component, keys)) = grouped.iter().find(|(_, keys)| keys.len() > MOST_FILES) {
        bail!(
            "Component '{component}' has {} files, the limit is {MOST_FILES}",
            keys.len()
        );
    }
    let files = || grouped.values().flatten();
    if let Some((key, size)) = files().find(|(_, size)| *size > LARGEST_FILE) {
        bail!("The file '{key}' has {size} bytes, the limit is {LARGEST_FILE} (5 GB): split it");
    }
    let sum = files().fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
    if sum > LARGEST_DATASET {
        bail!(
            "The {} files have {sum} bytes together, the limit of a dataset is {LARGEST_DATASET} (50 GB)",
            files().count()
        );
    }
    Ok(())
}

/// The schema of a dataset created without one: components and sensors sorted as strings, each time column as the first
/// file of its component calls it. Files without a header are discarded.
async fn detect(
    objects: &Objects,
    grouped: &mut Grouped,
    discarded: &mut Discarded,
) -> Result<Schema> {
    let mut components = Vec::new();
    for (name, keys) in grouped.iter_mut() {
        let (mut sensors, mut time) = (BTreeSet::new(), None);
        let mut kept = Vec::new();
        for (key, size) in keys.drain(..) {
            match header(objects, &key, size).await? {
                Err(problem) => discarded.add(&key, problem),
                Ok((of_time, of_sensors)) => {
                    time = time.or(Some(of_time).filter(|time| !time.is_empty()));
                    sensors.extend(of_sensors);
                    kept.push((key, size));
                }
            }
        }
        *keys = kept;
        if !sensors.is_empty() {
            components.push(SchemaComponent {
                name: name.clone(),
                time: time.unwrap_or_else(|| TIME.to_owned()),
                sensors: sensors.into_iter().collect(),
            });
        }
    }
    let schema = Schema { components };
    if schema.components.is_empty() {
        bail!("No file could be ingested. {}", discarded.reasons());
    }
    let (count, columns) = (schema.components.len(), schema.sensor_count());
    if count > MOST || columns > MOST {
        bail!(
            "The files have {columns} sensors in {count} components, the limit of a dataset is {MOST} of each"
        );
    }
    Ok(schema)
}

/// The time column and the sensors of a file, or what is wrong with its header.
async fn header(
    objects: &Objects,
    key: &str,
    size: u64,
) -> Result<Result<(String, Vec<String>), String>> {
    // A range of an empty object is an error, and it has no header anyway.
    if size == 0 {
        return Ok(Err(CsvError::Empty.to_string()));
    }
    let mut length = HEADER_BYTES.min(size);
    loop {
        let head = objects.beginning(key, length as usize).await?;
        let opened = CsvRows::open(head.as_ref());
        let whole = opened.as_ref().is_ok_and(CsvRows::header_is_whole);
        let longest = size.min(MOST_BYTES as u64 + HEADER_BYTES);
        if !whole && length < longest {
            length = longest;
            continue;
        }
        return Ok(match opened {
            Err(problem) => Err(problem.to_string()),
            Ok(file) => {
                csv_file::refuse_illegal(&file, key)?;
                Ok((file.time().to_owned(), file.sensors().to_vec()))
            }
        });
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(sizes: &[(&str, usize, u64)]) -> Grouped {
        let mut grouped = Grouped::new();
        for (component, count, size) in sizes {
            let keys = (0..*count).map(|nth| (format!("in/{component}/{nth}.csv"), *size));
            grouped.insert((*component).to_owned(), keys.collect());
        }
        grouped
    }

    #[test]
    fn files_and_datasets_are_held_to_their_quotas_by_size() {
        const GB: u64 = 1 << 30;
        for (sizes, word) in [
            (&[("a", 1_001, 1)][..], "Component 'a' has 1001 files"),
            (
                &[("a", 1, 1), ("b", 1, 5 * GB + 1)],
                "'in/b/0.csv' has 5368709121 bytes",
            ),
            (
                &[("a", 6, 5 * GB), ("b", 5, 5 * GB)],
                "The 11 files have 59055800320 bytes",
            ),
            (&[("a", 3, u64::MAX / 2)], "'in/a/0.csv'"),
        ] {
            let error = hold_to_the_limits(&grouped(sizes)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let most = [("a", 1_000, 1), ("b", 9, 5 * GB)];
        hold_to_the_limits(&grouped(&most)).unwrap();
    }
}
